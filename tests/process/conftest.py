"""A tiny network that the tests of guidance and of sampling share."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec

SPECS = (ConditionSpec("label", "vector", 3, 0.1), ConditionSpec("text", "sequence", 6, 0.1))


@pytest.fixture(scope="module", params=["label and text", "label"])
def unet(request):
    """A tiny UNet, latents and conditions for it, the nulls (one row), and what the conditions are."""
    specs = SPECS if "text" in request.param else SPECS[:1]
    generator = torch.Generator().manual_seed(0)
    model = UNet.build(TrainDenoiser(channels=(8, 16)), specs, (2, 8, 8)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    given_ = Conditions(vector=torch.eye(3))
    nulls = Conditions(vector=torch.zeros(1, 3))
    if len(specs) == 2:
        mask = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
        given_ = Conditions(torch.randn(3, 4, 6, generator=generator), mask, given_.vector)
        nulls = Conditions(torch.zeros(1, 4, 6), torch.ones(1, 4, dtype=bool), nulls.vector)
    return model, torch.randn(3, 2, 8, 8, generator=generator), given_, nulls, specs
