"""What `benchmarks.uplift` measured, as `histoloom advise` reads it (uplift/measured.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.folds import CHANGE, measured
from benchmarks.studies import Study
from histoloom.config import Params
from histoloom.uplift.advice import Change, Finding, situation_of

WORDS = {
    "rare": "atypical mitoses of AMi-Br, {percent} of them labelled",
    "scanner": "mitoses of AMi-Br on a scanner that was not labelled",
    "hospital": "nuclei of TNBC, a hospital that was not labelled, {percent} of MoNuSeg's patients labelled",
    "hospital_reversed": "nuclei of MoNuSeg, hospitals that were not labelled, {percent} of TNBC's patients labelled",
}

RECIPES = {"hospital": "another-hospital", "hospital_reversed": "another-hospital"}
"""Recipes of `histoloom init` that make the tiles of a question's arm."""


def finding_of(name: str, fraction: float, studies: Sequence[Study], analysed: dict, other: str, asked: str) -> Finding:
    """A question at a label fraction; its folds are alike, so the first one's counts stand for all."""
    params = Params.model_validate({"seed": 0} | studies[0].params)
    situation = situation_of(studies[0].tiles.rows(), params)
    by_arm = {arm["arm"]: arm for arm in analysed["arms"]}
    gain = next(gain for gain in analysed["gain"] if gain["arm"] == asked)
    return {
        "name": f"{name}-{fraction:g}",
        "words": WORDS[name].format(percent=f"{100 * fraction:g} %"),
        "task": situation.task,
        "traits": situation.traits,
        "labelled_tiles": sum(situation.labelled.values()),
        "rarest_tiles": min(situation.labelled.values()),
        "labelled_groups": situation.groups,
        "unlabelled_tiles": situation.unlabelled,
        "test_groups": analysed["test_groups"],
        "best_other": other,
        "over_real": _change(by_arm[other]) if "difference" in by_arm[other] else None,
        "asked": asked,
        "gain": _change(gain),
        "training_steps": params.train_autoencoder.steps * (params.train_denoiser.target.name == "latents")
        + params.train_denoiser.steps,
        "sampled_tiles": measured(studies[0], "filter")["augment"]["synthetic"],
        "recipe": RECIPES.get(name),
    }


def write_findings(path: Path, found: Sequence[Finding]) -> None:
    """Put them in place of what stands there under their names, in the order of names."""
    before = {one["name"]: one for one in (json.loads(path.read_text(encoding="utf-8")) if path.exists() else [])}
    after = before | {one["name"]: one for one in found}
    path.write_text(json.dumps([after[name] for name in sorted(after)], indent=1) + "\n", encoding="utf-8")


def _change(found: dict) -> Change:
    return {key: found[key] for key in CHANGE}
