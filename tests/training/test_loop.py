"""The loop that every training shares."""

from __future__ import annotations

import torch

from pipeline.training.loop import TrainingRun, train


def test_trainings_of_one_process_have_each_its_own_precision(tmp_path):
    seen = []
    for precision in ("bf16", "no", "bf16"):
        model = torch.nn.Conv2d(1, 1, 1)

        def loss(step: int, generator: torch.Generator, model=model):
            out = model(torch.ones(1, 1, 4, 4))
            seen.append(torch.is_autocast_enabled("cpu"))
            return out.float().square().mean(), {}

        train(model, loss, TrainingRun("t", 1, 1e-3, 0, tmp_path / str(len(seen)), 1, mixed_precision=precision))
    assert seen == [True, False, True]
