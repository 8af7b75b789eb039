"""Mueller-Franzes et al. 2023, Medfusion: what latents of eight channels give back of held-out tiles, beside latents of four."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import write_drawn
from histoloom.data.nuclei_sets import tnbc_slides, write_slides
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.learners.dice import dice
from histoloom.learners.learner import Training
from histoloom.learners.unet import UNet
from histoloom.quality.kid import kid
from histoloom.systems import Measured, paired_interval
from histoloom.training.reconstruction import given_back
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
MODELS = ("eight", "four")
STEPS = 300
"""Of the segmenter."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, of whom half have many nuclei; or the eight patients of tnbc."""
    if data is None:
        write_drawn(folder)
    else:
        _write_tnbc(folder, data)


def _write_tnbc(folder: Path, data: Path) -> None:
    """Nobody classified the pictures: one is dense if it shows more nuclei than the train pictures' median."""
    slides = tnbc_slides(folder, data)
    covered = slides.pop("covered")
    slides["label"] = np.where(covered > covered[slides["split"] == "train"].median(), "dense", "sparse")
    write_slides(folder, slides)


def measure(studies: list[Study]) -> Measured:
    """PSNR of held-out tiles after the round trip through eight channels and through four; SSIM, and the Dice of their nuclei, found by one segmenter."""
    (study,) = studies
    store, made = study.real(), TileStore(study.synthetic)
    rows = store.rows()
    held_out = rows[rows["split"] == "test"]
    truth, nuclei = store.read(held_out), store.read(held_out, "mask")
    segmenter = _segmenter(store, rows[rows["split"] == "train"])
    tower = load_extractor("efficientnet-lite0", "cpu")
    of_real, samples = tower.features(truth), made.rows()
    psnr, more = {}, {"dice_of_real_tiles": float(dice(segmenter.predict(truth), nuclei, 1).mean())}
    for name in MODELS:
        rebuilt = given_back(study.of(name), truth, "cpu")
        assert rebuilt is not None, "latents are diffused"
        psnr[name] = [min(peak_signal_noise_ratio(a, b), 60.0) for a, b in zip(truth, rebuilt)]
        of_samples = tower.features(made.read(samples[samples["request"] == f"of-{name}"]))
        alike = [structural_similarity(a, b, channel_axis=-1) for a, b in zip(truth, rebuilt)]
        more |= {
            f"ssim_{name}": float(np.mean(alike)),
            f"dice_{name}": float(dice(segmenter.predict(rebuilt), nuclei, 1).mean()),
            f"kid_of_samples_{name}": kid(of_samples, of_real, 20, 0)["mean"],
            f"kid_of_rebuilt_{name}": kid(tower.features(rebuilt), of_real, 20, 0)["mean"],
        }
    return {
        "value": float(np.mean(psnr["eight"])),
        "baseline": float(np.mean(psnr["four"])),
        "difference_interval": paired_interval(np.subtract(psnr["eight"], psnr["four"]), held_out["split_group"]),
        "unit": "dB PSNR of held-out tiles after the round trip",
        "n": len(held_out),
        "more": more,
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles, what comes back of them, and samples."""
    store, made = study.real(), TileStore(study.synthetic)
    rows, samples = store.rows(), made.rows()
    truth = store.read(spread(rows[rows["split"] == "test"], 10))
    out = {"real, held out": truth}
    for name in MODELS:
        rebuilt = given_back(study.of(name), truth, "cpu")
        assert rebuilt is not None, "latents are diffused"
        out[f"the same after {name} channels"] = rebuilt
    of = {name: samples[samples["request"] == f"of-{name}"] for name in MODELS}
    return out | {f"samples of {name} channels": made.read(spread(rows_, 10)) for name, rows_ in of.items()}


def _segmenter(store: TileStore, train: pd.DataFrame) -> UNet:
    """Finds nuclei, fitted to real train tiles: both autoencoders' tiles are read by the same eyes."""
    with tempfile.TemporaryDirectory() as place:
        run = TrainingRun("segmenter", STEPS, UNet.learning_rate, 0, Path(place), STEPS)
        training = Training("unet", "mask", ("nucleus",), run, batch_size=16)
        return UNet.fit(store.read(train), store.read(train, "mask"), training)
