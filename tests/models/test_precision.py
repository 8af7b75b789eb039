"""Half precision: close to full, whatever it gives is float32, and refused where it can't help."""

from __future__ import annotations

import pytest
import torch

from pipeline.conditions.bus import Conditions, ConditionSpec
from pipeline.config import TrainDenoiser
from pipeline.errors import HistoloomError
from pipeline.models.denoiser import build_denoiser, denoise
from pipeline.models.precision import set_precision

SPECS = (ConditionSpec("label", "vector", 3),)


def test_bf16_is_close_and_comes_back_as_float32():
    torch.manual_seed(0)
    model = build_denoiser(TrainDenoiser(channels=(16, 32)), SPECS, 4, 8).eval().requires_grad_(False)
    latents, times, given = torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), Conditions(vector=torch.eye(3)[:2])
    with torch.inference_mode():
        full = denoise(model, latents, times, given)
        half = denoise(set_precision(model, "bf16", "cpu"), latents, times, given)
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    assert (half - full).square().mean() < 1e-3 * full.square().mean()


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(HistoloomError, match="needs a GPU"):
        set_precision(torch.nn.Identity(), "fp16", "cpu")
