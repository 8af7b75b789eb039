"""Hu et al. 2022: a noisy tile is taken for x_t of a denoiser that learnt clean tiles alone, and one jump takes the noise out."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.data.damage import damage
from histoloom.data.drawn import MPP, write_drawn
from histoloom.data.lymph_nodes import write_lymph_nodes
from histoloom.data.nuclei_sets import write_slides
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.learners.classical import FILTERS, fit_filter, noise_level
from histoloom.learners.regression import Regression, fit_regression
from histoloom.process.process import Process
from histoloom.quality.fidelity import Fidelity, fidelity
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
NOISE = 25.0
"""Standard deviation of Gaussian noise, grey levels."""
KINDS = ("gaussian", "camera")
RUNS = ("too-small", "too-large", "in-steps", "too-large-in-steps")
"""Requests of the same tiles from other t, in one jump or in steps."""
_REGRESSION_RATE = 2e-3


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, or lymph nodes of camelyon16; held-out ones are there with noise too, as slides of their own."""
    if data is None:
        write_drawn(folder)
    else:
        write_lymph_nodes(folder, data, MPP, pictures=2)
    slides = pd.read_csv(folder / "manifests/slides.csv", dtype={"slide_id": str}).assign(label="clean")
    slides = slides[[name for name in slides if name != "instances"]]
    held_out, every = slides[slides["split"] != "train"], [slides]
    for kind in KINDS:
        names = [f"{name}_{kind}" for name in held_out["slide_id"]]
        for number, (path, name) in enumerate(zip(held_out["path"], names)):
            picture = np.asarray(Image.open(folder / "data/slides" / path).convert("RGB"))
            Image.fromarray(noisy(picture[None], kind, number)[0]).save(folder / f"data/slides/{name}.png")
        every.append(held_out.assign(slide_id=names, path=[f"{name}.png" for name in names], label=kind))
    write_slides(folder, pd.concat(every, ignore_index=True))


def noisy(images: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Pictures (n, h, w, 3) uint8 with noise: of a stated deviation, or a camera's, whose deviation differs from picture to picture."""
    if kind == "camera":
        return damage(images, ("noise",), seed).images
    values = images + NOISE * np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def measure(studies: list[Study]) -> Measured:
    """PSNR of tiles with Gaussian noise after one jump, beside filters and a regression; of other t, and of a camera's noise."""
    (study,) = studies
    rows, given, truth = _pairs(study, "denoised")
    own, others = _fidelity(study, "denoised"), _others(study, "gaussian", given, truth)
    best = max(others, key=lambda name: others[name].psnr.mean())
    more = _said("", own) | _said("_noisy", fidelity(given, truth))
    more |= {
        "detail": _detail(_made(study, "denoised")),
        "detail_truth": _detail(truth),
        "detail_noisy": _detail(given),
    }
    for request in RUNS:
        name = request.replace("-", "_")
        more |= _said(f"_{name}", _fidelity(study, request)) | {f"detail_{name}": _detail(_made(study, request))}
    for name, values in others.items():
        more |= _said(f"_{name}", values)
    return {
        "value": float(own.psnr.mean()),
        "baseline": float(others[best].psnr.mean()),
        "difference_interval": paired_interval(own.psnr - others[best].psnr, rows["split_group"]),
        "unit": f"dB, PSNR of denoised tiles; baseline {best.replace('_', ' ')}",
        "n": len(rows),
        "more": more | _of_camera(study) | _levels(study),
    }


def _of_camera(study: Study) -> dict[str, float]:
    """The same of a camera's noise, less the best of the others."""
    rows, given, truth = _pairs(study, "denoised-camera")
    own, others = _fidelity(study, "denoised-camera"), _others(study, "camera", given, truth)
    best = max(others, key=lambda name: others[name].psnr.mean())
    low, high = paired_interval(own.psnr - others[best].psnr, rows["split_group"])
    more = _said("_camera", own) | _said("_camera_noisy", fidelity(given, truth))
    for name, values in others.items():
        more |= _said(f"_camera_{name}", values)
    return more | {"psnr_camera_less_best_low": low, "psnr_camera_less_best_high": high}


def _levels(study: Study) -> dict[str, float]:
    """The noise of val tiles as estimated of these alone, and the t at which the process has as much; and what it is in truth."""
    process = Process.of(study.params.train_denoiser)
    out: dict[str, float] = {}
    for kind in KINDS:
        given, truth = _val(study, kind)
        level = float(np.median([noise_level(tile) for tile in given]))
        out |= {
            f"level_{kind}": level,
            f"level_{kind}_true": float((given - truth.astype(float)).std()),
            f"t_{kind}": _time(process, level) / process.train_timesteps,
        }
    return out


def _time(process: Process, level: float) -> int:
    """The number of times up to that at which noise over data is nearest to a level in grey levels."""
    return int(np.argmin(np.abs(process.snr**-0.5 - level / 127.5))) + 1


def _others(study: Study, kind: str, given: np.ndarray, truth: np.ndarray) -> dict[str, Fidelity]:
    """What filters and regressions come to. The strength of filters is fitted to val tiles."""
    out, val = {}, _val(study, kind)
    for name in FILTERS:
        run = fit_filter(name, *val)
        out[name] = fidelity(np.stack([run(tile) for tile in given]), truth)
    for learnt in dict.fromkeys(("gaussian", kind)):
        name = "regression" if learnt == kind else f"regression_of_{learnt}"
        out[name] = fidelity(_regression(study, learnt)(given), truth)
    return out


@lru_cache
def _regression(study: Study, kind: str) -> Regression:
    """A U-Net fitted to pairs of train tiles without and with noise, which the denoiser never sees; with as many steps of as many tiles."""
    training, real = study.params.train_denoiser, study.real()
    rows = real.rows()
    after = real.read(rows[rows["split"] == "train"])
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun("regression", training.steps, _REGRESSION_RATE, 0, Path(folder), training.steps)
        return fit_regression(noisy(after, kind, 0), after, run, training.batch_size)


def _fidelity(study: Study, request: str) -> Fidelity:
    return fidelity(_made(study, request), _pairs(study, request)[2])


def _made(study: Study, request: str) -> np.ndarray:
    return TileStore(study.predicted).read(_pairs(study, request)[0])


def _detail(tiles: np.ndarray) -> float:
    """How much neighbours differ, grey levels: noise raises it above the truth's, and smoothing takes it below."""
    return float(np.abs(np.diff(tiles.astype(float), axis=1)).mean())


def _said(of: str, found: Fidelity) -> dict[str, float]:
    return {f"{name}{of}": float(values.mean()) for name, values in found._asdict().items()}


def _pairs(study: Study, request: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """What was restored: its rows, the noisy tiles, and the same without noise."""
    rows = TileStore(study.predicted).rows()
    rows, every = rows[rows["request"] == request], study.real().rows().set_index("tile_id", drop=False)
    noisy_rows, clean = _matched(every.loc[rows["condition_ref"]], every)
    kept = rows["condition_ref"].isin(noisy_rows["tile_id"])
    return rows[kept], study.real().read(noisy_rows), study.real().read(clean)


def _val(study: Study, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Noisy val tiles, and the same without noise."""
    every = study.real().rows().set_index("tile_id", drop=False)
    found = _matched(every[(every["split"] == "val") & (every["label"] == kind)], every)
    given, truth = (study.real().read(rows) for rows in found)
    return given, truth


def _matched(noisy_rows: pd.DataFrame, every: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Noisy tiles whose place has a clean one too, and these."""
    names = [name.replace(f"_{kind}", "") for name, kind in zip(noisy_rows["tile_id"], noisy_rows["label"])]
    there = np.isin(names, every.index)
    return noisy_rows[there], every.loc[[name for name, is_there in zip(names, there) if is_there]]


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles, with noise, and what was made of them at three t, by a regression, and of a camera's noise."""
    rows, given, truth = _pairs(study, "denoised")
    few = spread(pd.DataFrame({"place": np.arange(len(rows))}), 10)["place"].to_numpy()
    of_camera = _pairs(study, "denoised-camera")[1]
    return {
        "real, held out": truth[few],
        "with Gaussian noise": given[few],
        "one jump from the t of its noise": _made(study, "denoised")[few],
        "one jump from a t too small": _made(study, "too-small")[few],
        "one jump from a t too large": _made(study, "too-large")[few],
        "in steps from a t too large": _made(study, "too-large-in-steps")[few],
        "in steps from the t of its noise": _made(study, "in-steps")[few],
        "regression U-Net": _regression(study, "gaussian")(given[few]),
        "with a camera's noise": of_camera[few],
        "one jump": _made(study, "denoised-camera")[few],
    }
