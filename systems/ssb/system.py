"""Nuclei that touch, told apart by broken symmetry: two maps of noise, to one of which each nucleus goes whole. Beside a watershed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from histoloom.cluster import one_thread
from histoloom.data.drawn import LABELS, MPP, draw_picture
from histoloom.data.nuclei_sets import monuseg_slides, write_slides
from histoloom.data.rows import spread
from histoloom.data.study_folder import Study
from histoloom.learners.instances import instance_measures
from histoloom.learners.learner import Training, learner_of
from histoloom.report.pictures import mask_picture
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = ("tile",)
SEEDS = 2
TRAIN_TILES, TEST_TILES = 300, 120
PATIENTS, SIDE, LEAST_FREE = 14, 160, 0.7
"""Of a drawn nucleus so much must lie on free ground; what lies on another nucleus is hidden by it."""
_HAEMATOXYLIN, _U2OS_SCALE = np.array((0.65, 0.70, 0.29)), MPP / 2


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients whose nuclei touch; or the thirteen pictures of monuseg whose nuclei were drawn as polygons; or u2os."""
    if data is None:
        (folder / "data/slides").mkdir(parents=True, exist_ok=True)
        write_slides(folder, pd.DataFrame([_draw(folder / "data/slides", number) for number in range(PATIENTS)]))
        return
    if not (data / "images.csv").is_file():
        write_slides(folder, _u2os(folder / "data/slides", data))
        return
    polygons = pd.read_csv(data / "images.csv").query("instance_source == 'polygons'")["patient_id"]
    slides = monuseg_slides(folder, data).drop(columns="organ")
    slides = slides[slides["patient_id"].isin(polygons)].reset_index(drop=True)
    splits = ["test" if number % 3 == 2 else "val" if number % 6 == 0 else "train" for number in range(len(slides))]
    write_slides(folder, slides.assign(split=splits))


def _u2os(folder: Path, data: Path) -> pd.DataFrame:
    """Fluorescent nuclei (BBBC039) as if haematoxylin had stained them. Its scale is stated so that a nucleus is half as wide as a tile.

    Parameters
    ----------
    data : `images` (uint16), and `masks` of the same names, whose connected parts of one code in red are nuclei.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for place, path in enumerate(sorted((data / "images").glob("*.tif"))):
        codes = np.asarray(Image.open(data / f"masks/{path.stem}.png"))[..., 0]
        nuclei = np.zeros(codes.shape, np.uint16)
        for code in np.unique(codes[codes > 0]):
            parts = label(codes == code)[0]
            nuclei[parts > 0] = parts[parts > 0] + nuclei.max()
        light = np.asarray(Image.open(path)).astype(float)
        low, high = np.percentile(light, (1, 99.8))
        amount = ((light - low) / (high - low)).clip(0, 1)[..., None]
        shown = 245 * 10 ** -(amount * _HAEMATOXYLIN)
        Image.fromarray(shown.round().astype(np.uint8)).save(folder / f"{path.stem}.png")
        Image.fromarray(nuclei).save(folder / f"{path.stem}_nuclei.png")
        split = "test" if place % 3 == 2 else "val" if place % 6 == 0 else "train"
        rows.append(
            {"slide_id": path.stem, "path": f"{path.stem}.png", "patient_id": path.stem, "mpp": _U2OS_SCALE, "split": split,
             "instances": f"{path.stem}_nuclei.png"}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _draw(folder: Path, number: int) -> dict[str, object]:
    rng, name = np.random.default_rng([1, number]), f"p{number:02d}"
    nuclei, (y, x) = np.zeros((SIDE, SIDE), np.uint16), np.mgrid[:SIDE, :SIDE]
    for cy, cx, turn in rng.uniform(0, 1, (420, 3)) * (SIDE, SIDE, np.pi):
        radius = 4.0 * rng.uniform(0.8, 1.2)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        own = np.hypot(along / (radius * 1.4), across / radius) < 1
        if own.any() and (nuclei[own] == 0).mean() > LEAST_FREE:
            nuclei[own & (nuclei == 0)] = nuclei.max() + 1
    split = "test" if number % 7 in (5, 6) else "val" if number % 7 == 4 else "train"
    Image.fromarray(draw_picture(rng, nuclei, "north", 0.3)).save(folder / f"{name}.png")
    Image.fromarray(nuclei).save(folder / f"{name}_nuclei.png")
    return {
        "slide_id": name, "path": f"{name}.png", "patient_id": name, "mpp": MPP, "label": LABELS[number % 2], "split": split,
        "instances": f"{name}_nuclei.png",
    }  # fmt: skip


def measure(studies: list[Study]) -> Measured:
    """AJI of nuclei in held-out tiles, whose foreground is known; PQ beside it, and both where a U-Net finds the foreground."""
    (study,) = studies
    images, numbers, groups = _tiles(study, "test", TEST_TILES)
    known, found = numbers > 0, [_foreground(study, seed)(images) for seed in range(SEEDS)]
    splitters = [_splitter(study, seed) for seed in range(SEEDS)]
    ways: dict[str, list[np.ndarray]] = {
        "ssb": [of(images, known) for of in splitters],
        "watershed": [np.stack([_watershed(of) for of in known])],
        "components": [np.stack([label(of)[0] for of in known])],
        "ssb_of_found": [of(images, own) for of, own in zip(splitters, found)],
        "watershed_of_found": [np.stack([_watershed(of) for of in own]) for own in found],
    }
    scores = {name: np.nanmean([_scores(one, numbers) for one in each], 0) for name, each in ways.items()}
    shows = known.any((1, 2))
    more = {
        f"{measure}_{name}": float(np.nanmean(values[shows, place]))
        for name, values in scores.items()
        for place, measure in enumerate(("aji", "pq"))
    }
    ours, theirs = scores["ssb"][shows, 0], scores["watershed"][shows, 0]
    return {
        "value": float(ours.mean()),
        "baseline": float(theirs.mean()),
        "difference_interval": paired_interval(ours - theirs, groups[shows]),
        "unit": "AJI of nuclei in a known foreground; baseline a watershed",
        "n": int(shows.sum()),
        "more": more,
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Nuclei of held-out tiles, a colour each."""
    images, numbers, _ = _tiles(study, "test", 10)
    known = numbers > 0
    return {
        "held-out tiles": images,
        "their nuclei": _coloured(numbers),
        "told apart by broken symmetry": _coloured(_splitter(study, 0)(images, known)),
        "by a watershed": _coloured(np.stack([_watershed(of) for of in known])),
    }


def _tiles(study: Study, split: str, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles, the numbers of their nuclei, and their groups."""
    store = study.real()
    rows = store.rows()
    rows = spread(rows[(rows["split"] == split) & rows["masked"].astype(bool)], most)
    return store.read(rows), store.read(rows, "instance").astype(np.int32), rows["split_group"].to_numpy(str)


def _splitter(study: Study, seed: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    code, config = _code(), study.params.uplift
    images, numbers, _ = _tiles(study, "train", TRAIN_TILES)
    dense = np.stack([np.unique(of, return_inverse=True)[1].reshape(of.shape) for of in numbers])
    with one_thread():
        run = code.run_of(config.steps, seed, study.root / f".work/ssb/splitter-{seed}-{config.steps}")
        fitted = code.Splitter.fit(images, dense, run, config.batch_size)
    return lambda tiles, foreground: fitted.split(tiles, foreground, seed)


def _foreground(study: Study, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A U-Net's foreground, learnt from the same tiles in as many steps."""
    config, (images, numbers, _) = study.params.uplift, _tiles(study, "train", TRAIN_TILES)
    with one_thread():
        work = study.root / f".work/ssb/unet-{seed}-{config.steps}"
        run = TrainingRun("unet", config.steps, 2e-3, seed, work, config.steps, warmup_steps=config.steps // 10)
        training = Training("unet", "mask", ("nucleus",), run, config.batch_size)
        fitted = learner_of("unet", "mask").fit(images, (numbers > 0).astype(np.uint8), training)
    return lambda tiles: fitted.predict(tiles) > 0


def _watershed(foreground: np.ndarray) -> np.ndarray:
    """The classical way: a watershed of the distance to the background, smoothed, from its peaks."""
    distance = gaussian_filter(distance_transform_edt(foreground), 1.0)
    peaks = peak_local_max(distance, min_distance=2, labels=label(foreground)[0], exclude_border=False)
    seeds = np.zeros(foreground.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=foreground)


def _scores(found: np.ndarray, stated: np.ndarray) -> np.ndarray:
    """(n, 2) AJI and PQ."""
    return np.array([instance_measures(one, two)[:2] for one, two in zip(found, stated)])


def _coloured(numbers: np.ndarray) -> np.ndarray:
    return mask_picture(np.where(numbers > 0, 1 + numbers % 7, 0).astype(np.uint8))


def _code() -> ModuleType:
    """splitter.py beside this file."""
    name = "histoloom_system_ssb_splitter"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("splitter.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
