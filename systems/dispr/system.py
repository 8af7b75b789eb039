"""Waibel et al. 2023, DISPR: a cell's volume from one section. Its error beside that of an ellipsoid that is fitted to the mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from skimage.measure import marching_cubes, mesh_surface_area, regionprops
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
FOLDS = {"drawn": 1, "real": 2}
_AMONG = {"drawn": 3, "real": 2}
"""One of so many cells of a class is held out."""
SEEDS = 5
"""Of the classifier of shapes."""
_SIDE, _FOLDED, _REDUCED = 32, 5, 2
_DRAWN = {"ellipsoid": 80, "disc": 64, "lobed": 36}
_SMOOTH_PX = 2.0
"""Of the Gaussian that a surface is compared with, to say how rough it is."""
_SHAPE = ("volume", "surface", "roughness")


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn cells and their projections, of which a third is held out; or red blood cells, of which half are held out, at half the resolution."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    cells: dict[str, Any] = _draw() if data is None else _read(data)
    of_label = pd.Series(cells["labels"]).groupby(cells["labels"]).cumcount().to_numpy()
    among = _AMONG["drawn" if data is None else "real"]
    cells["split"] = np.where(of_label % among == fold, "test", "train")
    cells["patient_id"] = np.array([f"c{number:03d}" for number in range(len(of_label))])
    np.savez(folder / "data/cells.npz", **cells)


def _read(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "cells.npz") as cells:
        inside = [_halved(255.0 * (cells[name] > 127)) for name in ("obj", "mask")]
        images, masks = _halved(cells["image"].astype(float)), inside[1] > 127
        return _arrays(inside[0], masks, images) | {"labels": cells["label"]}


def _halved(values: np.ndarray) -> np.ndarray:
    """Stacks (n, sides ...), each side halved by means."""
    for axis in range(1, values.ndim):
        values = values.reshape(*values.shape[:axis], -1, _REDUCED, *values.shape[axis + 1 :]).mean(axis + 1)
    return values


def _arrays(volumes: np.ndarray, masks: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the set of tiles holds: volumes (n, d, h, w), masks (n, h, w), and intensities where the masks are."""
    inside = np.where(masks, images, 0)
    return {
        "volumes": volumes.round().astype(np.uint8),
        "masks": masks.astype(np.uint8),
        "images": inside.clip(0, 255).round().astype(np.uint8),
    }


def _draw() -> dict[str, np.ndarray]:
    kinds = np.repeat([*_DRAWN], [*_DRAWN.values()])
    rng = np.random.default_rng(0)
    volumes = _halved(np.stack([draw_cell(rng, kind) for kind in kinds]) * 255.0)
    thick = volumes.sum(1) / 255 / _SIDE
    light = thick * rng.uniform(0.7, 1.3, (len(kinds), 1, 1)) + rng.normal(0, 0.02, thick.shape)
    images = np.stack([gaussian_filter(one, 0.7) for one in light]) * 255
    return _arrays(volumes, thick * _SIDE > 0.5, images) | {"labels": kinds}


def draw_cell(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A cell (2 s, 2 s, 2 s) bool, s the side of what is measured: an ellipsoid, a disc with two dents, or a core with lobes."""
    axis = (np.arange(_REDUCED * _SIDE) + 0.5) / _REDUCED - _SIDE / 2
    turn = Rotation.from_euler("xyz", [*rng.normal(0, 25, 2), rng.uniform(0, 360)], degrees=True).as_matrix()
    z, y, x = np.tensordot(turn, np.stack(np.meshgrid(axis, axis, axis, indexing="ij")), 1)
    if kind == "disc":
        away = (np.hypot(x, y) / rng.uniform(9, 13)).clip(0, 1)
        return np.abs(z) < rng.uniform(4, 6) * np.sqrt(1 - away**2) * (0.35 + 1.1 * away**2)
    long, middle, short = rng.uniform((8, 6, 4), (13, 10, 9))
    if kind == "ellipsoid":
        return (x / long) ** 2 + (y / middle) ** 2 + (z / short) ** 2 < 1
    inside = x**2 + y**2 + z**2 < rng.uniform(5, 7) ** 2
    for direction in rng.normal(0, 1, (rng.integers(2, 5), 3)):
        lobe = direction / np.linalg.norm(direction) * rng.uniform(6, 8)
        inside |= (x - lobe[0]) ** 2 + (y - lobe[1]) ** 2 + (z - lobe[2]) ** 2 < rng.uniform(3, 5.5) ** 2
    return inside


def shape_of(volume: np.ndarray) -> np.ndarray:
    """Volume (voxels, those of which more than half is inside), surface (pixels squared) and roughness of a volume (d, h, w) uint8.

    The surface is that of marching cubes at half. Roughness is how far the smoothed volume is from half at the vertices of that
    surface, from 0 to 0.5: a plane has 0, and what the Gaussian takes away has more.
    """
    whole = np.pad(volume / 255.0, 4)
    if whole.max() <= 0.5:
        return np.zeros(3)
    vertices, faces, _, _ = marching_cubes(whole, 0.5)
    smooth = map_coordinates(gaussian_filter(whole, _SMOOTH_PX), vertices.T, order=1)
    return np.array([(whole > 0.5).sum(), mesh_surface_area(vertices, faces), np.abs(smooth - 0.5).mean()])


def ellipsoid_of(mask: np.ndarray) -> np.ndarray:
    """(d, h, w) uint8, d = h: the ellipse with the mask's moments, turned about its longer axis (Waibel et al. 2022 compare with such)."""
    props = regionprops(mask.astype(np.uint8))[0]
    long, short = props.axis_major_length / 2, max(props.axis_minor_length / 2, 0.5)
    side = len(mask)
    z, y, x = np.meshgrid(np.arange(side) - (side - 1) / 2, np.arange(side), np.arange(side), indexing="ij")
    y, x = y - props.centroid[0], x - props.centroid[1]
    along = y * np.cos(props.orientation) + x * np.sin(props.orientation)
    across = np.hypot(x * np.cos(props.orientation) - y * np.sin(props.orientation), z)
    inside = (1 - np.hypot(along / long, across / short)) * short + 0.5
    return (255 * inside.clip(0, 1)).round().astype(np.uint8)


def flat_features(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """What a section says: area, axes, perimeter and solidity of the mask; sum and deviation of the intensity in it."""
    props = regionprops(mask.astype(np.uint8))[0]
    inside = image[mask > 0].astype(float)
    axes = props.axis_major_length, props.axis_minor_length
    return np.array([props.area, *axes, props.perimeter, props.solidity, inside.sum(), inside.std()])


def measure(studies: list[Study]) -> Measured:
    """The mean error of a cell's volume, in parts of it: of five samples' mean, and of the ellipsoid."""
    found = [of_fold(study) for study in studies]
    cells = pd.concat([fold for fold, _ in found], ignore_index=True)
    truth, ours, ellipsoid, one = (_shapes(cells, name) for name in ("truth", "ours", "ellipsoid", "one"))
    errors = {"ours": _error(ours, truth), "ellipsoid": _error(ellipsoid, truth), "one_sample": _error(one, truth)}
    regression = np.concatenate([of for _, of in found])
    of_regression = np.abs(regression / truth[:, 0] - 1)
    difference = errors["ours"][:, 0] - errors["ellipsoid"][:, 0]
    return {
        "value": float(errors["ours"][:, 0].mean()),
        "baseline": float(errors["ellipsoid"][:, 0].mean()),
        "difference_interval": paired_interval(difference, cells["cell"]),
        "unit": "mean relative error of a cell's volume",
        "n": len(cells),
        "more": {
            **{f"{what}_error_{how}": float(of[:, k].mean()) for how, of in errors.items() for k, what in enumerate(_SHAPE)},
            "volume_error_regression": float(of_regression.mean()),
            "volume_error_less_regression_low": paired_interval(errors["ours"][:, 0] - of_regression, cells["cell"])[0],
            "volume_error_less_regression_high": paired_interval(errors["ours"][:, 0] - of_regression, cells["cell"])[1],
            "volume_error_median_ours": float(np.median(errors["ours"][:, 0])),
            "volume_error_median_ellipsoid": float(np.median(errors["ellipsoid"][:, 0])),
            "overlap_ours": float(cells["overlap"].mean()),
            "overlap_ellipsoid": float(cells["overlap_ellipsoid"].mean()),
            "deviation_to_error": float(np.corrcoef(cells["deviation"], errors["ours"][:, 0])[0, 1]),
            **_classified(cells),
        },
    }  # fmt: skip


def _shapes(cells: pd.DataFrame, name: str) -> np.ndarray:
    return cells[[f"{name}_{what}" for what in _SHAPE]].to_numpy(float)


def _error(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs(found / truth - 1)


def of_fold(study: Study) -> tuple[pd.DataFrame, np.ndarray]:
    """A row for each held-out cell, and what a regression on its section's features says of its volume.

    Columns: the three numbers of shape of the truth, of five samples' mean, of the first sample and of the ellipsoid; `overlap` (intersection over
    union) with the truth; the features of the section, `flat_0` and so on; `deviation` of the samples' volumes, in parts of their mean.
    """
    real, predicted = study.real(), TileStore(study.predicted)
    rows, made = real.rows().set_index("tile_id", drop=False), predicted.rows()
    out = []
    for name, samples in made[made["split"] == "test"].groupby("condition_ref"):
        row = rows.loc[[name]]
        truth, mask, image = (real.read(row, array)[0] for array in ("volume", "mask", "image"))
        volumes = predicted.read(samples, "volume")
        shapes, guess, flat = (
            np.array([shape_of(v) for v in volumes]),
            ellipsoid_of(mask),
            flat_features(mask, image[..., 0]),
        )
        named = {"truth": shape_of(truth), "ours": shapes.mean(0), "one": shapes[0], "ellipsoid": shape_of(guess)}
        out.append(
            {f"{of}_{what}": values[k] for of, values in named.items() for k, what in enumerate(_SHAPE)}
            | {f"flat_{k}": value for k, value in enumerate(flat)}
            | {"cell": name, "label": row["label"].iloc[0], "overlap": _overlap(volumes.mean(0), truth),
               "overlap_ellipsoid": _overlap(guess, truth), "deviation": shapes[:, 0].std() / max(shapes[:, 0].mean(), 1)}
        )  # fmt: skip
    cells = pd.DataFrame(out)
    return cells, _regression(real, cells)


def _regression(real: TileStore, cells: pd.DataFrame) -> np.ndarray:
    """Volumes by a linear regression of logarithms on the section's features, fitted to train cells."""
    train = real.rows(split="train")
    flat = [flat_features(m, i[..., 0]) for m, i in zip(real.read(train, "mask"), real.read(train))]
    volumes = (real.read(train, "volume") > 127).sum((1, 2, 3))
    fitted = LinearRegression().fit(np.log1p(flat), np.log(volumes))
    return np.exp(fitted.predict(np.log1p(cells.filter(like="flat_").to_numpy())))


def _overlap(found: np.ndarray, truth: np.ndarray) -> float:
    ours, theirs = found > 127, truth > 127
    return float((ours & theirs).sum() / max((ours | theirs).sum(), 1))


def _classified(cells: pd.DataFrame) -> dict[str, float]:
    """F1 of held-out cells' classes by a random forest, without and with the numbers of shape that the samples have; of the rarest and of all alike."""
    counts = cells["label"].value_counts()
    if counts.min() < _FOLDED:
        return {}
    flat = cells.filter(like="flat_").to_numpy(float)
    features = {"flat": flat, "flat_and_samples": np.c_[flat, _shapes(cells, "ours"), cells["deviation"]]}
    rare, truth, out = counts.index[-1], cells["label"].to_numpy(str), {}
    for name, of in features.items():
        scores = []
        for seed in range(SEEDS):
            forest = RandomForestClassifier(200, class_weight="balanced", random_state=seed)
            called = cross_val_predict(forest, of, truth, cv=StratifiedKFold(_FOLDED, shuffle=True, random_state=seed))
            scores.append(
                (
                    f1_score(truth, called, labels=[rare], average="macro", zero_division=0),
                    f1_score(truth, called, average="macro"),
                )
            )
        out |= dict(zip((f"f1_of_rarest_{name}", f"f1_{name}"), map(float, np.mean(scores, 0))))
        out[f"f1_of_rarest_std_{name}"] = float(np.std(scores, 0)[0])
    return out


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out cells: what is given, and volumes seen from the side, bright where a ray passes much of them."""
    real, predicted = study.real(), TileStore(study.predicted)
    rows, made = real.rows().set_index("tile_id", drop=False), predicted.rows()
    made = made[made["split"] == "test"]
    names = made["condition_ref"].unique()
    few = rows.loc[names[np.unique(np.linspace(0, len(names) - 1, 10).astype(int))]]
    mask, first, last = (
        real.read(few, "mask"),
        (made.groupby("condition_ref").nth(0)),
        (made.groupby("condition_ref").nth(-1)),
    )
    drawn = [
        predicted.read(of.set_index("condition_ref", drop=False).loc[few["tile_id"]], "volume") for of in (first, last)
    ]
    truth = real.read(few, "volume")
    return {
        "masks, held out": _grey(255 * mask),
        "their intensity, which is given too": real.read(few).repeat(3, 1).repeat(3, 2),
        "the truth, from the side": _side(truth),
        "a sample": _side(drawn[0]),
        "another sample": _side(drawn[1]),
        "the ellipsoid": _side(np.stack([ellipsoid_of(one) for one in mask])),
    }  # fmt: skip


def _side(volumes: np.ndarray) -> np.ndarray:
    return _grey((volumes.mean(2) * 1.5).clip(0, 255))


def _grey(pictures: np.ndarray) -> np.ndarray:
    """(n, h, w) as tiles three times as large."""
    large = pictures.repeat(3, 1).repeat(3, 2).astype(np.uint8)
    return np.repeat(large[..., None], 3, -1)
