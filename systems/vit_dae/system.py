"""Xu et al. 2023, ViT-DAE: tiles of a semantic code, and codes from noise. How near the chain comes to real tiles, and what a code keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from skimage.metrics import peak_signal_noise_ratio

import histoloom
from histoloom.conditions.feature_extractors import Extractor, load_extractor
from histoloom.data.drawn import write_drawn
from histoloom.data.rows import spread_by
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.linear import fit_classifier
from histoloom.quality.kid import kid, kid_difference
from histoloom.quality.metrics import precision_recall
from histoloom.systems import Measured

TILES = 10
"""In each row of its picture."""
STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients."""
    if data is not None:
        raise HistoloomError("vit_dae takes drawn data so far: leave --data out.")
    write_drawn(folder)


def measure(studies: list[Study]) -> Measured:
    """KID of the chain against held-out tiles, beside that of a model of labels; and what comes back of a tile from its code."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), synthetic.rows()
    tower = load_extractor("efficientnet-lite0", "cpu")
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    real = tower.features(store.read(test))
    of = {name: tower.features(synthetic.read(group)) for name, group in made.groupby("request")}
    chain, plain = of["of-a-made-code"], of["of-a-label"]
    low, high = kid_difference(chain, plain, real, 0)
    back = {name: _psnr(store, rows, synthetic, made[made["request"] == name]) for name in ("of-its-code", "inverted")}
    return {
        "value": kid(chain, real, 50, 0)["mean"],
        "baseline": kid(plain, real, 50, 0)["mean"],
        "difference_interval": (low, high),
        "unit": "KID in EfficientNet-Lite0's features, less is better",
        "n": len(chain),
        "more": {
            "kid_of_train_tiles": kid(tower.features(store.read(train)), real, 50, 0)["mean"],
            "kid_of_real_codes": kid(of["of-its-code"], real, 50, 0)["mean"],
            "recall": precision_recall(real, chain, 3)["recall"],
            "recall_of_a_label": precision_recall(real, plain, 3)["recall"],
            "psnr_of_code_and_inverted_noise": back["inverted"],
            "psnr_of_code_and_fresh_noise": back["of-its-code"],
            **_classified(store, train, test, made[made["request"] == "of-a-made-code"], chain, tower),
        },
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Made tiles, what comes back of held-out ones, and the way between the codes of two."""
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), synthetic.rows()
    back = {name: made[made["request"] == name].iloc[:TILES] for name in ("of-its-code", "inverted")}
    truth = rows.set_index("tile_id", drop=False)
    ends = rows[rows["split"] == "test"].groupby("label").head(1)
    model = histoloom.load(study.root / "models/tile")
    first, second = store.read(ends)
    way = model.interpolate(first, second, n=TILES, settings=study.params.sample)
    return {
        "real tiles": store.read(truth.loc[back["inverted"]["condition_ref"]]),
        "each from its code and its inverted noise": synthetic.read(back["inverted"]),
        "each from its code and fresh noise": synthetic.read(back["of-its-code"]),
        "of made codes": synthetic.read(made[made["request"] == "of-a-made-code"].iloc[:TILES]),
        "of a label alone": synthetic.read(made[made["request"] == "of-a-label"].iloc[:TILES]),
        f"from the code of a {' tile to that of a '.join(ends['label'])} one": np.stack(
            [np.asarray(image) for image in way.images]
        ),
    }


def _psnr(store: TileStore, rows: pd.DataFrame, synthetic: TileStore, made: pd.DataFrame) -> float:
    """Of tiles against those whose codes they were given, dB."""
    truth = store.read(rows.set_index("tile_id").loc[made["condition_ref"]])
    return float(np.mean([peak_signal_noise_ratio(a, b) for a, b in zip(truth, synthetic.read(made))]))


def _classified(
    store: TileStore,
    train: pd.DataFrame,
    test: pd.DataFrame,
    made: pd.DataFrame,
    features: np.ndarray,
    tower: Extractor,
) -> dict[str, float]:
    """Accuracy on held-out tiles of a classifier of few real tiles, of these and made ones, and of made ones alone."""
    few = spread_by(train, train["label"], 10)
    own, seen = tower.features(store.read(few)), tower.features(store.read(test))
    classes, out = tuple(sorted(set(test["label"]))), {}
    both = np.concatenate([own, features]), [*few["label"], *made["label"]]
    for name, (x, y) in {
        "real": (own, [*few["label"]]),
        "real_and_made": both,
        "made": (features, [*made["label"]]),
    }.items():
        said = fit_classifier(x, y, classes).probabilities(seen).argmax(1)
        out[f"accuracy_of_{name}"] = float((np.array(classes)[said] == test["label"]).mean())
    return out
