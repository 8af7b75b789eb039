"""Carrillo-Perez et al. 2024, RNA-CDM: the second half of the cascade, real tiles enlarged four times, beside bicubic interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from histoloom.conditions.picture import degraded
from histoloom.data.drawn import write_drawn
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, whose expression goes with how many nuclei they have."""
    if data is not None:
        raise HistoloomError("rna_cdm takes drawn data so far: leave --data out.")
    write_drawn(folder)


def measure(studies: list[Study]) -> Measured:
    """PSNR of held-out tiles that were enlarged, the mean of four samples, beside bicubic interpolation."""
    (study,) = studies
    real, predicted = study.real(), TileStore(study.predicted)
    rows = predicted.rows()
    rows = rows[(rows["request"] == "enlarged") & (rows["split"] == "test")]
    truth = real.read(real.rows().set_index("tile_id").loc[rows["condition_ref"]])
    enlarged = predicted.read(rows)
    how = study.params.models["large"].train_encoders.picture
    bicubic = np.stack([degraded(tile, how, 0) for tile in truth])
    ours, theirs = ([peak_signal_noise_ratio(a, b) for a, b in zip(truth, made)] for made in (enlarged, bicubic))
    deviation = predicted.read(rows, "deviation").mean((1, 2, 3))
    error = np.abs(enlarged.astype(float) - truth).mean((1, 2, 3))
    return {
        "value": float(np.mean(ours)),
        "baseline": float(np.mean(theirs)),
        "difference_interval": paired_interval(np.subtract(ours, theirs), rows["split_group"]),
        "unit": "dB PSNR",
        "n": len(rows),
        "more": {
            "ssim": float(np.mean([structural_similarity(a, b, channel_axis=-1) for a, b in zip(truth, enlarged)])),
            "ssim_bicubic": float(
                np.mean([structural_similarity(a, b, channel_axis=-1) for a, b in zip(truth, bicubic)])
            ),
            "deviation_to_error": float(np.corrcoef(deviation, error)[0, 1]),
        },
    }
