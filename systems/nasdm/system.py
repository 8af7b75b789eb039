"""Shrivastava & Fletcher 2023, NASDM: tiles under a mask of nuclei. A segmenter of real tiles says whether the mask shows, by SPADE and by concatenation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.cluster import one_thread
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import write_drawn
from histoloom.data.nuclei_sets import monuseg_slides, write_slides
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.learners.dice import dice
from histoloom.learners.learner import Training, learner_of
from histoloom.learners.unet import Segmenter
from histoloom.quality.kid import kid
from histoloom.quality.metrics import fd, inception_score
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
OURS, OTHER = "spade", "concat"


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, whose nuclei are known; or monuseg's thirty."""
    if data is None:
        write_drawn(folder)
    else:
        write_slides(folder, monuseg_slides(folder, data).drop(columns="organ"))


def measure(studies: list[Study]) -> Measured:
    """Dice of the masks that were asked for with those a segmenter finds, by SPADE and by concatenation; and on real tiles, and under shuffled masks."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), synthetic.rows()
    train, test = (spread(rows[(rows["split"] == split) & rows["masked"]], 1000) for split in ("train", "test"))
    segmenter = _segmenter(store.read(train), store.read(train, "mask"), study)
    pairs = paired(*(made[made["request"] == name] for name in (OURS, OTHER)))
    ours, theirs = (_followed(segmenter, synthetic, of) for of in pairs)
    held_out = store.read(test)
    real = dice(segmenter.predict(held_out), store.read(test, "mask"), 1)
    own = pairs[0]
    shuffled = own.iloc[np.random.default_rng(0).permutation(len(own))]
    chance = dice(segmenter.predict(synthetic.read(own)), synthetic.read(shuffled, "mask"), 1)
    return {
        "value": float(ours.mean()),
        "baseline": float(theirs.mean()),
        "difference_interval": paired_interval(ours - theirs, own["split_group"]),
        "unit": "Dice under the mask; baseline concatenation",
        "n": len(own),
        "more": {
            "dice_of_real_held_out": float(real[store.read(test, "mask").any((1, 2))].mean()),
            "dice_under_shuffled_masks": float(chance.mean()),
            **_looks(store, train, held_out, synthetic, pairs),
        },
    }


def _segmenter(images: np.ndarray, masks: np.ndarray, study: Study) -> Segmenter:
    """A small U-Net, trained as the filter `mask` trains its own."""
    steps = study.params.train_filters.segmenter_steps
    with tempfile.TemporaryDirectory() as work, one_thread():
        run = TrainingRun("segmenter", steps, 2e-3, 0, Path(work), steps, warmup_steps=steps // 10)
        fitted = learner_of("unet", "mask").fit(images, masks, Training("unet", "mask", ("nucleus",), run, 16))
    assert isinstance(fitted, Segmenter)
    return fitted


def paired(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of two requests side by side, as many of each split group: of the same masks, where both were given all of them."""
    first, second = (
        rows.sort_values(["split_group", "condition_ref"]).drop_duplicates("condition_ref") for rows in (first, second)
    )
    first, second = (rows.assign(place=rows.groupby("split_group").cumcount()) for rows in (first, second))
    keys = ["split_group", "place"]
    both = first[keys].merge(second[keys])
    return both.merge(first, on=keys), both.merge(second, on=keys)


def _followed(segmenter: Segmenter, synthetic: TileStore, rows: pd.DataFrame) -> np.ndarray:
    """Dice of each tile, (n,)."""
    return dice(segmenter.predict(synthetic.read(rows)), synthetic.read(rows, "mask"), 1)


def _looks(
    store: TileStore,
    train: pd.DataFrame,
    held_out: np.ndarray,
    synthetic: TileStore,
    pairs: tuple[pd.DataFrame, pd.DataFrame],
) -> dict[str, float]:
    """FD and KID to real held-out tiles and inception scores in EfficientNet-Lite0's features; those of real tiles beside them."""
    tower = load_extractor("efficientnet-lite0", "cpu")
    reference = tower.features(held_out)
    features = {name: tower.features(synthetic.read(rows)) for name, rows in zip((OURS, OTHER), pairs)}
    features["real_train"] = tower.features(store.read(spread(train, len(pairs[0]))))
    out = {}
    for name, of in features.items():
        out[f"fd_{name}"] = fd(of, reference, 0)["value"]
        out[f"kid_{name}"] = kid(of, reference, 20, 0)["mean"]
        if tower.head is not None:
            out[f"is_{name}"] = inception_score(of @ tower.head, 0)["mean"]
    return out
