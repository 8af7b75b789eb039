"""docs/systems.md, tables of all published systems, and docs/systems/NAME.md, a page of each, from the folders in systems/."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from histoloom.config.models import inherited
from histoloom.systems import PAGE, RECIPE, expected, folder_of, names, root

_PUBLISHED = "published.csv"
_OVERVIEW = Path("docs/systems.md")
_FOLDER = Path("docs/systems")
_INTRODUCTION = """# Systems

histoloom has recipes for 31 published diffusion systems for microscopy, at a small size. They are the systems of one review (Liu et al. 2025, Frontiers in Medicine).
Each is a recipe: it changes some keys of params.yaml, brings data to run on, and is measured beside a baseline.
Use one as the start of a study of your own, or to see what such a method can do.

To run one, in the repository with its environment active:

```
histoloom init my-study --system oettl
cd my-study
dvc repro
```

By default a system runs on pictures made by code ("drawn data"). With `--data FOLDER` some systems take [real data](#real-data).
No system was run at the size of its paper so far. `--recipe systems/oettl/full.yaml` comes nearer to that size, for a GPU.

To measure one as in the table below:

```
python -m benchmarks.systems oettl --json FILE
```

This makes the study in `.work/systems`, and runs and measures it. An interrupted run continues where it stopped. `--picture FILE.jpg` shows its tiles.
"""
_MEASURED = """Each system has one number, `value`, and the same number of a simpler method, `baseline`. Its page explains both, and has results on real data where there are any.
All numbers in this table are of drawn data. They do not show that a system is good on tissue. If the 95 % interval of the difference includes 0, no difference was shown."""


def pages() -> dict[Path, str]:
    """The overview and a page a system, by their places in the repository."""
    return {_OVERVIEW: _overview(), **{_FOLDER / f"{name}.md": _page(name) for name in names()}}


def write_pages() -> None:
    _FOLDER.mkdir(parents=True, exist_ok=True)
    for stale in {*_FOLDER.glob("*.md")} - {*pages()}:
        stale.unlink()
    for place, text in pages().items():
        place.write_text(text, encoding="utf-8")


def _overview() -> str:
    with (root() / _PUBLISHED).open(encoding="utf-8", newline="") as stream:
        known = [row for row in csv.DictReader(stream) if row["name"] in names()]
    links = {row["name"]: f"[{row['name']}](systems/{row['name']}.md)" for row in known}
    what = [[row["number"], links[row["name"]], row["what"], row["use"]] for row in known]
    numbers = [[links[row["name"]], *_numbers(row["name"])] for row in known if expected(row["name"])["measured"]]
    text = (root() / PAGE).read_text(encoding="utf-8").replace("](../docs/", "](")
    return "\n".join(
        [
            _INTRODUCTION,
            "## What each is for\n",
            *_table(("no. in the review", "system", "makes", "is meant to"), what),
            "## What was measured\n",
            _MEASURED,
            "",
            *_table(
                ("system", "measure", "better is", "`value`", "`baseline`", "`value` minus `baseline`, 95 %", "result"),
                numbers,
            ),
            text[text.index("## Words on the pages") :],
            "Written from `systems/` by `python -m benchmarks.systems --page`.\n",
        ]
    )


def _page(name: str) -> str:
    """A system's README, with a table of its recipe before its first section."""
    text = (folder_of(name) / PAGE).read_text(encoding="utf-8")
    summary, rest = (
        text.replace("](../README.md", "](../systems.md").replace("](../../docs/", "](../").split("\n## ", 1)
    )
    note = f"Written from `systems/{name}/README.md` by `python -m benchmarks.systems --page`."
    return "\n".join(
        [summary.strip(), "", *_table(("the recipe", ""), _recipe(name)), f"## {rest.strip()}", "", note, ""]
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [*(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)), ""]


def _recipe(name: str) -> list[list[str]]:
    recipe = YAML(typ="safe").load((folder_of(name) / RECIPE).read_text(encoding="utf-8"))
    models = [inherited(recipe, of) for of in recipe["sample"].get("chain", [])] or [recipe]
    trained = [model["train_denoiser"] for model in models]
    requests = recipe["plan"].get("requests", [])
    starts = {"inverted tile" if (r.get("start") or {}).get("inverted") else "tile" for r in requests if r.get("start")}
    reduced = {
        r["reduce"] if isinstance(r["reduce"], str) else r["reduce"]["name"] for r in requests if r.get("reduce")
    }
    rows = [
        ["what is diffused", ", then ".join(_target(config) for config in trained)],
        [
            "conditions",
            ", ".join(dict.fromkeys(given for config in trained for given in config["conditions"])) or "none",
        ],
        ["network", ", ".join(dict.fromkeys(_network(config) for config in trained))],
        ["sampling begins from", ", ".join(sorted(starts)) or "noise"],
        ["samples are combined by", ", ".join(sorted(reduced))],
    ]
    return [row for row in rows if row[1]]


def _numbers(name: str) -> list[str]:
    number = expected(name)["measured"]
    low, high = number["interval"]
    higher = number["better"] == "more"
    return [
        number["unit"],
        "higher" if higher else "lower",
        f"{number['value']:.3g}",
        f"{number['baseline']:.3g}",
        f"{low:.2g} to {high:.2g}",
        "no difference shown" if low <= 0 <= high else "better" if (low > 0) == higher else "worse",
    ]


def _target(config: dict[str, Any]) -> str:
    target = config.get("target", "latents")
    if isinstance(target, str):
        return target
    return f"{target['name']} ({target['condition']})" if "condition" in target else target["name"]


def _network(config: dict[str, Any]) -> str:
    return f"{config.get('backbone', 'unet')}{' with SPADE' if config.get('map_input') == 'spade' else ''}"
