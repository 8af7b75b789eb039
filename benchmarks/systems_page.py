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

Written by `python -m benchmarks.systems --page`, from `systems/`.

A published system is a recipe of histoloom. It states what it changes in params, its data, and a number beside a baseline.
The systems are those of a review of diffusion models for microscopy (Liu et al. 2025, Frontiers in Medicine).

To run one, in the repository with its environment active:

```
histoloom init my-study --system oettl
cd my-study
dvc repro
```

Its data are pictures made by code. Some systems take `--data FOLDER` with real ones.

`python -m benchmarks.systems oettl --json FILE` makes such a study in `.work/systems`, runs what the number needs, and measures it.
`--picture FILE.jpg` shows its tiles. A run that was broken off goes on where it stopped.
`--recipe systems/oettl/full.yaml` takes the paper's size, for a GPU. No system was run at this size so far.
"""
_MEASURED = """"Drawn" data are pictures made by code. A number on them does not show that a system is good on tissue.
A system's page says what was measured, on real data too where there are any. An interval that holds 0 shows no difference."""


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
    text = (root() / PAGE).read_text(encoding="utf-8")
    return "\n".join(
        [
            _INTRODUCTION,
            "## What each is for\n",
            *_table(("no.", "system", "what it makes", "meant to"), what),
            "## What was measured\n",
            _MEASURED,
            "",
            *_table(
                ("system", "measure", "better is", "ours", "baseline", "ours less baseline, 95 %", "data"), numbers
            ),
            text[text.index("## Real data") :],
        ]
    )


def _page(name: str) -> str:
    """A system's README, with a table of its recipe below its title."""
    title, _, rest = (folder_of(name) / PAGE).read_text(encoding="utf-8").partition("\n")
    rest = rest.replace("](../README.md", "](../systems.md").replace("](../../docs/", "](../")
    note = f"Written from `systems/{name}/README.md` by `python -m benchmarks.systems --page`."
    return "\n".join([title, "", *_table(("", "in this recipe"), _recipe(name)), rest.strip(), "", note, ""])


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
        ["several samples become one by", ", ".join(sorted(reduced))],
    ]
    return [row for row in rows if row[1]]


def _numbers(name: str) -> list[str]:
    number = expected(name)["measured"]
    return [
        number["unit"],
        number["better"],
        f"{number['value']:.3g}",
        f"{number['baseline']:.3g}",
        "{:.2g} to {:.2g}".format(*number["interval"]),
        number["data"],
    ]


def _target(config: dict[str, Any]) -> str:
    target = config.get("target", "latents")
    if isinstance(target, str):
        return target
    return f"{target['name']} ({target['condition']})" if "condition" in target else target["name"]


def _network(config: dict[str, Any]) -> str:
    return f"{config.get('backbone', 'unet')}{' with SPADE' if config.get('map_input') == 'spade' else ''}"
