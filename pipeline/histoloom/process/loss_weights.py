"""Weights of the training loss over timesteps. Pure: numpy alone."""

from __future__ import annotations

from typing import Literal

import numpy as np

from histoloom.config.denoiser_record import Prediction


def loss_weights(
    snr: np.ndarray, prediction: Prediction, kind: Literal["none", "min_snr", "p2"], gamma: float, k: float = 1.0
) -> np.ndarray:
    """Weight of the squared error of the model's own prediction, (timesteps,) float64.

    none : 1
    min_snr : min(SNR, gamma) on the error of x0 (Hang et al. 2023, eq. 8)
    p2 : 1 / (k + SNR)^gamma on the error of epsilon (Choi et al. 2022, eq. 8)

    Errors of the three predictions are one error seen in different units: that of epsilon is SNR times that
    of x0, that of v is (SNR + 1) times that of x0.
    """
    snr = np.asarray(snr, np.float64)
    if kind == "none":
        return np.ones_like(snr)
    of_x0 = np.minimum(snr, gamma) if kind == "min_snr" else snr / (k + snr) ** gamma
    units = {"sample": np.ones_like(snr), "epsilon": snr, "v_prediction": snr + 1}
    return of_x0 / units[prediction]
