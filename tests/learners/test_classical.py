"""Filters take out noise, as strongly as a few pairs say, and its level is told from a tile alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from histoloom.learners.classical import FILTERS, fit_filter, noise_level


def smooth_and_noisy(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((4, 32, 32, 3)), (0, 4, 4, 0))
    truth = (128 + 40 * smooth / smooth.std()).clip(70, 190).round().astype(np.uint8)
    return truth, (truth + sigma * rng.standard_normal(truth.shape)).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", [*FILTERS])
def test_a_filter_takes_out_noise_and_nothing_where_there_is_none(name):
    truth, noisy = smooth_and_noisy(15)
    run = fit_filter(name, noisy[:2], truth[:2])
    filtered = np.stack([run(tile) for tile in noisy[2:]])
    before, after = (np.square(tiles.astype(float) - truth[2:]).mean() for tiles in (noisy[2:], filtered))
    assert after < before / 3
    rough = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    weakest = fit_filter(name, rough, rough)
    assert weakest.strength == FILTERS[name][1][0]


@pytest.mark.parametrize("sigma", [5, 15, 30])
def test_the_level_is_told_from_the_tile_alone(sigma):
    _, noisy = smooth_and_noisy(sigma)
    assert np.mean([noise_level(tile) for tile in noisy]) == pytest.approx(sigma, rel=0.1)
