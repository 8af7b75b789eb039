"""Losses of masks: by hand, and blind to pixels that nothing is known of."""

from __future__ import annotations

import pytest
import torch

from histoloom.data.store import UNKNOWN
from histoloom.learners.networks import dice_loss, structure_loss

TRUTH = torch.zeros(1, 16, 16, dtype=torch.long)
TRUTH[:, 4:12, 4:12] = 1


def logits_of(truth: torch.Tensor, sure: float = 20.0) -> torch.Tensor:
    return sure * torch.stack([truth == 0, truth == 1], 1).float()


@pytest.mark.parametrize("loss", [dice_loss, structure_loss])
def test_what_is_right_and_sure_costs_nothing_and_what_is_wrong_costs_more_than_what_is_unsure(loss):
    right, unsure, wrong = (
        float(loss(logits_of(shown, sure), TRUTH)[0])
        for shown, sure in ((TRUTH, 20.0), (TRUTH, 0.0), (1 - TRUTH, 20.0))
    )
    assert right == pytest.approx(0, abs=1e-3) and right < unsure < wrong


@pytest.mark.parametrize("loss", [dice_loss, structure_loss])
def test_unknown_pixels_teach_nothing(loss):
    truth = TRUTH.clone()
    truth[:, :3] = UNKNOWN
    logits = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss(logits, truth)[0].backward()
    assert not logits.grad[:, :, :3].any() and logits.grad[:, :, 3:].any()


def test_the_focal_part_by_hand():
    truth, logits = torch.zeros(1, 16, 16, dtype=torch.long), torch.zeros(1, 2, 16, 16)  # a half for each class
    alike = float(structure_loss(logits, truth)[1]["ssim"])
    focal = 0.5**2 * float(torch.log(torch.tensor(2.0)))
    assert float(structure_loss(logits, truth)[0]) == pytest.approx(1 - alike + focal, abs=1e-5)
