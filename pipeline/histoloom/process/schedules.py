"""Noise schedules. Pure: numpy alone."""

from __future__ import annotations

import numpy as np

from histoloom.config.denoiser_record import Schedule

_COSINE_OFFSET = 0.008
_LEAST_ALPHA_BAR = 1e-4


def betas(schedule: Schedule, timesteps: int, ends: tuple[float, float] | None = None) -> np.ndarray:
    """Variances of the forward process, (timesteps,) float64 in (0, 1).

    linear : 1e-4 to 0.02 at 1,000 steps (Ho et al. 2020), stretched for other counts
    scaled_linear : linear in the root, 0.00085 to 0.012 (Rombach et al. 2022)
    quadratic : linear in the root, 1e-4 to 0.02 (Song et al. 2021, DDIM)
    cosine : Nichol & Dhariwal 2021, eq. 17, with the cumulative product kept above 1e-4, so that every
        solver starts at a noise level that it can represent (log SNR of about -9.2)

    Parameters
    ----------
    ends : the first and the last, of `linear` and `scaled_linear`, for this many timesteps; unstated, those above.
    """
    if ends is not None:
        low, high = ends
        if schedule == "linear":
            return np.linspace(low, high, timesteps)
        if schedule == "scaled_linear":
            return np.linspace(low**0.5, high**0.5, timesteps) ** 2
        raise ValueError(f"a {schedule!r} schedule has no ends to be stated")
    scale = 1000 / timesteps
    if schedule == "linear":
        return np.linspace(1e-4 * scale, min(0.02 * scale, 0.999), timesteps)
    if schedule in ("scaled_linear", "quadratic"):
        low, high = (0.00085, 0.012) if schedule == "scaled_linear" else (1e-4, 0.02)
        return np.linspace((low * scale) ** 0.5, min(high * scale, 0.999) ** 0.5, timesteps) ** 2
    if schedule == "cosine":
        t = np.arange(timesteps + 1) / timesteps
        bar = np.cos((t + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2) ** 2
        bar = _LEAST_ALPHA_BAR + (1 - _LEAST_ALPHA_BAR) * bar / bar[0]
        return np.clip(1 - bar[1:] / bar[:-1], 1e-8, 0.999)
    raise ValueError(f"unknown schedule {schedule!r}")
