"""Yellapragada et al. 2024, PathLDM: tiles of a report. Does it show what stands in the second chunk?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import LABELS, SITES, write_drawn
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.linear import LinearClassifier, fit_classifier
from histoloom.quality.kid import kid
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
REPORT = (
    "The specimen was received fresh, fixed in formalin over night, embedded in paraffin, cut at four micrometres and stained at the {site} site. "
    "On microscopy the nuclei are {density}."
)
"""What differs between reports stands in the second chunk of a CLIP that reads 24 tokens."""
DENSITY = {"dense": "many and crowded", "sparse": "few and far apart"}


SUMMARY = """import re
import sys

report = sys.stdin.read()
nuclei, site = re.search(r"nuclei are ([^.]+)", report), re.search(r"the \\w+ site", report)
print(f"Nuclei {nuclei[1]}, {site[0]}.")
"""
"""A command that reads a report and writes what is told of it (summarised.yaml)."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients with a report each, written from their label and site by a template."""
    if data is not None:
        raise HistoloomError("pathldm takes drawn data so far: leave --data out.")
    write_drawn(folder)
    table = folder / "manifests/slides.csv"
    slides = pd.read_csv(table)
    reports = [REPORT.format(site=site, density=DENSITY[label]) for site, label in zip(slides["site"], slides["label"])]
    slides.assign(caption=reports).to_csv(table, index=False)
    (folder / "summarise.py").write_text(SUMMARY, encoding="utf-8")


def measure(studies: list[Study]) -> Measured:
    """The share of tiles whose label reads as the report has it, by reports in two chunks and in one; and the same of the site."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    tower = load_extractor("efficientnet-lite0", "cpu")
    rows, made = store.rows(), synthetic.rows()
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    features, held_out = (tower.features(store.read(of)) for of in (train, test))
    readers = [fit_classifier(features, _said(train, place), of) for place, of in enumerate((LABELS, SITES))]
    two, one = (made[made["request"] == name] for name in ("two-chunks", "one-chunk"))
    of = {id(part): tower.features(synthetic.read(part)) for part in (two, one)}
    right = {
        (name, place): _read(reader, of[id(part)], _said(part, place))
        for name, part in (("two", two), ("one", one))
        for place, reader in enumerate(readers)
    }
    ours, theirs = right["two", 0].astype(float), right["one", 0].astype(float)
    return {
        "value": float(ours.mean()),
        "baseline": float(theirs.mean()),
        "difference_interval": paired_interval(ours - theirs, two["split_group"]),
        "unit": "share of tiles whose label reads as the report has it; baseline one chunk",
        "n": len(two),
        "more": {
            "site_two": float(right["two", 1].mean()),
            "site_one": float(right["one", 1].mean()),
            "label_of_real_held_out": float(_read(readers[0], held_out, _said(test, 0)).mean()),
            "site_of_real_held_out": float(_read(readers[1], held_out, _said(test, 1)).mean()),
            "kid_two": kid(of[id(two)], held_out, 50, 0)["mean"],
            "kid_one": kid(of[id(one)], held_out, 50, 0)["mean"],
        },
    }


def _said(rows: pd.DataFrame, place: int) -> list[str]:
    """What reports say: 0 the label, 1 the site."""
    if place:
        return [next(site for site in SITES if f"the {site} site" in text) for text in rows["caption"]]
    return [next(label for label, words in DENSITY.items() if words in text) for text in rows["caption"]]


def _read(reader: LinearClassifier, features: np.ndarray, words: list[str]) -> np.ndarray:
    return np.array(reader.classes)[reader.probabilities(features).argmax(1)] == words
