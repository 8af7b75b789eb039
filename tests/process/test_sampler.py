"""Sampling: what a run begins from, what it keeps, and diffusers' own steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.errors import HistoloomError
from histoloom.process.noise import latent_noise
from histoloom.process.predictor import Given, Predictor
from histoloom.process.process import Process
from histoloom.process.sampler import Kept, invert, partly, pure, sample
from histoloom.process.schedules import betas
from histoloom.process.solver import make_solver

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmsolver++", "unipc"])
def test_a_tile_depends_on_its_own_noise_and_conditions_alone(unet, name):
    model, _, given_, nulls, specs = unet
    noise = torch.from_numpy(latent_noise([1, 2, 3], (2, 8, 8)))

    process = Process("v_prediction", "cosine", 100)
    predictor, solver = Predictor(model, process, specs, lambda level: lambda name: 2.0), make_solver(name, process, 3)

    def sampled(order):
        return sample(predictor, solver, pure(solver, noise[order]), Given(given_, nulls).rows(order))

    order = torch.tensor([2, 0, 1])
    found, shuffled = sampled(torch.arange(3)), sampled(order)
    assert found.isfinite().all()
    torch.testing.assert_close(shuffled, found[order])
    assert torch.equal(sampled(order), shuffled)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["ddim", "euler", "dpmsolver++", "unipc"])
def test_every_solver_finds_the_data_that_a_perfect_model_knows(name, prediction):
    """A model that predicts exactly for data at one point: every solver must end there."""
    target = torch.linspace(-1, 1, 32).reshape(1, 2, 4, 4)
    bar = torch.from_numpy(np.cumprod(1 - betas("cosine", 1000))).float()

    class Perfect(torch.nn.Module):
        def forward(self, latents, timesteps, _):
            a = bar[timesteps.long()][:, None, None, None]
            epsilon = (latents - a.sqrt() * target) / (1 - a).sqrt()
            v = a.sqrt() * epsilon - (1 - a).sqrt() * target
            return {"epsilon": epsilon, "v_prediction": v, "sample": target.expand_as(latents)}[prediction]

    process = Process(prediction, "cosine", 1000)
    predictor = Predictor(Perfect(), process, (), lambda level: lambda name: 1.0)
    noise = torch.from_numpy(latent_noise([5, 6], (2, 4, 4)))
    solver = make_solver(name, process, 20)
    found = sample(predictor, solver, pure(solver, noise), Given(Conditions(), Conditions()))
    assert (found - target).abs().max() < 0.1


@pytest.mark.parametrize("times", [900, [900, 20]])
def test_what_is_predicted_of_bounded_data_stays_within_its_bound(times):
    process, noisy = Process("epsilon", "linear", 1000), torch.randn(2, 3, 4, 4)
    told, scale = Given(Conditions(), Conditions()), lambda level: lambda name: 1.0
    free, bounded = (
        Predictor(lambda x, at, given: torch.zeros_like(x), process, (), scale, bound) for bound in (None, 1.0)
    )
    x0 = free.x0(noisy, times, told)
    assert x0.abs().max() > 10
    assert (bounded.x0(noisy, times, told) == x0.clamp(-1, 1)).all()


@pytest.mark.parametrize("schedule", ["cosine", "linear", "scaled_linear", "quadratic"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_diffusers_steps_by_the_saved_process_as_we_do(tmp_path, schedule, prediction):
    from diffusers import DDIMScheduler

    process, x, made = Process(prediction, schedule, 1000), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    process.save(tmp_path, 1.0)
    theirs = DDIMScheduler.from_pretrained(tmp_path)
    theirs.set_timesteps(8)
    step = make_solver("ddim", process, 8).steps[3]
    assert int(theirs.timesteps[3]) == step.timestep
    x0 = process.x0(x, made, step.scales).clamp(-1, 1)
    wanted = theirs.step(made, step.timestep, x, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(step.next(x, x0), wanted, rtol=1e-4, atol=1e-4)


def _plain(unet, prediction="v_prediction"):
    """A predictor without guidance, and what its rows are given."""
    model, latents, given_, nulls, specs = unet
    process = Process(prediction, "scaled_linear", 1000)
    return Predictor(model, process, specs, lambda level: lambda name: 1.0), latents, Given(given_, nulls)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_inversion_is_diffusers_ddim_backwards(unet, prediction):
    from diffusers import DDIMInverseScheduler

    predictor, data, told = _plain(unet, prediction)
    process, steps = predictor.process, 10
    theirs = DDIMInverseScheduler(
        trained_betas=betas(process.schedule, 1000).astype("float32"), prediction_type=prediction, clip_sample=False,
        set_alpha_to_one=False, timestep_spacing="trailing",
    )  # fmt: skip
    theirs.set_timesteps(steps)
    x, before = data, torch.tensor(0)
    for time in theirs.timesteps:
        made = predictor.network(x, before.expand(len(x)), told.conditions)
        before = time
        x = theirs.step(made, int(time), x).prev_sample
    found = invert(predictor, make_solver("ddim", process, steps), 0, data, told)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def _knows_two_clusters() -> Predictor:
    """The perfect predictor of data whose every value lies near -1 or 1, with a deviation of 0.3."""
    process = Process("sample", "scaled_linear", 1000)

    def mean(x, times, _):
        alpha, sigma = process.scales_of(times, x.ndim)
        variance = 0.09 * alpha**2 + sigma**2
        side = torch.tanh(alpha * x / variance)
        return side + 0.09 * alpha / variance * (x - alpha * side)

    return Predictor(mean, process, (), lambda level: lambda name: 1.0)


@pytest.mark.parametrize("name", ["ddim", "euler"])
@pytest.mark.parametrize("begin", [0.0, 0.2])
def test_a_run_from_inverted_data_gives_it_again(name, begin):
    """Within 3 % of its deviation at 100 steps, and the error shrinks with the steps: both ways are of first order."""
    predictor, told = _knows_two_clusters(), Given(Conditions(), Conditions())
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 16, 16)
    data = torch.randn(shape, generator=generator).sign() + 0.3 * torch.randn(shape, generator=generator)

    def error(steps: int) -> float:
        solver, start = make_solver(name, predictor.process, steps), round(begin * steps)
        x = invert(predictor, solver, start, data, told)
        back = sample(predictor, solver, x, told, begin=start)
        return ((back - data).square().mean().sqrt() / data.std()).item()

    assert error(100) < 0.03 and error(100) < 0.7 * error(50)


def test_euler_and_ddim_go_back_to_one_noise(unet):
    predictor, data, told = _plain(unet)
    found = [invert(predictor, make_solver(name, predictor.process, 20), 0, data, told) for name in ("ddim", "euler")]
    alpha = make_solver("ddim", predictor.process, 20).steps[0].scales.alpha
    torch.testing.assert_close(found[1] * alpha, found[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["ddim", "euler", "dpmsolver++", "unipc"])
def test_what_is_kept_comes_out_as_it_went_in(unet, name):
    predictor, data, told = _plain(unet)
    free = torch.zeros(3, 1, 8, 8, dtype=bool)
    free[:, :, 2:5, 2:5] = True
    solver, noise = make_solver(name, predictor.process, 6).repeated(2), torch.randn(data.shape)
    made = sample(
        predictor, solver, pure(solver, noise), told, kept=Kept(data, free), noise=lambda step: torch.randn(data.shape)
    )
    keep = ~free.expand_as(data)
    assert torch.equal(made[keep], data[keep])
    assert (made - data)[~keep].abs().max() > 0.1


@given(st.floats(0.05, 0.95))
def test_the_less_noise_a_run_begins_from_the_nearer_it_stays(strength):
    process = Process("sample", "cosine", 1000)
    solver = make_solver("ddim", process, 20)
    data, noise = torch.ones(1, 1, 2, 2), torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    begin = solver.begin(strength)
    predictor = Predictor(lambda x, times, conditions: torch.zeros_like(x), process, (), lambda level: lambda name: 1.0)
    x = partly(solver, begin, data, noise)
    scales = solver.steps[begin].scales
    torch.testing.assert_close(x, scales.alpha * data + scales.sigma * noise)
    made = sample(predictor, solver, x, Given(Conditions(), Conditions()), begin=begin)
    assert made.abs().max() < 1e-3


def test_latents_that_cannot_be_halved_are_an_error():
    with pytest.raises(HistoloomError, match=r"10 px cannot be halved 2 times.*channels"):
        UNet.build(TrainDenoiser(channels=(8, 8, 8)), (), (2, 10, 10))


def test_xformers_asked_for_by_name_without_a_gpu_is_an_error_and_auto_is_not(unet):
    assert unet[0].set_attention("auto") == unet[0].set_attention("sdpa") == "sdpa"
    with pytest.raises(HistoloomError, match=r"kernels don't load .*attention: auto"):
        unet[0].set_attention("xformers")
