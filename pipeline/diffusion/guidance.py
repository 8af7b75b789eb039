"""Classifier-free guidance, its branches in one batch (Ho & Salimans 2022, eq. 6)."""

from __future__ import annotations

import torch

from pipeline.conditions.bus import Conditions, cat
from pipeline.models.denoiser import denoise


def guided(
    model: torch.nn.Module,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    given: Conditions,
    null: Conditions,
    scale: float,
) -> torch.Tensor:
    """null + scale * (given - null), both predicted in one forward of twice the batch.

    Parameters
    ----------
    latents : (b, c, h, w)
    timestep : scalar, one for the whole batch.
    null : b rows in which nothing is given.
    scale : 1 predicts the given branch alone, 0 the null branch alone; neither costs the other.
    """
    times = timestep.expand(len(latents))
    if scale == 1:
        return denoise(model, latents, times, given)
    if scale == 0:
        return denoise(model, latents, times, null)
    both = denoise(model, torch.cat([latents, latents]), torch.cat([times, times]), cat([null, given]))
    without, with_ = both.chunk(2)
    return without + scale * (with_ - without)
