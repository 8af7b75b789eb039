"""How near a restored tile is, and how often an interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.quality.conformal import covered, fit_width
from histoloom.quality.fidelity import fidelity, psnr_inside


def test_the_truth_itself_is_as_near_as_can_be():
    tiles = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    same = fidelity(tiles, tiles)
    assert same.psnr == pytest.approx([60] * 3) and same.ssim == pytest.approx([1] * 3, abs=1e-5)
    assert same.fsim == pytest.approx([1] * 3, abs=1e-3)


def test_psnr_of_a_known_error():
    tiles = np.full((1, 32, 32, 3), 100, np.uint8)
    assert fidelity(tiles + 10, tiles).psnr[0] == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)


def test_psnr_inside_a_region_knows_nothing_of_what_lies_outside():
    tiles, where = np.full((2, 32, 32, 3), 100, np.uint8), np.zeros((2, 32, 32), bool)
    where[:, 4:9, 3:20] = True
    restored = np.where(where[..., None], tiles + 10, 250).astype(np.uint8)
    assert psnr_inside(restored, tiles, where) == pytest.approx([20 * np.log10(255 / 10)] * 2)
    assert psnr_inside(np.where(where[..., None], tiles, restored), tiles, where) == pytest.approx([60] * 2)


def test_more_noise_is_farther():
    rng, tiles = np.random.default_rng(0), np.full((4, 32, 32, 3), 120, np.uint8)
    near, far = (fidelity((tiles + rng.normal(0, s, tiles.shape)).astype(np.uint8), tiles) for s in (5, 40))
    assert (near.psnr > far.psnr).all() and (near.ssim > far.ssim).all() and (near.fsim > far.fsim).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9]))
def test_intervals_hold_the_truth_as_often_as_is_asked(seed, coverage):
    """On average over calibrations, which a mean over many new tiles stands for, with room for one calibration's luck."""
    rng = np.random.default_rng(seed)
    deviations = rng.uniform(1, 5, (400, 20))
    errors = rng.normal(0, 3 * deviations * rng.uniform(0.5, 1.5, (400, 1)))
    width = fit_width(errors[:200], deviations[:200], coverage)
    assert covered(errors[200:], deviations[200:], width).mean() > coverage - 0.08


def test_a_wider_interval_is_needed_for_more_coverage_and_too_few_tiles_are_refused():
    rng = np.random.default_rng(0)
    errors, deviations = rng.normal(0, 2, (50, 30)), np.ones((50, 30))
    assert fit_width(errors, deviations, 0.9) > fit_width(errors, deviations, 0.5)
    with pytest.raises(ValueError, match="5 tiles"):
        fit_width(errors[:5], deviations[:5], 0.9)
