"""How sharp tiles are, whatever their stain and scale."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, laplace

from histoloom.config import Tissue
from histoloom.slides.artefacts import DENSITY
from histoloom.slides.focus import sharpness
from tests.build import OTHER_STAINS, STAINS, tissue_picture

LIMIT = Tissue().min_sharpness


def _tile(seed: int, stains, strength: float, blur_um: float = 0.0) -> np.ndarray:
    picture = gaussian_filter(tissue_picture(384, 384, seed, stains, strength), (blur_um, blur_um, 0))
    return picture[128:256, 128:256]


@pytest.mark.parametrize("stains", [STAINS, OTHER_STAINS])
@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_tissue_in_focus_is_told_from_the_same_blurred_by_two_micrometres(stains, strength):
    for seed in range(3):
        assert sharpness(_tile(seed, stains, strength), 1.0) > 1.5 * LIMIT
        assert sharpness(_tile(seed, stains, strength, 2.5), 1.0) < LIMIT


def test_a_finer_tile_is_measured_at_one_micrometre():
    tile = _tile(0, STAINS, 1.0)
    finer = tile.repeat(2, 0).repeat(2, 1)
    assert sharpness(finer, 0.5) == pytest.approx(sharpness(tile, 1.0), rel=1e-3)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_tile_of_one_colour_has_no_sharpness(value):
    assert sharpness(np.full((8, 8, 3), value, np.uint8), 0.25) == 0


def test_it_is_the_deviation_of_scipy_s_laplacian_over_the_mean():
    picture = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    density = DENSITY[np.asarray(Image.fromarray(picture).convert("L"))]
    assert sharpness(picture, 1.0) == pytest.approx(laplace(density).std() / density.mean(), rel=1e-5)
