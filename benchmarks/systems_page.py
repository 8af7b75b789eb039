"""docs/systems.md: a table of all published systems, from the folders of those that are here, and their pages."""

from __future__ import annotations

import csv
import re
from typing import Any

from ruamel.yaml import YAML

from histoloom.config.models import inherited
from histoloom.systems import PAGE, PICTURE, RECIPE, expected, folder_of, names, root

_PUBLISHED = "published.csv"
_HEADER = (
    "",
    "system",
    "paper",
    "makes",
    "given",
    "network",
    "begins from",
    "reduced by",
    "ours",
    "baseline",
    "ours less baseline, 95 %",
    "of",
    "better",
    "data",
    "meant to",
)


_RUN = (
    "To run one, in the repository with its environment active:",
    "",
    "```",
    "histoloom init my-study --system oettl          # pictures made by code; some systems take --data FOLDER of real ones",
    "cd my-study",
    "dvc repro",
    "```",
    "",
    "`python -m benchmarks.systems oettl --json FILE` makes such a study in `.work/systems`, runs what the number needs, and measures it. `--picture FILE.jpg` shows its",
    "tiles. A run that was broken goes on where it stopped. `--recipe systems/oettl/full.yaml` takes the paper's size, for a GPU.",
)


def page() -> str:
    """The whole page."""
    lines = ["# Systems", "", "Written by `python -m benchmarks.systems --page`, from `systems/`.", ""]
    lines += [
        "A published system is a recipe of histoloom: what it changes in params, its data, and a number beside a baseline. The systems are those of a review of diffusion models for microscopy (Liu et al. 2025, Frontiers in Medicine).",
        "",
    ]
    lines += [
        "Rows without a number were not measured. `reduced by` says how several samples of one tile become one. [Each page](#pages) says what was measured, and how.",
        "",
    ]
    lines += [*_RUN, ""]
    lines += [_line(_HEADER), _line(["---"] * len(_HEADER)), *(_line(row) for row in _rows()), "", "## Pages", ""]
    for name in names():
        text = (folder_of(name) / PAGE).read_text(encoding="utf-8").strip()
        text = text.replace("](../", "](../systems/").replace(f"]({PICTURE})", f"](../systems/{name}/{PICTURE})")
        lines += [re.sub("^#", "##", text, flags=re.MULTILINE), ""]
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _rows() -> list[list[str]]:
    with (root() / _PUBLISHED).open(encoding="utf-8", newline="") as stream:
        known = [*csv.DictReader(stream)]
    return [[row["number"], *(_of_folder(row) if row["name"] in names() else _open(row)), row["use"]] for row in known]


def _open(row: dict[str, str]) -> list[str]:
    return [row["name"], "", row["what"], *[""] * (len(_HEADER) - 5)]


def _of_folder(row: dict[str, str]) -> list[str]:
    name = row["name"]
    recipe = YAML(typ="safe").load((folder_of(name) / RECIPE).read_text(encoding="utf-8"))
    models = [inherited(recipe, of) for of in recipe["sample"].get("chain", [])] or [recipe]
    trained = [model["train_denoiser"] for model in models]
    requests = recipe["plan"].get("requests", [])
    starts = {"inverted tile" if (r.get("start") or {}).get("inverted") else "tile" for r in requests if r.get("start")}
    reduced = {
        r["reduce"] if isinstance(r["reduce"], str) else r["reduce"]["name"] for r in requests if r.get("reduce")
    }
    number = expected(name)["measured"]
    text = (folder_of(name) / PAGE).read_text(encoding="utf-8")
    paper = re.search(r"## The paper\n(.+?\(\d{4}\))", text)
    return [
        f"[{name}](#{_anchor(text)})",
        paper[1] if paper else "",
        ", then ".join(_target(config) for config in trained),
        ", ".join(dict.fromkeys(given for config in trained for given in config["conditions"])),
        ", ".join(dict.fromkeys(_network(config) for config in trained)),
        ", ".join(sorted(starts)) or "noise",
        ", ".join(sorted(reduced)) or "",
        *(
            (
                f"{number['value']:.3g}",
                f"{number['baseline']:.3g}",
                "{:.2g} to {:.2g}".format(*number["interval"]),
                number["unit"],
                number["better"],
                number["data"],
            )
            if number
            else [""] * 6
        ),
    ]


def _anchor(text: str) -> str:
    title = text.partition("\n")[0].removeprefix("# ").lower()
    return re.sub(r"[^\w -]", "", title).replace(" ", "-")


def _target(config: dict[str, Any]) -> str:
    target = config.get("target", "latents")
    if isinstance(target, str):
        return target
    return f"{target['name']} ({target['condition']})" if "condition" in target else target["name"]


def _network(config: dict[str, Any]) -> str:
    return f"{config.get('backbone', 'unet')}{' with SPADE' if config.get('map_input') == 'spade' else ''}"
