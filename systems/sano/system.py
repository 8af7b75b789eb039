"""Sano et al.: what is unlike normal tiles has a score of another norm. Planted artefacts and another organ's tiles, told from held-out ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import MPP, Drawing, draw_layout, draw_picture, write_drawn
from histoloom.data.lymph_nodes import reduced, write_lymph_nodes
from histoloom.data.rows import spread
from histoloom.data.study_folder import Study
from histoloom.quality.denoising_error import denoising_errors, score_maps
from histoloom.quality.filters.base import Fitting, Tiles
from histoloom.quality.filters.distance import DistanceFilter
from histoloom.quality.spoilt_tiles import WAYS
from histoloom.sampling.diffusion_model import generator_sha256
from histoloom.systems import Measured

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
EACH, DRAWS = 120, 500
"""Tiles of each kind that are told apart; draws of the interval."""
_OTHER = "manifests/other_organ.npy"


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, and tissue with few large nuclei as another organ; or lymph nodes of camelyon16, and tnbc's breast as another organ."""
    if data is None:
        write_drawn(folder)
        rng = np.random.default_rng(0)
        pictures = [draw_picture(rng, draw_layout(rng, 160, Drawing(0.6, 9.0)), "north") for _ in range(6)]
    else:
        write_lymph_nodes(folder, data / "camelyon16_tiles")
        paths = sorted((data / "tnbc/images").glob("*.png"))[::4]
        pictures = [np.asarray(reduced(Image.open(path).convert("RGB"), 0.25 / MPP)) for path in paths]
    np.save(folder / _OTHER, np.concatenate([_cut(picture, 32) for picture in pictures]))


def _cut(picture: np.ndarray, px: int) -> np.ndarray:
    """(h, w, 3) to tiles (n, px, px, 3) that don't overlap."""
    rows, columns = (side // px for side in picture.shape[:2])
    cut = picture[: rows * px, : columns * px].reshape(rows, px, columns, px, 3)
    return cut.transpose(0, 2, 1, 3, 4).reshape(-1, px, px, 3)


def measure(studies: list[Study]) -> Measured:
    """AUROC of planted artefacts by the score's norm, beside the distance in features; of each kind, of another organ, and by the filter `anomaly`."""
    (study,) = studies
    train, normal, groups = _tiles(study)
    kinds = {"normal": normal} | _planted(normal) | {"other_organ": np.load(study.root / _OTHER)[:EACH]}
    ways = {"score": _score(study), "distance": _distance(study, train), "error": _error(study)}
    found = {name: {kind: how(tiles) for kind, tiles in kinds.items()} for name, how in ways.items()}
    for name in ("score", "error"):  # both ends count: what is too smooth has less than real tiles have
        of_train = ways[name](train)
        found[name] = {kind: np.abs(values - of_train.mean()) / of_train.std() for kind, values in found[name].items()}
    planted = {name: np.concatenate([of[kind] for kind in WAYS]) for name, of in found.items()}
    more = {
        f"auroc_{kind.replace(' ', '_').replace('-', '_')}_{name}": _auroc(of["normal"], of[kind])
        for name, of in found.items()
        for kind in [*WAYS, "other_organ"]
    }
    more |= {"auroc_error": _auroc(found["error"]["normal"], planted["error"])}
    return {
        "value": _auroc(found["score"]["normal"], planted["score"]),
        "baseline": _auroc(found["distance"]["normal"], planted["distance"]),
        "difference_interval": _interval(found, planted, groups),
        "unit": "AUROC of planted artefacts; baseline the distance in features",
        "n": len(normal) + len(planted["score"]),
        "more": more,
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles and what is unlike them, with maps of the score's norm, white where it is large; and a slide's."""
    _, normal, _ = _tiles(study)
    kinds = {"held-out tiles": normal} | _planted(normal) | {"another organ": np.load(study.root / _OTHER)}
    models = study.models.resolve()
    maps = {name: score_maps(models, generator_sha256(models), "cpu", tiles[:10]) for name, tiles in kinds.items()}
    most = float(np.percentile(np.concatenate([of.ravel() for of in maps.values()]), 99))
    slide = _slide_with_ink(study)
    maps["a slide with ink"] = score_maps(models, generator_sha256(models), "cpu", slide)
    out = {}
    for name, tiles in (kinds | {"a slide with ink": slide}).items():
        grey = (255 * np.clip(maps[name] / most, 0, 1)).astype(np.uint8)
        out |= {name: tiles[:10], f"{name}: the score's norm": np.repeat(grey[..., None], 3, -1)}
    return out


def _slide_with_ink(study: Study) -> np.ndarray:
    """(1, h, w, 3) A held-out slide at the tiles' scale, and a pen's stroke across a part of it."""
    slides = pd.read_csv(study.root / "manifests/slides.csv")
    row = slides[slides["split"] == "test"].iloc[0]
    picture = Image.open(study.root / "data/slides" / row["path"]).convert("RGB")
    whole = np.asarray(picture.resize([round(side * row["mpp"] / MPP) // 32 * 32 for side in picture.size])).copy()
    whole[32:96, 32:96] = WAYS["pen"](whole[32:96, 32:96].astype(np.float32), np.random.default_rng(0)).clip(0, 255)
    return whole[None]


def _tiles(study: Study) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train tiles and held-out ones, and the groups of these."""
    store = study.real()
    rows = store.rows()
    train, test = (spread(rows[rows["split"] == split], count) for split, count in (("train", 400), ("test", EACH)))
    return store.read(train), store.read(test), test["split_group"].to_numpy(str)


def _planted(tiles: np.ndarray) -> dict[str, np.ndarray]:
    """Each tile spoilt in each way."""
    rng = np.random.default_rng(0)
    return {
        name: np.stack([way(tile.astype(np.float32), rng) for tile in tiles]).round().clip(0, 255).astype(np.uint8)
        for name, way in WAYS.items()
    }


def _score(study: Study):
    models = study.models.resolve()
    return lambda tiles: np.log(score_maps(models, generator_sha256(models), "cpu", tiles).sum((1, 2)))


def _error(study: Study):
    models = study.models.resolve()
    return lambda tiles: denoising_errors(
        models, generator_sha256(models), "cpu", tiles, np.array([str(number) for number in range(len(tiles))])
    )


def _distance(study: Study, train: np.ndarray):
    """The filter `distance` of no class."""
    tower = load_extractor("efficientnet-lite0", "cpu")

    def tiles_of(images: np.ndarray) -> Tiles:
        return Tiles(images, pd.DataFrame({"label": [None] * len(images)}), lambda name: None, tower)

    fitted = DistanceFilter.fit(Fitting(tiles_of(train), pd.DataFrame(), list, study, study.root, "cpu"))
    return lambda images: fitted.scores(tiles_of(images)).iloc[:, 0].to_numpy()


def _auroc(normal: np.ndarray, other: np.ndarray) -> float:
    return float(roc_auc_score(np.r_[np.zeros(len(normal)), np.ones(len(other))], np.r_[normal, other]))


def _interval(found: dict, planted: dict, groups: np.ndarray) -> tuple[float, float]:
    """95 % of the difference, held-out groups drawn with replacement, with what was planted in their tiles."""
    rng, names, count = np.random.default_rng(0), np.unique(groups), len(groups)
    places = [np.flatnonzero(groups == name) for name in names]
    differences = []
    for _ in range(DRAWS):
        chosen = np.concatenate([places[place] for place in rng.integers(0, len(names), len(names))])
        spoilt = np.concatenate([chosen + count * way for way in range(len(WAYS))])
        first, second = (_auroc(found[name]["normal"][chosen], planted[name][spoilt]) for name in ("score", "distance"))
        differences.append(first - second)
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)
