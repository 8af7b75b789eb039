"""Nichol et al. 2022, GLIDE: tiles of a text, pushed by a CLIP of noised tiles, beside classifier-free guidance. Do the words show?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import histoloom
from histoloom.conditions.feature_extractors import Extractor, load_extractor
from histoloom.config import Sample
from histoloom.data.drawn import LABELS, SITES, write_drawn
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.linear import LinearClassifier, fit_classifier
from histoloom.quality.kid import kid
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
EACH, STEPS = 24, 12
STRENGTHS = {"guidance": (2.0, 4.0), "classifier_guidance": (10.0, 40.0)}
AT_MOST = 1.1
"""How much larger than that without either the KID of a strength may be."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, whose captions say how dense the nuclei are and where they were stained."""
    if data is not None:
        raise HistoloomError("glide takes drawn data so far: leave --data out.")
    write_drawn(folder)


def measure(studies: list[Study]) -> Measured:
    """The share of tiles whose words are read in them again, by CLIP's push and by guidance, each at the best strength of like KID."""
    (study,) = studies
    store, tower = study.real(), load_extractor("efficientnet-lite0", "cpu")
    rows = store.rows()
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    readers = _readers(tower.features(store.read(train)), train)
    real = tower.features(store.read(test))
    asked = [(label, site) for label in LABELS for site in SITES for _ in range(EACH)]
    free, distance = _made(study, asked, readers, real, tower, guidance=1.0)
    best, more = {}, {"kid_without": distance, "agreement_without": float(free.mean())}
    for way, strengths in STRENGTHS.items():
        best[way] = free
        for strength in strengths:
            right, of = _made(study, asked, readers, real, tower, **({"guidance": 1.0} | {way: {"text": strength}}))
            more |= {f"kid_{way}_{strength:g}": of, f"agreement_{way}_{strength:g}": float(right.mean())}
            if of <= AT_MOST * max(distance, 0) and right.mean() > best[way].mean():
                best[way] = right
    ours, theirs = best["classifier_guidance"].astype(float), best["guidance"].astype(float)
    return {
        "value": float(ours.mean()),
        "baseline": float(theirs.mean()),
        "difference_interval": paired_interval(ours - theirs, np.arange(len(asked))),
        "unit": "share of tiles whose words are read again; baseline classifier-free guidance",
        "n": len(asked),
        "more": more | {"agreement_of_real_held_out": float(_read(readers, real, _words(test)).mean())},
    }


def _words(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Label and site, as captions state them."""
    return [(words[0], words[-1]) for words in rows["caption"].str.split()]


def _readers(features: np.ndarray, rows: pd.DataFrame) -> tuple[LinearClassifier, LinearClassifier]:
    """Of real tiles' label, and of their site."""
    labels, sites = zip(*_words(rows))
    return fit_classifier(features, [*labels], LABELS), fit_classifier(features, [*sites], SITES)


def _read(
    readers: tuple[LinearClassifier, LinearClassifier], features: np.ndarray, words: list[tuple[str, str]]
) -> np.ndarray:
    """Whether both words are read, (n,) bool."""
    said = [np.array(reader.classes)[reader.probabilities(features).argmax(1)] for reader in readers]
    return np.all([of == [pair[place] for pair in words] for place, of in enumerate(said)], 0)


def _made(
    study: Study, asked: list[tuple[str, str]], readers: tuple[LinearClassifier, LinearClassifier], real: np.ndarray,
    tower: Extractor, **how: Any,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Whether each tile's words are read in it, and the KID of all."""
    captions = [f"{label} nuclei, stained in the {site}" for label, site in asked]
    settings = Sample(scheduler="ddim", steps=STEPS, **how)
    made = histoloom.load(study.root).sample(len(asked), seed=1, text=captions, settings=settings)
    features = tower.features(np.stack([np.asarray(image) for image in made.images]))
    return _read(readers, features, asked), kid(features, real, 50, 0)["mean"]
