"""Lu et al. 2024, EMDiffuse: noise taken out of held-out tiles, and small ones enlarged, with the samples' deviation as the doubt."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.conditions.encode import batch, null
from histoloom.conditions.picture import pictures
from histoloom.data.drawn import MPP, write_drawn
from histoloom.data.lymph_nodes import write_lymph_nodes
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


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients; or lymph nodes of camelyon16."""
    if data is None:
        write_drawn(folder)
    else:
        write_lymph_nodes(folder, data, MPP, pictures=2)


def measure(studies: list[Study]) -> Measured:
    """PSNR of the mean of a noisy tile's samples, beside filters and a regression; how honest their deviation is; and the same of enlarging."""
    (study,) = studies
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
    truth = real.read(real.rows().set_index("tile_id").loc[rows["condition_ref"]])
    how = study.params.models["large" if request == "enlarged" else "clean"].train_encoders.picture
    return rows, pictures(truth, how, rows["tile_id"]), truth


@lru_cache
def _regression(study: Study, model: str) -> Regression:
    """A U-Net fitted to the pairs that the model learnt, with as many steps of as many tiles."""
    params, real = study.params.models[model], study.real()
    rows = real.rows()
    rows = rows[rows["split"] == "train"]
    after, training = real.read(rows), params.train_denoiser
    before = pictures(after, params.train_encoders.picture, rows["tile_id"])
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun("regression", training.steps, _REGRESSION_RATE, 0, Path(folder), training.steps)
        return fit_regression(before, after, run, training.batch_size)


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles, what was given of them, what was made, and maps of the deviation and of the error."""
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


def _map(values: np.ndarray, most: float) -> np.ndarray:
    """Grey pictures of (n, h, w, 3), white where the mean of the colours reaches `most`."""
    grey = (255 * np.clip(values.mean(-1) / most, 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)
