"""Padding and pen are told from tissue; stains are not taken for either."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.data import immunohistochemistry

from histoloom.config import Tile, Tissue
from histoloom.slides.artefacts import PADDING, PEN
from histoloom.slides.left_out import remarks
from histoloom.slides.open import open_slide
from histoloom.slides.tile_selection import choose_tiles
from histoloom.slides.tissue import TissueMap, detect_tissue, find_tissue
from tests.build import OTHER_STAINS, STAINS, tissue_picture

MPP, DOWN, SIDE = 1.0, 8, 512
PENS = {
    "blue": (20, 30, 160), "royal blue": (40, 90, 210), "navy": (15, 15, 60), "green": (10, 110, 60), "red": (205, 25, 40),
    "black": (22, 22, 25), "violet": (110, 20, 170), "yellow": (240, 220, 40), "orange": (255, 130, 0), "teal": (0, 150, 170),
}  # fmt: skip
PADDINGS = {
    "black": (0, 0, 0), "nearly black": (24, 22, 25), "grey": (128, 128, 128), "dark grey": (60, 62, 60),
    "light blue": (150, 170, 220), "beige": (200, 180, 150), "blue": (0, 0, 255),
}  # fmt: skip


def _find(picture: np.ndarray, jpeg: int | None = None, **config) -> TissueMap:
    image = Image.fromarray(picture)
    if jpeg is not None:
        file = BytesIO()
        image.save(file, "jpeg", quality=jpeg)
        image = Image.open(file)
    return find_tissue(np.asarray(image.reduce(DOWN)), DOWN, MPP, Tissue(**config))


def _coarse(where: np.ndarray) -> np.ndarray:
    """Coarse pixels that lie wholly within a mask."""
    return where.reshape(SIDE // DOWN, DOWN, SIDE // DOWN, DOWN).all((1, 3))


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return tissue_picture(SIDE, SIDE, 3)


@pytest.mark.parametrize("jpeg", [None, 40])
@pytest.mark.parametrize("colour", PADDINGS.values(), ids=PADDINGS)
def test_padding_of_any_colour_is_no_tissue_and_changes_nothing_else(plain, colour, jpeg):
    alone, padded = _find(plain, jpeg), plain.copy()
    padded[:, 400:] = colour
    found = _find(padded, jpeg)
    assert not found.mask[:, 51:].any() and (found.mask[:, :47] == alone.mask[:, :47]).mean() > 0.995
    assert found.artefact_fraction(PADDING) + found.artefact_fraction(PEN) == pytest.approx(112 / SIDE, abs=0.03)


@pytest.mark.parametrize("side", ["left", "top", "frame"])
def test_padding_on_any_side(plain, side):
    padded = plain.copy()
    cut = {
        "left": [np.s_[:, :96]],
        "top": [np.s_[:96]],
        "frame": [np.s_[:, :64], np.s_[:, -64:], np.s_[:64], np.s_[-64:]],
    }
    where = np.zeros((SIDE, SIDE), bool)
    for box in cut[side]:
        where[box] = True
    padded[where] = 0
    found = _find(padded)
    assert not found.mask[_coarse(where)].any()
    assert (
        found.artefact_fraction(PADDING) == pytest.approx(where.mean(), abs=0.05) and found.artefact_fraction(PEN) == 0
    )


@pytest.mark.parametrize("ink", PENS.values(), ids=PENS)
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_pen_beside_tissue_is_no_tissue_and_does_not_hide_pale_tissue(ink, strength):
    picture = tissue_picture(SIDE, SIDE, 3, strength=strength)
    picture[:, 320:] = 245
    alone = _find(picture)
    picture[64:448, 384:448] = ink
    found = _find(picture)
    assert (found.mask == alone.mask).all() and alone.mask.mean() > 0.3
    assert (
        found.artefact_fraction(PEN) == pytest.approx(64 * 384 / SIDE**2, abs=0.01)
        and found.artefact_fraction(PADDING) == 0
    )


@pytest.mark.parametrize("ink", [name for name in PENS if name != "yellow"])  # which looks like a brown stain there
def test_pen_over_tissue_is_left_out_and_tissue_beside_it_is_not(plain, ink):
    alone, marked = _find(plain), plain.astype(float)
    stroke = np.zeros((SIDE, SIDE), bool)
    stroke[128:384, 208:272] = True
    marked[stroke] *= np.array(PENS[ink]) / 255
    found = _find(marked.astype(np.uint8))
    assert found.mask[_coarse(stroke)].mean() < 0.05
    far = np.ones_like(alone.mask)
    far[14:50, 24:36] = False
    assert (found.mask[far] == alone.mask[far]).mean() > 0.995  # the threshold moves a little


@given(st.integers(0, 9), st.sampled_from([STAINS, OTHER_STAINS]), st.floats(0.3, 2), st.sampled_from([2, 4, 8]))
@settings(max_examples=25, deadline=None)
def test_stained_tissue_is_neither_padding_nor_pen(seed, stains, strength, down):
    picture = tissue_picture(256, 256, seed, stains, strength)
    found = find_tissue(np.asarray(Image.fromarray(picture).reduce(down)), down, MPP, Tissue(mpp=down))
    assert found.artefact_fraction(PADDING) == found.artefact_fraction(PEN) == 0 and 0.6 < found.mask.mean() < 0.75


@pytest.mark.parametrize("strength", [1, 1.5, 2])
def test_brown_chromogen_is_tissue(strength):
    light = (immunohistochemistry().astype(np.float32) + 1) / 256
    picture = (256 * light**strength - 1).astype(np.uint8)
    found = find_tissue(np.asarray(Image.fromarray(picture).reduce(8)), 8, 0.5, Tissue(mpp=4))
    assert not found.is_artefact().any() and found.mask.mean() > 0.55


@pytest.mark.parametrize("slope", [0, 0.3, 0.7, 1])
def test_a_slanted_line_of_pen_is_found_as_a_whole(plain, slope):
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    line = (np.abs(x - SIDE / 2 - slope * (y - SIDE / 2)) < 18 * np.hypot(1, slope)) & (np.abs(y - SIDE / 2) < 150)
    marked = np.where(line[..., None], np.array(PENS["blue"], np.uint8), plain)
    found = find_tissue(np.asarray(Image.fromarray(marked).reduce(2)), 2, MPP, Tissue())
    pen, inside = found.artefacts == PEN, line.reshape(SIDE // 2, 2, SIDE // 2, 2).all((1, 3))
    assert pen[inside].mean() > 0.97 and (pen & ~inside).sum() < 0.15 * inside.sum()


def test_dust_on_glass_is_no_tissue(plain):
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    shade = 1 - 0.4 * np.exp(-((x - 470) ** 2 + (y - 60) ** 2) / 900)
    found = _find((plain * shade[..., None]).astype(np.uint8))
    assert (found.mask == _find(plain).mask).mean() > 0.999


def test_what_is_left_out_is_chosen(plain):
    marked = plain.copy()
    marked[64:448, 200:264], marked[:, 480:] = PENS["green"], 0
    for chosen, pen, padding in ((["padding"], False, True), (["pen"], True, False), ([], False, False)):
        found = _find(marked, leave_out=chosen)
        assert (found.artefact_fraction(PEN) > 0, found.artefact_fraction(PADDING) > 0) == (pen, padding)
        assert found.mask[30, 28] != pen and found.mask[30, 62] != padding


@pytest.mark.parametrize("colour", PADDINGS.values(), ids=PADDINGS)
@pytest.mark.parametrize("mpp, border", [(0.25, 512), (0.25, 500), (0.2527, 512), (0.24, 490)])
def test_tiles_that_only_touch_padding_are_taken(tmp_path, colour, mpp, border):
    picture = np.full((1536, 1536, 3), colour, np.uint8)
    noise = np.random.default_rng(0).integers(-20, 20, (1024 - border, 1024 - border, 3))
    picture[border:1024, border:1024] = np.array((190, 120, 170)) + noise  # tissue without gaps
    Image.fromarray(picture).save(tmp_path / "s.png", compress_level=1)
    config = Tile.model_validate({"mpp": mpp, "labels": {"source": "none", "classes": []}})
    with open_slide(tmp_path / "s.png", mpp) as slide:
        tissue = detect_tissue(slide, config.tissue)
        choice = choose_tiles(slide, tissue, config, mpp)
    assert sorted(choice.corners) == [(512, 512), (512, 768), (768, 512), (768, 768)]
    assert tissue.artefact_fraction(PADDING) + tissue.artefact_fraction(PEN) == pytest.approx(
        1 - ((1024 - border) / 1536) ** 2, abs=0.03
    )


def test_much_padding_is_said_with_what_keeps_it():
    slide = {"tissue_beyond_grid": 0, "pen_fraction": 0, "padding_fraction": 0.6, "tissue_fraction": 0.2}
    (line,) = remarks({"a": slide, "b": slide | {"padding_fraction": 0.1}})
    assert "as padding" in line and "1 slide(s): a (60%)" in line and "leave_out: [pen]" in line
