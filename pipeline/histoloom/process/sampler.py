"""From noise to latents, with the solvers of diffusers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from histoloom.config.denoiser_record import Prediction, Schedule
from histoloom.process.guidance import Guidance
from histoloom.process.schedules import betas


def make_scheduler(name: str, *, prediction: Prediction, schedule: Schedule, train_timesteps: int):
    """A diffusers scheduler: 'ddim', 'euler', 'dpmsolver++' (2M) or 'unipc'.

    All start at the last training timestep ('trailing', Lin et al. 2024), and none draws noise of its own.
    """
    from diffusers import (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        UniPCMultistepScheduler,
    )

    common = {
        "trained_betas": betas(schedule, train_timesteps).astype("float32"),
        "prediction_type": prediction,
        "num_train_timesteps": train_timesteps,
        "timestep_spacing": "trailing",
    }
    if name == "ddim":
        return DDIMScheduler(**common, clip_sample=False)
    if name == "euler":
        return EulerDiscreteScheduler(**common)
    if name == "dpmsolver++":
        return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", solver_order=2)
    if name == "unipc":
        return UniPCMultistepScheduler(**common)
    raise ValueError(f"unknown scheduler {name!r}")


@torch.inference_mode()
def sample_latents(
    model: torch.nn.Module, scheduler, noise: torch.Tensor, guidance: Callable[[float], Guidance], *, steps: int
) -> torch.Tensor:
    """Denoise a batch.

    Parameters
    ----------
    noise : (b, c, h, w) standard normal, on the model's device.
    guidance : of b rows of conditions, on the model's device, at a fraction of the training timesteps, 1 being noise.

    Returns
    -------
    (b, c, h, w) latents of unit variance
    """
    scheduler.set_timesteps(steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    fractions = [time / scheduler.config.num_train_timesteps for time in scheduler.timesteps.tolist()]
    for timestep, fraction in zip(scheduler.timesteps, fractions):
        scaled = scheduler.scale_model_input(latents, timestep)
        predicted = guidance(fraction).predict(model, scaled, timestep)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return latents
