"""Solvers as numbers, against diffusers' own schedulers."""

from __future__ import annotations

import pytest
import torch

from histoloom.process.process import Process
from histoloom.process.solver import _scheduler, jump, make_solver

SOLVERS = ("ddim", "euler", "dpmsolver++", "unipc")
PROCESS = Process("v_prediction", "cosine", 1000)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 4, 20])
def test_a_solver_steps_as_diffusers_does(name, prediction, steps):
    process = Process(prediction, "cosine", 1000)
    solver, scheduler = make_solver(name, process, steps), _scheduler(name, process, steps)
    scheduler.register_to_config(prediction_type=prediction)
    noise = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, theirs, before = solver.steps[0].pure(noise), noise * scheduler.init_noise_sigma, []

    def model(x, t):
        return torch.tanh(x) * (0.5 + float(t) / 2000)

    for index, (step, time) in enumerate(zip(solver.steps, scheduler.timesteps, strict=True)):
        assert solver.known(index) == len(before)
        x0 = process.x0(ours * step.scale, model(ours * step.scale, step.timestep), step.scales)
        ours, before = step.next(ours, x0, before), [x0, *before][: solver.history]
        theirs = scheduler.step(model(scheduler.scale_model_input(theirs, time), time), time, theirs).prev_sample
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", SOLVERS)
def test_what_keeps_its_latent_keeps_its_noise(name):
    """Stepped with the latent that it hides, a pixel stays that latent with that noise: skipping changes no level."""
    solver = make_solver(name, PROCESS, 10)
    clean, noise = 0.7, -1.3
    x = solver.steps[0].noised(clean, noise)
    for index, (step, following) in enumerate(zip(solver.steps, solver.steps[1:])):
        x = step.next(x, clean, [clean] * solver.known(index))
        assert x == pytest.approx(following.noised(clean, noise), rel=1e-3, abs=1e-4)
    last = len(solver.steps) - 1
    assert solver.steps[-1].next(x, clean, [clean] * solver.known(last)) == pytest.approx(clean, abs=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_what_is_noised_again_is_at_its_steps_level(name):
    """As much of the latent, and noise of the variance, that the step is told to expect."""
    solver = make_solver(name, PROCESS, 10)
    assert solver.repeated(1) == solver
    taken = solver.repeated(3).steps
    assert len(taken) == 28 and [s.timestep for s in taken[::3]] == [s.timestep for s in solver.steps]
    for number, (step, following) in enumerate(zip(solver.steps, solver.steps[1:])):
        kept, added = taken[3 * number].back
        assert taken[3 * number + 1].back == (kept, added) and taken[3 * number + 2].back is None
        assert kept * following.scales.alpha / following.scale == pytest.approx(
            step.scales.alpha / step.scale, rel=1e-6
        )
        variance = (kept * following.scales.sigma / following.scale) ** 2 + added**2
        assert variance == pytest.approx((step.scales.sigma / step.scale) ** 2, rel=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_fresh_noise_is_drawn_as_diffusers_ddim_does(eta):
    solver, scheduler = make_solver("ddim", PROCESS, 10).ancestral(eta), _scheduler("ddim", PROCESS, 10)
    x = y = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for index, (step, time) in enumerate(zip(solver.steps, scheduler.timesteps, strict=True)):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(index))
        x0 = torch.tanh(x)
        x = step.next(x, x0)
        if step.back is not None:
            x = step.back[0] * x + step.back[1] * noise
        y = scheduler.step(torch.tanh(y), time, y, eta=eta, variance_noise=noise if eta else None).prev_sample
        assert torch.allclose(x, y, rtol=1e-3, atol=1e-4)


def test_a_round_more_of_an_ancestral_step_is_at_its_level():
    solver = make_solver("ddim", PROCESS, 10).ancestral(0.7)
    for number, (step, following) in enumerate(zip(solver.steps, solver.steps[1:])):
        (own, _), (kept, added) = step.weights[0], solver.repeated(2).steps[2 * number].back
        variance = (kept * own * step.scales.sigma) ** 2 + added**2
        assert variance == pytest.approx(step.scales.sigma**2, rel=1e-5)
        assert kept * following.scales.alpha == pytest.approx(step.scales.alpha, rel=1e-6)


def test_no_prediction_from_before_noise_was_added_is_read():
    solver = make_solver("unipc", PROCESS, 6)
    assert [solver.known(index) for index in range(6)] == [0, 1, 2, 2, 2, 2]
    assert [solver.known(index, begin=3) for index in range(3, 6)] == [0, 1, 2]
    twice = solver.repeated(2)
    assert [twice.known(index) for index in range(7)] == [0, 0, 1, 0, 1, 0, 1]
    assert make_solver("ddim", PROCESS, 6).known(5) == 0


def test_a_jump_ends_at_what_is_predicted_at_its_time():
    solver = jump(PROCESS, 0.3)
    (step,) = solver.steps
    assert (step.timestep, step.scales) == (299, PROCESS.scales(299)) and solver.begin(0.3) == 0
    assert step.next(step.noised(0.7, -1.3), 0.2) == pytest.approx(0.2)
    assert jump(PROCESS, 1e-6).steps[0].timestep == 0


def test_an_unknown_scheduler_is_an_error():
    with pytest.raises(ValueError, match="'heun'; there are ddim, euler"):
        make_solver("heun", PROCESS, 4)
