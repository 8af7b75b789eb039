"""Seams are found where cells meet, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from histoloom.quality.seams import borders, gradients, seam_ratio, worst_by_chance

HALVES = np.repeat([[0.0] * 4 + [1.0] * 4], 8, 0)
"""Two cells on a torus: they meet before columns 0 and 4."""


def stripes(step: float) -> np.ndarray:
    """Columns of 0 and 1 by turns, and in the right half `step` more: differences are 1, but step - 1 and step + 1 at the borders."""
    return (np.arange(8) % 2 + step * HALVES)[..., None]


def test_borders_lie_where_the_cell_changes_on_a_torus():
    across, down = borders(HALVES)
    assert set(np.flatnonzero(across.all(0))) == {0, 4} and across.sum() == 16 and not down.any()


@pytest.mark.parametrize(("step", "there"), [(10.0, 10.0), (0.0, 1.0)])
def test_the_ratio_is_that_of_mean_differences(step, there):
    found = gradients(stripes(step), 1)
    np.testing.assert_allclose(found.across[0, [0, 1, 4]], [step + 1, 1, abs(step - 1)])
    elsewhere = 48 / (48 + 64)  # six columns across, and nothing down
    assert seam_ratio([found], [HALVES]) == pytest.approx(there / elsewhere)


def test_a_latent_pixel_is_compared_where_it_begins():
    found = gradients(np.kron(stripes(10.0)[..., 0], np.ones((2, 2)))[..., None], 2)
    np.testing.assert_allclose(found.across, gradients(stripes(10.0), 1).across)


def test_a_seam_is_worse_than_borders_at_random_and_none_is_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (8, 8, 1))
    chance = worst_by_chance([gradients(noise, 1)], [[HALVES]], 50, rng)
    assert seam_ratio([gradients(noise + 6 * HALVES[..., None], 1)], [HALVES]) > chance.max()
    assert seam_ratio([gradients(noise, 1)], [HALVES]) <= chance.max()
