"""Lu et al. 2024, EMDiffuse: noise taken out of held-out tiles, and small ones enlarged, with the samples' deviation as the doubt; or the
section made that lies between two (between.yaml)."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from histoloom.conditions.encode import batch, null
from histoloom.conditions.picture import pictures
from histoloom.config import load_params
from histoloom.data.drawn import MPP, write_drawn
from histoloom.data.lymph_nodes import write_lymph_nodes
from histoloom.data.nuclei_sets import write_slides
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.learners.classical import FILTERS, fit_filter
from histoloom.learners.regression import Regression, fit_regression
from histoloom.quality.conformal import covered, fit_width
from histoloom.quality.fidelity import Fidelity, fidelity
from histoloom.sampling.diffusion_model import load_diffusion_model
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
COVERAGE, OF_NORMAL = 0.9, 1.645
"""Share of pixels that an interval is to hold, and how many deviations wide it were if errors were normal."""
_REGRESSION_RATE = 2e-3
_SECTION_MPP, _REDUCED = 0.0184, 4
"""Scale of sections that are read, um/px, and how much they are reduced to it."""
_BAND, _GUARD = 32, 16
"""Side of a held-out place, and columns between train and test regions of real sections, px."""
_STACKS, _SIDE, _MIDDLES, _APART, _CELLS = 14, 80, (1, 3, 5, 7), 2.7, 100
"""Drawn stacks; px of a section; the sections of a stack that are made; px between two sections, as many as in em_stack; cells of a stack."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, or lymph nodes of camelyon16. Where a model is given partners: drawn sections, or those of em_stack."""
    if "partner" in load_params(folder / "params.yaml").conditions:
        _write_middles(folder, _drawn_middles() if data is None else _middles(data))
    elif data is None:
        write_drawn(folder)
    else:
        write_lymph_nodes(folder, data, MPP, pictures=2)


Middles = list[tuple[str, str, str, np.ndarray]]
"""Sections with one before and one after: name, split, place, and the three, (3, h, w) uint8."""


def _write_middles(folder: Path, middles: Middles) -> None:
    """Each section as a slide, whose partner shows the one before in red, the one after in green and their mean in blue."""
    (folder / "data/slides").mkdir(parents=True, exist_ok=True)
    rows = []
    for name, split, place, (before, own, after) in middles:
        mean = ((before.astype(float) + after) / 2).round().astype(np.uint8)
        for end, colours in (("", [own] * 3), ("_beside", [before, after, mean])):
            Image.fromarray(np.stack(colours, -1)).save(folder / f"data/slides/{name}{end}.png")
        rows.append({"slide_id": name, "path": f"{name}.png", "patient_id": place, "mpp": _SECTION_MPP, "split": split,
                     "partner": f"{name}_beside.png"})  # fmt: skip
    write_slides(folder, pd.DataFrame(rows))


def _middles(data: Path) -> Middles:
    """Of em_stack, reduced four times: the left halves of sections 1 to 4 are learnt from. The right halves of 5 and 6, less a gap, are
    held out, in bands that are a place each."""
    with np.load(data / "sections.npz") as held:
        raw = held["raw"].astype(np.float32)
    n, h, w = (side // step for side, step in zip(raw.shape, (1, _REDUCED, _REDUCED)))
    small = raw.reshape(n, h, _REDUCED, w, _REDUCED).mean((2, 4)).round().astype(np.uint8)
    out: Middles = [(f"s{at}", "train", "left", small[at - 1 : at + 2, :, : w // 2]) for at in range(1, n - 3)]
    for at in (n - 3, n - 2):
        for top in range(0, h, _BAND):
            own = small[at - 1 : at + 2, top : top + _BAND, w // 2 + _GUARD :]
            out.append((f"s{at}_{top:03d}", "test", f"right_{top:03d}", own))
    return out


def _drawn_middles() -> Middles:
    """Of drawn stacks, of which a seventh is val and two test."""
    out: Middles = []
    for number in range(_STACKS):
        stack, split = _stack(np.random.default_rng(number)), {4: "val", 5: "test", 6: "test"}.get(number % 7, "train")
        out += [(f"v{number:02d}_{at}", split, f"v{number:02d}", stack[at - 1 : at + 2]) for at in _MIDDLES]
    return out


def _stack(rng: np.random.Generator) -> np.ndarray:
    """Sections of cells with dark membranes and dark bodies in them, (n, h, w) uint8. Both are of three dimensions, so they move, begin and
    end between sections."""
    places = np.indices((_MIDDLES[-1] + 2, _SIDE, _SIDE)).reshape(3, -1).T * (_APART, 1, 1)
    most = places.max(0)
    near, of = KDTree(rng.uniform(-8, most + 8, (_CELLS, 3))).query(places, 2)
    light = rng.uniform(150, 205, _CELLS)[of[:, 0]]
    away, body = KDTree(rng.uniform(0, most, (_CELLS // 2, 3))).query(places)
    light[away < rng.uniform(3.0, 6.0, _CELLS // 2)[body]] = 95
    light[near[:, 1] - near[:, 0] < 1.5] = 55
    sections = gaussian_filter(light.reshape(-1, _SIDE, _SIDE), (0, 0.7, 0.7))
    return (sections + rng.normal(0, 6, sections.shape)).clip(0, 255).round().astype(np.uint8)


def measure(studies: list[Study]) -> Measured:
    """Of tiles restored, or of sections made between two."""
    (study,) = studies
    return _restored(study) if study.params.models else _between(study)


def _between(study: Study) -> Measured:
    """PSNR of the mean of samples of a section, beside what the two next to it say without a model, and a regression of the same pairs."""
    rows, given, truth = _pairs(study, "between")
    store = TileStore(study.predicted)
    ways = {
        "regression": _regression(study, "")(given),
        "mean_of_two": given[..., 2:].repeat(3, -1),
        "nearest": given[..., :1].repeat(3, -1),
    }
    own = fidelity(_grey(store.read(rows)), truth)
    found = {name: fidelity(_grey(made), truth) for name, made in ways.items()}
    best = max(found, key=lambda name: found[name].psnr.mean())
    one, _, of_one = _pairs(study, "one-sample")
    more = _said("_one_sample", fidelity(_grey(store.read(one)), of_one))
    for name, of in found.items():
        more |= _said(f"_{name}", of)
        for what in ("psnr", "ssim"):
            interval = paired_interval(getattr(own, what) - getattr(of, what), rows["split_group"])
            more |= dict(zip((f"{what}_less_{name}_low", f"{what}_less_{name}_high"), interval))
    return {
        "value": float(own.psnr.mean()),
        "baseline": float(found[best].psnr.mean()),
        "difference_interval": paired_interval(own.psnr - found[best].psnr, rows["split_group"]),
        "unit": f"dB, PSNR of the section between two; baseline {best.replace('_', ' ')}",
        "n": len(rows),
        "more": _said("", own) | more | {"places": float(rows["split_group"].nunique())},
    }


def _grey(tiles: np.ndarray) -> np.ndarray:
    """The mean of the colours in each of them: sections are grey."""
    return tiles.mean(-1, keepdims=True).round().astype(np.uint8).repeat(3, -1)


def _restored(study: Study) -> Measured:
    """PSNR of the mean of a noisy tile's samples, beside filters and a regression; how honest their deviation is; and the same of enlarging."""
    rows, given, truth = _pairs(study, "denoised")
    store = TileStore(study.predicted)
    ours = store.read(rows)
    ways = {"regression": _regression(study, "clean")(given)}
    val = _pairs(study, "denoised-val")
    for name in FILTERS:
        run = fit_filter(name, *val[1:])
        ways[name] = np.stack([run(tile) for tile in given])
    found = {name: fidelity(made, truth) for name, made in ways.items()}
    own, best = fidelity(ours, truth), max(found, key=lambda name: found[name].psnr.mean())
    one = fidelity(store.read(_rows(study, "one-sample")), _pairs(study, "one-sample")[2])
    return {
        "value": float(own.psnr.mean()),
        "baseline": float(found[best].psnr.mean()),
        "difference_interval": paired_interval(own.psnr - found[best].psnr, rows["split_group"]),
        "unit": f"dB, PSNR of denoised tiles; baseline {best.replace('_', ' ')}",
        "n": len(rows),
        "more": _said("", own)
        | {key: number for name, of in found.items() for key, number in _said(f"_{name}", of).items()}
        | _said("_one_sample", one)
        | _said("_one_step", fidelity(_in_one_step(study, rows, truth), truth))
        | _said("_noisy", fidelity(given, truth))
        | _doubt(study)
        | _enlarged(study),
    }


def _in_one_step(study: Study, rows: pd.DataFrame, truth: np.ndarray) -> np.ndarray:
    """What the same network predicts in one step from pure noise: then it is a regression of its own size."""
    model = load_diffusion_model(study.of("clean").models.resolve(), "in one step", "auto", "cpu")
    given, config = model.conditions.arrays(rows, lambda _: truth), study.params.sample.model_copy(update={"steps": 1})
    nulls, out = null(given, model.specs), []
    for places in np.array_split(np.arange(len(rows)), -(-len(rows) // study.params.plan.batch_size)):
        own = Rows(rows["seed"].to_numpy()[places], batch(given, model.specs, places), nulls)
        out.append(Drawn(model, config, own).samples[0]["image"])
    return np.concatenate(out)


def _doubt(study: Study) -> dict[str, float]:
    """How often an interval around the mean holds the truth, of as many deviations as a normal error asks for and of as many as val tiles
    do; and how the deviation goes with the error."""
    (val_error, val_deviation), (error, deviation) = (_errors(study, name) for name in ("denoised-val", "denoised"))
    width = fit_width(val_error, val_deviation, COVERAGE)
    return {
        "coverage_asked": COVERAGE,
        "coverage_raw": float(covered(error, deviation, OF_NORMAL).mean()),
        "coverage_calibrated": float(covered(error, deviation, width).mean()),
        "coverage_calibrated_least_tile": float(covered(error, deviation, width).min()),
        "width_deviations": width,
        "mean_deviation": float(deviation.mean()),
        "mean_error": float(error.mean()),
        "deviation_to_error_of_pixels": float(np.corrcoef(deviation.ravel(), error.ravel())[0, 1]),
        "deviation_to_error_of_tiles": float(np.corrcoef(deviation.mean((1, 2, 3)), error.mean((1, 2, 3)))[0, 1]),
    }


def _errors(study: Study, request: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel of a request, the mean's absolute error and the samples' deviation, grey levels."""
    rows, _, truth = _pairs(study, request)
    store = TileStore(study.predicted)
    return np.abs(store.read(rows).astype(float) - truth), store.read(rows, "deviation").astype(float)


def _enlarged(study: Study) -> dict[str, float]:
    """The same engine given small tiles, beside bicubic interpolation, which is what it is given, and a regression of that."""
    rows, given, truth = _pairs(study, "enlarged")
    ways = {
        "": TileStore(study.predicted).read(rows),
        "_bicubic": given,
        "_regression": _regression(study, "large")(given),
    }
    found = {name: fidelity(made, truth) for name, made in ways.items()}
    more = {key: number for name, of in found.items() for key, number in _said(f"_enlarged{name}", of).items()}
    for name in ("_bicubic", "_regression"):
        low, high = paired_interval(found[""].psnr - found[name].psnr, rows["split_group"])
        more |= {f"psnr_enlarged_less{name}_low": low, f"psnr_enlarged_less{name}_high": high}
    return more


def _said(of: str, found: Fidelity) -> dict[str, float]:
    return {f"{name}{of}": float(values.mean()) for name, values in found._asdict().items()}


def _rows(study: Study, request: str) -> pd.DataFrame:
    rows = TileStore(study.predicted).rows()
    return rows[rows["request"] == request]


def _pairs(study: Study, request: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """What was restored: its rows, what the model was given, and the truth."""
    rows, real = _rows(study, request), study.real()
    tiles = real.rows().set_index("tile_id").loc[rows["condition_ref"]]
    truth = real.read(tiles)
    if not study.params.models:
        return rows, real.read(tiles, "partner"), truth
    how = study.params.models["large" if request == "enlarged" else "clean"].train_encoders.picture
    return rows, pictures(truth, how, rows["tile_id"]), truth


@lru_cache
def _regression(study: Study, model: str) -> Regression:
    """A U-Net fitted to the pairs that the model learnt, with as many steps of as many tiles."""
    params, real = study.params.models[model] if model else study.params, study.real()
    rows = real.rows()
    rows = rows[rows["split"] == "train"]
    after, training = real.read(rows), params.train_denoiser
    before = pictures(after, params.train_encoders.picture, rows["tile_id"]) if model else real.read(rows, "partner")
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun("regression", training.steps, _REGRESSION_RATE, 0, Path(folder), training.steps)
        return fit_regression(before, after, run, training.batch_size)


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles, what was given of them, what was made, and maps of the deviation and of the error."""
    if not study.params.models:
        return _shown_between(study)
    rows, given, truth = _pairs(study, "denoised")
    few = spread(pd.DataFrame({"place": np.arange(len(rows))}), 10)["place"].to_numpy()
    error, deviation = (values[few] for values in _errors(study, "denoised"))
    store = TileStore(study.predicted)
    small, shown_small, whole = _pairs(study, "enlarged")
    return {
        "real, held out": truth[few],
        "with noise": given[few],
        "mean of eight samples": store.read(rows.iloc[few]),
        "their deviation: white is 20 grey levels": _map(deviation, 20),
        "error of the mean: white is 60 grey levels": _map(error, 60),
        "regression U-Net": _regression(study, "clean")(given[few]),
        "real, held out ": whole[few],
        "reduced four times, enlarged by bicubic interpolation": shown_small[few],
        "enlarged by the model, mean of four samples": store.read(small.iloc[few]),
        "enlarged by the regression U-Net": _regression(study, "large")(shown_small[few]),
    }


def _shown_between(study: Study) -> dict[str, np.ndarray]:
    """Held-out sections, those beside them, and what was made between these."""
    rows, given, truth = _pairs(study, "between")
    few = spread(pd.DataFrame({"place": np.arange(len(rows))}), 10)["place"].to_numpy()
    before, after, mean = (given[few][..., [colour] * 3] for colour in range(3))
    store = TileStore(study.predicted)
    return {
        "section before": before,
        "section after": after,
        "real section between, held out": truth[few],
        "mean of eight samples": _grey(store.read(rows.iloc[few])),
        "their deviation: white is 40 grey levels": _map(store.read(rows.iloc[few], "deviation").astype(float), 40),
        "regression U-Net": _grey(_regression(study, "")(given[few])),
        "mean of the two": mean,
    }


def _map(values: np.ndarray, most: float) -> np.ndarray:
    """Grey pictures of (n, h, w, 3), white where the mean of the colours reaches `most`."""
    grey = (255 * np.clip(values.mean(-1) / most, 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)
