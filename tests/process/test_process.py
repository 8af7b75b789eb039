"""Schedules, and what data, noise and prediction tell of each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.data.seeds import item_seed
from histoloom.process.noise import latent_noise
from histoloom.process.process import Process, loss_weights
from histoloom.process.schedules import betas

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
