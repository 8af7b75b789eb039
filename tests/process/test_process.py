"""The forward process, noise, guidance and solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions, only
from histoloom.config import Sample, TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError
from histoloom.process.guidance import Branch, branches
from histoloom.process.noise import latent_noise
from histoloom.process.predictor import Given, Predictor
from histoloom.process.process import Process, loss_weights
from histoloom.process.sampler import Kept, invert, partly, pure, sample
from histoloom.process.schedules import betas
from histoloom.process.solver import make_solver
from histoloom.sampling.diffusion_model import written_guidance

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")

SCHEDULES = ("linear", "scaled_linear", "cosine", "quadratic")
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@given(st.sampled_from(SCHEDULES), st.integers(20, 2000))
def test_noise_grows_at_every_step(schedule, timesteps):
    beta, snr = betas(schedule, timesteps), Process("epsilon", schedule, timesteps).snr
    assert beta.shape == snr.shape == (timesteps,)
    assert ((beta > 0) & (beta < 1)).all()
    assert (np.diff(snr) < 0).all() and snr[-1] > 0


@pytest.mark.parametrize(
    "schedule, first, last", [("linear", 1e-4, 0.02), ("scaled_linear", 0.00085, 0.012), ("quadratic", 1e-4, 0.02)]
)
def test_schedules_have_their_papers_ends(schedule, first, last):
    beta = betas(schedule, 1000)
    assert (beta[0], beta[-1]) == (pytest.approx(first), pytest.approx(last))


@given(st.sampled_from(SCHEDULES), st.sampled_from([100, 250, 500, 2000]))
def test_the_count_of_steps_hardly_changes_where_a_schedule_ends(schedule, timesteps):
    ends = [np.log(Process("epsilon", schedule, count).snr[-1]) for count in (timesteps, 1000)]
    assert ends[0] == pytest.approx(ends[1], abs=1.0)


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ValueError, match="'sigmoid'"):
        betas("sigmoid", 10)


snrs = st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=20).map(np.array)
kinds = st.sampled_from(["min_snr", "p2"])


@given(snrs, kinds, st.floats(0.1, 10), st.floats(0.1, 10))
def test_one_loss_has_one_weight_whatever_the_model_predicts(snr, kind, gamma, k):
    """The same error, in the units of epsilon, v and x0, costs the same: (x0 error)² = 1."""
    error = {"sample": 1.0, "epsilon": snr, "v_prediction": snr + 1}
    cost = [loss_weights(snr, p, kind, gamma, k) * error[p] for p in PREDICTIONS]
    np.testing.assert_allclose(cost[0], cost[1], rtol=1e-9)
    np.testing.assert_allclose(cost[0], cost[2], rtol=1e-9)


@given(st.sampled_from(PREDICTIONS), st.sampled_from(SCHEDULES), st.integers(0, 999), st.integers(1, 5))
def test_data_noise_and_prediction_tell_each_other_at_any_rank(prediction, schedule, time, rank):
    process = Process(prediction, schedule, 1000)
    x0, noise = torch.randn(2, 3, *(2,) * (rank - 1), generator=torch.Generator().manual_seed(time)).double()
    times = torch.full((3,), time)
    for scales in (process.scales(time), process.scales_of(times, rank)):
        noisy, told = process.noised(x0, noise, scales), process.target(x0, noise, scales)
        assert noisy.shape == told.shape == x0.shape
        near = {
            "rtol": 1e-3,
            "atol": 1e-3 / process.scales(time).sigma,
        }  # float32 tables; sigma is small where noise is
        torch.testing.assert_close(
            process.x0(noisy, told, scales), x0, rtol=1e-3, atol=1e-3 / process.scales(time).alpha
        )
        torch.testing.assert_close(process.predicted(noisy, x0, scales), told, **near)
    assert process.level(0) == 0 and process.level(999) < 1


@given(st.floats(0.02, 0.98), st.floats(-2, 2), st.floats(-2, 2), st.floats(-1, 1))
def test_errors_of_the_three_predictions_are_in_the_stated_ratios(alpha_bar, x0, epsilon, miss):
    """From the definitions: x_t fixed, x0 off by `miss`, what are epsilon and v off by?"""
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    noisy = signal * x0 + noise * epsilon
    wrong = (noisy - signal * (x0 + miss)) / noise
    snr = alpha_bar / (1 - alpha_bar)
    v, wrong_v = signal * epsilon - noise * x0, signal * wrong - noise * (x0 + miss)
    assert (wrong - epsilon) ** 2 == pytest.approx(snr * miss**2, abs=1e-9)
    assert (wrong_v - v) ** 2 == pytest.approx((snr + 1) * miss**2, abs=1e-9)


@given(snrs, st.floats(0.1, 10))
def test_min_snr_is_bounded_and_is_one_for_epsilon_where_noise_is_strong(snr, gamma):
    weights = {p: loss_weights(snr, p, "min_snr", gamma) for p in PREDICTIONS}
    assert (weights["sample"] <= gamma).all()
    assert (weights["epsilon"] <= 1 + 1e-12).all() and (weights["v_prediction"] < 1).all()
    np.testing.assert_allclose(weights["epsilon"][snr <= gamma], 1)


@given(snrs, st.floats(0, 3), st.floats(0.1, 3), st.sampled_from(PREDICTIONS))
def test_p2_is_its_paper_s_and_none_is_one(snr, gamma, k, prediction):
    np.testing.assert_allclose(loss_weights(snr, "epsilon", "p2", gamma, k), 1 / (k + snr) ** gamma)
    assert (loss_weights(snr, prediction, "none", gamma) == 1).all()


seeds = st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=6, unique=True)


@given(seeds, st.randoms())
def test_noise_belongs_to_its_seed_in_any_batch_and_order(seeds, random):
    alone = {seed: latent_noise([seed], (2, 3, 3))[0] for seed in seeds}
    shuffled = [*seeds, seeds[0]]
    random.shuffle(shuffled)
    together = latent_noise(shuffled, (2, 3, 3))
    assert together.dtype == np.float32
    assert all((alone[seed] == noise).all() for seed, noise in zip(shuffled, together))
    assert len({noise.tobytes() for noise in together}) == len(seeds)


def test_every_bit_of_a_seed_counts():
    seeds = [0, *(1 << bit for bit in range(64))]
    assert len({noise.tobytes() for noise in latent_noise(seeds, (4,))}) == len(seeds)


def test_noise_is_standard_normal_and_of_numpy_s_own_stream():
    noise = latent_noise([item_seed(0, f"t{n}") for n in range(64)], (4, 16, 16))
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs(np.corrcoef(noise.reshape(64, -1))[~np.eye(64, dtype=bool)]).max() < 0.15
    assert latent_noise([], (1, 2)).shape == (0, 1, 2)


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


def _guided(unet, scale, time: int) -> torch.Tensor:
    """The guided prediction, from a process in which it is the data itself."""
    model, latents, given_, nulls, specs = unet
    predictor = Predictor(model, Process("sample", "cosine", 1000), specs, lambda level: scale)
    found = predictor.x0(latents, time, Given(given_, nulls))
    assert torch.equal(found, predictor.x0(latents, [time] * len(latents), Given(given_, nulls)))
    return found


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.0 + 1e-6, 2.5])
def test_guidance_is_its_formula_also_where_it_is_cut_short(unet, scale):
    model, latents, given_, nulls, _ = unet
    time = torch.tensor(500)
    rows = nulls.each(lambda value: value.expand(3, *value.shape[1:]))
    with_, without = (model(latents, time.expand(3), c) for c in (given_, rows))
    assert (with_ - without).abs().max() > 1e-3
    found = _guided(unet, lambda _: scale, 500)
    torch.testing.assert_close(found, without + scale * (with_ - without), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unet", ["label and text"], indirect=True)
def test_two_scales_are_nested_in_the_conditions_order(unet):
    model, latents, given_, nulls, specs = unet
    time = torch.tensor(300)
    none, label, both = (
        model(latents, time.expand(3), only(given_, nulls, specs, names))
        for names in ((), ("label",), ("label", "text"))
    )
    found = _guided(unet, {"label": 3.0, "text": 1.5}.get, 300)
    torch.testing.assert_close(found, none + 3 * (label - none) + 1.5 * (both - label), rtol=1e-4, atol=1e-5)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.5]), max_size=5))
def test_branches_are_at_most_one_more_than_the_conditions_and_add_up_to_one(scales):
    specs = tuple(ConditionSpec(str(n), "vector", 1) for n in range(len(scales)))
    found = branches(specs, lambda name: scales[int(name)])
    assert 1 <= len(found) <= len(set(scales)) + 1
    assert sum(branch.coefficient for branch in found) == pytest.approx(1)
    assert all(branch.coefficient for branch in found)
    given_names = set().union(*(branch.names for branch in found))
    assert not given_names & {str(n) for n, scale in enumerate(scales) if scale == 0}
    if set(scales) <= {1.0}:
        assert [branch.names for branch in found] == [{spec.name for spec in specs}]


@pytest.mark.parametrize("unet", ["label and text"], indirect=True)
def test_what_a_mask_hides_does_not_count(unet):
    model, latents, given_, *_ = unet
    changed = given_.sequence.clone()
    changed[1, 2:] = 7.0
    other = Conditions(changed, given_.sequence_mask, given_.vector)
    time = torch.tensor([500] * 3)
    torch.testing.assert_close(model(latents, time, given_), model(latents, time, other))


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


intervals = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple)
names = st.sampled_from(["label", "text", "mask"])


@given(
    fraction=st.floats(0, 1),
    interval=intervals | st.dictionaries(names, intervals),
    scales=st.dictionaries(names, st.floats(0, 5), min_size=1),
)
def test_guidance_acts_in_its_interval_and_no_condition_counts_more_than_once_elsewhere(fraction, interval, scales):
    config = Sample(guidance=scales, guidance_interval=interval)
    for name, scale in scales.items():
        low, high = interval.get(name, (0, 1)) if isinstance(interval, dict) else interval
        assert config.scale_at(fraction)(name) == (scale if low <= fraction <= high else min(scale, 1))


def test_one_forward_of_one_branch_is_all_that_a_step_outside_takes(unet):
    config = Sample(guidance=3.0, guidance_interval=(0.2, 0.6))
    model, _, _, _, specs = unet
    predictor = Predictor(model, Process("sample", "cosine", 1000), specs, config.scale_at)
    counts = [len(predictor.branches(time)) for time in (100, 500, 900)]
    assert counts == [1, 2, 1]


@given(st.floats(0, 1))
def test_a_condition_without_an_interval_is_guided_at_every_step_the_last_too(fraction):
    assert (
        Sample(guidance=3.0).scale_at(fraction)("text")
        == Sample(guidance=3.0, guidance_interval=(0, 1)).scale_at(fraction)("text")
        == 3
    )


@pytest.mark.parametrize("unet", ["label and text"], indirect=True)
def test_a_condition_outside_its_interval_comes_first_and_takes_no_branch_of_its_own(unet):
    specs = unet[-1]
    scale = Sample(guidance=3.0, guidance_interval={"text": (0.2, 0.6)}).scale_at(0.9)
    assert branches(specs, scale) == (Branch(-2.0, frozenset({"text"})), Branch(3.0, frozenset({"label", "text"})))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"guidance": 2.0, "guidance_interval": (0.2, 0.6)}, [("all", 2.0, 0.2, 0.6)]),
        ({"guidance": {"text": 3.0, "mask": 1.5}}, [("text", 3.0, 0.0, 1.0), ("mask", 1.5, 0.2, 0.6)]),
        ({"guidance": 2.0}, [("text", 2.0, 0.0, 1.0), ("mask", 2.0, 0.2, 0.6)]),
        ({"guidance": {"text": 3.0}, "guidance_interval": {}}, [("text", 3.0, 0.0, 1.0), ("mask", 1.0, 0.0, 1.0)]),
        ({"guidance": 1.5, "guidance_interval": {"rna": (0, 0.5)}}, [("all", 1.5, 0.0, 1.0)]),
    ],
)
def test_a_row_states_the_guidance_of_the_conditions_that_its_study_has(config, said):
    names = ("condition", "scale", "start", "end")
    assert written_guidance(Sample(**config), ("text", "mask")) == [dict(zip(names, entry)) for entry in said]


@pytest.mark.parametrize("interval", [(0.6, 0.2), {"text": (0, 1), "mask": (0.6, 0.2)}])
def test_an_interval_that_ends_before_it_begins_is_refused(interval):
    with pytest.raises(ValueError, match="guidance_interval must begin below its end"):
        Sample(guidance_interval=interval)


def test_latents_that_cannot_be_halved_are_an_error():
    with pytest.raises(HistoloomError, match=r"10 px cannot be halved 2 times.*channels"):
        UNet.build(TrainDenoiser(channels=(8, 8, 8)), SPECS, (2, 10, 10))


def test_xformers_asked_for_by_name_without_a_gpu_is_an_error_and_auto_is_not(unet):
    assert unet[0].set_attention("auto") == unet[0].set_attention("sdpa") == "sdpa"
    with pytest.raises(HistoloomError, match=r"kernels don't load .*attention: auto"):
        unet[0].set_attention("xformers")
