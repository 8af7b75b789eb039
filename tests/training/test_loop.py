"""The loop that every training shares."""

from __future__ import annotations

import pytest
import torch

from pipeline.models import precision as compute
from pipeline.training.loop import TrainingRun, train


@pytest.mark.parametrize("has", [True, False])
def test_trainings_of_one_process_have_each_its_own_precision(monkeypatch, capsys, tmp_path, has):
    """And one that the device would emulate is fp32, and said."""
    monkeypatch.setattr(compute, "has_bf16", lambda device: has)
    seen = []
    for precision in ("bf16", "no", "bf16"):
        model = torch.nn.Conv2d(1, 1, 1)

        def loss(step: int, generator: torch.Generator, model=model):
            out = model(torch.ones(1, 1, 4, 4))
            seen.append(torch.is_autocast_enabled("cpu"))
            return out.float().square().mean(), {}

        train(model, loss, TrainingRun("t", 1, 1e-3, 0, tmp_path / str(len(seen)), 1, mixed_precision=precision))
    assert seen == [has, False, has]
    assert ("computes in fp32" in capsys.readouterr().err) is not has
