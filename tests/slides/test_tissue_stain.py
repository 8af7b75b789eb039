"""Where tissue is, and what stain normalisation does to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histoloom.config import Tissue
from histoloom.slides import stain
from histoloom.slides.artefacts import PADDING, PEN
from histoloom.slides.open import open_slide
from histoloom.slides.tissue import TissueMap, detect_tissue
from tests.build import OTHER_STAINS, STAINS, make_slide, tissue_picture


def _tissue(path, config: Tissue | None = None, mpp: float = 1.0) -> TissueMap:
    with open_slide(path, mpp) as slide:
        return detect_tissue(slide, config or Tissue())


@pytest.mark.parametrize("glass", [255, 235, 196, 128, 0])
def test_a_slide_of_one_grey_has_no_tissue(tmp_path, glass):
    tissue = _tissue(make_slide(tmp_path / "s.png", picture=np.full((256, 256, 3), glass, np.uint8)))
    assert not tissue.mask.any() and tissue.artefact_fraction(PADDING) == (glass < 170)


def test_a_slide_without_glass_is_tissue_throughout(tmp_path):
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0.2, 0.3, (512, 512, 1)) + 0.6 * (np.indices((512, 512)).sum(0) // 64 % 2)[..., None]
    picture = (245 * 10 ** -(amounts * STAINS[1])).astype(np.uint8)
    assert _tissue(make_slide(tmp_path / "s.png", picture=picture)).mask.all()


def test_pale_tissue_beside_dark_is_tissue(tmp_path):
    picture = tissue_picture(512, 512, 0)
    pale = (256 * ((picture[:, :256] + 1) / 256) ** 0.45 - 1).astype(np.uint8)
    dark = (256 * ((picture[:, 256:] + 1) / 256) ** 3 - 1).clip(0).astype(np.uint8)
    found = _tissue(make_slide(tmp_path / "s.png", picture=np.hstack([pale, dark]))).mask
    alone = _tissue(make_slide(tmp_path / "a.png", picture=picture)).mask
    assert (found[:, :32] == alone[:, :32]).mean() > 0.93


def test_tissue_is_found_under_a_dim_lamp(tmp_path):
    dim = (tissue_picture(512, 512, 0) * 0.8).astype(np.uint8)
    found = _tissue(make_slide(tmp_path / "s.png", picture=dim))
    alone = _tissue(make_slide(tmp_path / "a.png", picture=tissue_picture(512, 512, 0)))
    assert (found.mask == alone.mask).mean() > 0.95 and found.artefact_fraction(PADDING) == found.artefact_fraction(
        PEN
    ) == 0


def test_noise_on_glass_is_no_tissue(tmp_path):
    noise = np.random.default_rng(0).normal(240, 4, (512, 512, 3)).clip(0, 255).astype(np.uint8)
    assert not _tissue(make_slide(tmp_path / "s.png", picture=noise)).mask.any()


def test_the_ellipse_is_tissue_and_its_corners_are_not(tmp_path):
    tissue = _tissue(make_slide(tmp_path / "s.svs", width=640, height=512))
    h, w = tissue.mask.shape
    assert (h, w) == (64, 80) and tissue.picture.shape == (h, w, 3)
    y, x = np.mgrid[0:h, 0:w]
    radius = np.hypot((x + 0.5) / w - 0.5, (y + 0.5) / h - 0.5) / 0.45
    assert tissue.mask[radius < 0.9].mean() > 0.99 and tissue.mask[radius > 1.1].mean() < 0.01


def test_specks_smaller_than_the_least_area_are_dropped(tmp_path):
    picture = np.full((512, 512, 3), 245, np.uint8)
    picture[40:56, 40:56] = picture[200:360, 200:360] = (200, 80, 150)
    path = make_slide(tmp_path / "s.png", picture=picture)
    assert _tissue(path, Tissue(min_area_um2=0)).mask[5:7, 5:7].any()
    kept = _tissue(path, Tissue(min_area_um2=2000)).mask
    assert not kept[:20].any() and kept[30:40, 30:40].all()


@given(
    arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.floats(1, 20),
    st.lists(st.tuples(st.floats(0, 400), st.floats(0, 400)), max_size=8),
    st.floats(1, 300),
)
def test_fractions_are_shares(mask, downsample, corners, side):
    fractions = TissueMap(mask, downsample, np.empty(0)).fractions(np.array(corners).reshape(-1, 2), side)
    assert fractions.shape == (len(corners),)
    assert ((fractions >= 0) & (fractions <= 1)).all()
    if mask.all():
        assert (fractions == 1).all()
    if not mask.any():
        assert (fractions == 0).all()


def test_a_tile_s_fraction_is_the_share_of_tissue_in_it():
    mask = np.zeros((8, 8), bool)
    mask[:, :3] = True
    found = TissueMap(mask, 4.0, np.empty(0)).fractions(np.array([[0, 0], [8, 0], [16, 16], [0.0, 16]]), 16)
    assert found.tolist() == [0.75, 0.25, 0, 0.75]


def _patches(stains, strength=1.0) -> np.ndarray:
    """Middle of a piece of tissue, as (4, 96, 96, 3)."""
    picture = tissue_picture(384, 384, 5, stains, strength)[96:288, 96:288]
    return picture.reshape(2, 96, 2, 96, 3).swapaxes(1, 2).reshape(4, 96, 96, 3)


@pytest.mark.parametrize("kind", ["macenko", "reinhard"])
def test_normalising_brings_two_stainings_of_one_tissue_together(kind):
    one, other = _patches(STAINS), _patches(OTHER_STAINS, 1.3)
    fitted = [stain.fit(kind, patches) for patches in (one, other)]
    assert [f.note for f in fitted] == ["fitted", "fitted"]
    after = [np.stack([f.apply(tile) for tile in patches]) for f, patches in zip(fitted, (one, other))]
    assert all(a.dtype == np.uint8 and a.shape == one.shape for a in after)
    apart = [np.linalg.norm(a.reshape(-1, 3).mean(0) - b.reshape(-1, 3).mean(0)) for a, b in ((one, other), after)]
    assert apart[1] < 0.35 * apart[0]


@pytest.mark.parametrize("kind", ["macenko", "reinhard"])
def test_too_little_tissue_is_skipped_and_said(kind):
    glass = np.full((4, 64, 64, 3), 240, np.uint8)
    glass[0, :20, :20] = (150, 60, 140)
    fitted = stain.fit(kind, glass)
    assert fitted.note.startswith("skipped: 400 stained pixels")
    assert (fitted.apply(glass[0]) == glass[0]).all()


def test_any_colour_is_normalised_without_a_word(recwarn):
    fitted = stain.fit("reinhard", _patches(STAINS))
    every = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert fitted.apply(every).shape == every.shape and not list(recwarn)


def test_one_stain_alone_leaves_tiles_as_they_are():
    rng = np.random.default_rng(0)
    amount = rng.uniform(0.3, 1, (2, 64, 64, 1))
    sample = (240 * 10 ** -(amount * STAINS[1])).astype(np.uint8)
    fitted = stain.fit("macenko", sample)
    assert np.isfinite(fitted.apply(sample[0]).astype(float)).all()


@pytest.mark.parametrize(
    ("kind", "off"), [("reinhard", 0), ("macenko", 1)]
)  # a product of matrices rounds by their sizes
def test_colours_that_are_remembered_are_normalised_as_others_are(kind, off):
    fitted = stain.fit(kind, _patches(OTHER_STAINS))
    remembered, tiles = fitted.for_many(), [*_patches(STAINS), *_patches(OTHER_STAINS)]
    for tile in (*tiles, tiles[0][:33, :57], *tiles):
        np.testing.assert_allclose(remembered.apply(tile).astype(int), fitted.apply(tile), rtol=0, atol=off)
        np.testing.assert_array_equal(remembered.apply(tile), remembered.apply(tile[:, ::-1])[:, ::-1])
    assert remembered is not fitted and remembered.note == fitted.note


def test_none_is_the_identity():
    tile, none = _patches(STAINS)[0], stain.fit("none", np.empty(0))
    assert none.apply(tile) is tile and none.for_many() is none


def test_white_stays_white_under_macenko_and_reinhard():
    white = np.full((8, 8, 3), 250, np.uint8)
    for kind in ("macenko", "reinhard"):
        assert stain.fit(kind, _patches(STAINS)).apply(white).min() > 225
