"""Carrillo-Perez et al. 2024, RNA-CDM: the second half of the cascade, real tiles enlarged four times, beside bicubic interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from histoloom.conditions.picture import degraded
from histoloom.data.drawn import write_drawn
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.slides.stain_mask import fit_stain_mask
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
        "more": _of_code(study)
        | {
            "ssim": float(np.mean([structural_similarity(a, b, channel_axis=-1) for a, b in zip(truth, enlarged)])),
            "ssim_bicubic": float(
                np.mean([structural_similarity(a, b, channel_axis=-1) for a, b in zip(truth, bicubic)])
            ),
            "deviation_to_error": float(np.corrcoef(deviation, error)[0, 1]),
        },
    }


def _of_code(study: Study) -> dict[str, float]:
    """How the nuclei of tiles that are made of a code go with those that its patient's real tiles have: Pearson's r over tiles, and if shuffled."""
    real, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = real.rows(), synthetic.rows()
    made = made[made["request"] == "of-a-code"]
    mpp, patients = study.params.tile.mpp, rows.groupby("patient_id")
    shares = pd.Series({name: _nuclei(real.read(own), mpp).mean() for name, own in patients})
    truth = shares.loc[rows.set_index("tile_id").loc[made["condition_ref"], "patient_id"]]
    found = _nuclei(synthetic.read(made), mpp)
    shuffled = np.random.default_rng(0).permutation(truth.to_numpy())
    return {
        "nuclei_of_code_r": float(np.corrcoef(truth, found)[0, 1]),
        "nuclei_of_code_r_if_shuffled": float(np.corrcoef(shuffled, found)[0, 1]),
        "nuclei_of_code_patients": float(truth.index.nunique()),
    }


def _nuclei(tiles: np.ndarray, mpp: float) -> np.ndarray:
    """The share of each tile that the stain tells as nuclei, (n,)."""
    told = fit_stain_mask(("nucleus",), tiles, mpp)
    return np.array([(told.segment(tile, mpp).mask > 0).mean() for tile in tiles])


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles, how small they are given, what was enlarged, and tiles of a code alone."""
    real, predicted, synthetic = study.real(), TileStore(study.predicted), TileStore(study.synthetic)
    rows, made = predicted.rows(), synthetic.rows()
    few = spread(rows[(rows["request"] == "enlarged") & (rows["split"] == "test")], 10)
    truth = real.read(real.rows().set_index("tile_id").loc[few["condition_ref"]])
    how = study.params.models["large"].train_encoders.picture
    return {
        "real, held out": truth,
        "reduced four times, enlarged by bicubic interpolation": np.stack([degraded(tile, how, 0) for tile in truth]),
        "enlarged by the model, mean of four samples": predicted.read(few),
        "made of an expression code alone": synthetic.read(spread(made[made["request"] == "of-a-code"], 10)),
    }
