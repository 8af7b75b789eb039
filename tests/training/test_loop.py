"""The loop that every training shares."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones import precision as compute
from histoloom.errors import HistoloomError
from histoloom.training.loop import train
from histoloom.training.run import TrainingRun


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


def test_what_layers_draw_depends_on_seed_and_step_alone(tmp_path):
    """Dropout, whatever was drawn before, and where a run was broken off; and nobody else's draws are changed."""

    def trained(name: str, steps: int, drawn_before: int) -> torch.Tensor:
        torch.manual_seed(drawn_before)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1), torch.nn.Dropout(0.5), torch.nn.Conv2d(8, 1, 1))
        expected = torch.initial_seed(), torch.get_rng_state()
        run = TrainingRun("t", steps, 1e-2, 0, tmp_path / name, 2, weight_decay=0.0)

        def loss(step: int, generator: torch.Generator):
            if step == stop:
                raise KeyboardInterrupt
            return (model(torch.rand(4, 1, 4, 4, generator=generator)) - 1).square().mean(), {}

        try:
            train(model, loss, run)
        finally:
            assert torch.initial_seed() == expected[0] and torch.equal(torch.get_rng_state(), expected[1])
        return model[0].weight.detach()

    stop = None
    first, again = trained("first", 6, 1), trained("again", 6, 2)
    stop = 4
    with pytest.raises(KeyboardInterrupt):
        trained("broken", 6, 3)
    stop = None
    assert torch.equal(first, again) and torch.equal(first, trained("broken", 6, 4))


def test_a_loss_that_is_no_number_ends_the_run_before_its_weights_are_kept(tmp_path):
    model = torch.nn.Conv2d(1, 1, 1)

    def loss(step: int, generator: torch.Generator):
        return model(torch.ones(1, 1, 4, 4)).square().mean() * (1 if step < 3 else torch.nan), {}

    with pytest.raises(HistoloomError, match="the loss is nan at step 3"):
        train(model, loss, TrainingRun("t", 9, 1e-3, 0, tmp_path, 2))
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-0000002"]


def test_training_stops_when_what_is_measured_falls_no_more_and_the_best_is_taken(tmp_path):
    """Broken or not: the same steps are taken, and the same weights are left."""

    def trained(name: str, breaks_at: int | None) -> tuple[float, TrainingRun, int]:
        model, taken = torch.nn.Linear(1, 1, bias=False), []
        torch.nn.init.constant_(model.weight, 0.0)
        run = TrainingRun("t", 40, 0.1, 0, tmp_path / name, 2, weight_decay=0.0, patience=3)
        run.measure = lambda: abs(float(model.weight.detach()) - 0.5)

        def loss(step: int, generator: torch.Generator):
            if step == breaks_at:
                raise KeyboardInterrupt
            taken.append(step)
            return (model(torch.ones(1, 1)) - 3).square().mean(), {}

        train(model, loss, run)
        return float(model.weight.detach()), run, max(taken, default=-1)

    weight, run, last = trained("whole", None)
    values = dict(run.measured)
    assert values[run.best] == min(values.values()) and abs(weight - 0.5) == pytest.approx(values[run.best])
    assert last + 1 == run.best + 3 * 2 < 40
    with pytest.raises(KeyboardInterrupt):
        trained("broken", last - 1)
    assert trained("broken", None)[:1] == (weight,)
    assert trained("broken", None)[2] == -1  # it was over, and no step is taken


def test_the_best_checkpoint_is_kept(tmp_path):
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    run = TrainingRun("t", 5, 0.1, 0, tmp_path, 1, measure=lambda: next(values))
    model = torch.nn.Linear(1, 1)
    train(model, lambda step, generator: (model(torch.ones(1, 1)).square().mean(), {}), run)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-0000001", "step-0000004", "step-0000005"]
