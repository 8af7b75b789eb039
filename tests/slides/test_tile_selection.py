"""Which tiles are taken, and why a slide has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histoloom.config import Tile
from histoloom.slides.artefacts import PADDING, PEN
from histoloom.slides.left_out import left_out, remarks, totals
from histoloom.slides.open import open_slide
from histoloom.slides.slide import Slide
from histoloom.slides.tile_selection import NoTiles, check_choice, choose_tiles
from histoloom.slides.tissue import TissueMap, detect_tissue
from tests.build import make_slide, tissue_picture

LABELS = {"source": "none", "classes": []}


def _plain(width: int, height: int) -> Slide:
    return Slide(Path("s.svs"), openslide.ImageSlide(Image.new("RGB", (width, height))), 1.0, "manifest")


def _config(**keys) -> Tile:
    return Tile.model_validate({"mpp": 1.0, "tile_px": 32, "stride_px": 32, "labels": LABELS} | keys)


def _covered(slide, corners, side: float) -> np.ndarray:
    covered = np.zeros((slide.height, slide.width), bool)
    for x, y in corners:
        covered[int(y) : int(y + side), int(x) : int(x + side)] = True
    return covered


@given(st.integers(32, 200), st.integers(32, 200), st.integers(8, 32), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_shifted_tiles_cover_all_tissue_of_a_slide_of_any_size(width, height, stride, seed):
    slide = _plain(width, height)
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    tissue = TissueMap(mask, 1.0, np.empty(0))
    config = _config(stride_px=stride, edge="shift", tissue={"min_fraction": 0.0})
    choice = choose_tiles(slide, tissue, config, 1.0)
    assert _covered(slide, choice.corners, 32)[mask].all() and choice.beyond == 0
    dropped = choose_tiles(slide, tissue, config.model_copy(update={"edge": "drop"}), 1.0)
    assert set(dropped.corners) <= set(choice.corners)
    missed = mask & ~_covered(slide, dropped.corners, 32)
    assert dropped.beyond == pytest.approx(missed.sum() / max(mask.sum(), 1))


@given(st.integers(64, 240), st.integers(64, 240), st.integers(1, 3), st.integers(1, 3), st.floats(0, 20))
@settings(max_examples=60, deadline=None)
def test_shifted_tiles_keep_off_the_gaps_between_regions(width, height, rows, cols, gap):
    slide = _plain(width, height)
    tissue = TissueMap(np.ones((height, width), bool), 1.0, np.empty(0))
    split = {"group": "region", "region": {"rows": rows, "cols": cols, "gap_um": gap}}
    choice = choose_tiles(slide, tissue, _config(edge="shift", split=split), 1.0)
    assert len(choice.corners) + choice.in_gaps == choice.of_grid
    regions = {(x, y): (int((y + 16) * rows / height), int((x + 16) * cols / width)) for x, y in choice.corners}
    for x, y in choice.corners:
        for other_x, other_y in choice.corners:
            if regions[x, y] != regions[other_x, other_y]:
                assert max(abs(x - other_x), abs(y - other_y)) - 32 >= gap - 1e-6


@pytest.mark.parametrize("downsample", [0.5, 0.72, 1.5, 2.0])
def test_no_two_shifted_tiles_have_one_place_at_level_0(downsample):
    slide, mpp = _plain(101, 99), 1.0
    tissue = TissueMap(np.ones((99, 101), bool), 1.0, np.empty(0))
    config = _config(mpp=downsample, upsample=True, edge="shift")
    corners = choose_tiles(slide, tissue, config, downsample * mpp).corners
    places = {(round(x * downsample), round(y * downsample)) for x, y in corners}
    assert len(places) == len(corners) > 0


def test_a_tile_with_much_padding_or_pen_is_left_out_and_counted():
    mask, artefacts = np.ones((64, 96), bool), np.zeros((64, 96), np.uint8)
    artefacts[:, :2], artefacts[:, 32:38], artefacts[:32, 64:70] = PEN, PADDING, PEN
    mask[artefacts > 0] = False
    tissue, slide = TissueMap(mask, 1.0, np.empty(0), artefacts), _plain(96, 64)
    choice = choose_tiles(slide, tissue, _config(), 1.0)
    assert choice.corners == [(0, 0), (0, 32), (64, 32)] and choice.with_artefacts == 3
    assert choose_tiles(slide, tissue, _config(tissue={"max_artefact": 0.2}), 1.0).with_artefacts == 0


def _patch(side: int) -> np.ndarray:
    picture = np.full((256, 256, 3), 245, np.uint8)
    picture[:side, :side] = tissue_picture(4 * side, 4 * side, 1)[side : 2 * side, side : 2 * side]
    return picture


def _inked() -> np.ndarray:
    picture = np.full((256, 256, 3), 245, np.uint8)
    picture[64:192, 64:192] = (20, 30, 160)
    return picture


REGIONS = {"split": {"group": "region", "region": {"rows": 8, "cols": 8, "gap_um": 4.0}}}
REASONS = {
    "small": (tissue_picture(256, 256)[:30], {}, "256 x 30 px at tile.mpp 1 are smaller than a tile of 32 px"),
    "glass": (np.full((256, 256, 3), 247, np.uint8), {}, "nothing but glass"),
    "black": (np.zeros((256, 256, 3), np.uint8), {}, r"padding \(100% of the slide\)"),
    "pen": (_inked(), {}, r"padding \(0% of the slide\) and pen \(25%\)"),
    "speck": (_patch(32), {}, "largest piece has 1024 µm², and tile.tissue.min_area_um2 is 2000"),
    "fraction": (
        _patch(64),
        {"tile_px": 128, "stride_px": 128},
        "The best has 0.25, and tile.tissue.min_fraction is 0.4",
    ),
    "gaps": (tissue_picture(256, 256), REGIONS, "tiles with tissue enough reach into the gaps between regions"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_slide_without_tiles_says_why(tmp_path, reason):
    picture, keys, words = REASONS[reason]
    config = _config(**keys)
    with open_slide(make_slide(tmp_path / "s.png", picture=picture), 1.0) as slide:
        tissue = detect_tissue(slide, config.tissue)
        with pytest.raises(NoTiles, match=words) as error:
            check_choice(slide, tissue, config, choose_tiles(slide, tissue, config, 1.0))
    assert error.value.problem.startswith("s.png: ") and str(error.value).endswith(error.value.remedy[1:])


def test_tiles_with_too_much_pen_are_a_reason_of_their_own():
    artefacts = np.zeros((64, 64), np.uint8)
    artefacts[:, ::4] = PEN
    tissue, slide, config = TissueMap(artefacts == 0, 1.0, np.empty(0), artefacts), _plain(64, 64), _config()
    with pytest.raises(NoTiles, match=r"all 4 tiles .* more padding or pen than tile.tissue.max_artefact \(0.1\)"):
        check_choice(slide, tissue, config, choose_tiles(slide, tissue, config, 1.0))


def test_what_is_left_out_is_added_up_by_area_and_said_where_it_is_much():
    slides = {}
    for name, side in (("small", 96), ("large", 200)):
        tissue = TissueMap(np.ones((side, side), bool), 1.0, np.empty(0))
        facts = left_out(tissue, [choose_tiles(_plain(side, side), tissue, _config(), 1.0)])
        size = {"width_px": side, "height_px": side, "mpp_level0": 1.0, "with_tissue": 9, "out_of_focus": 0}
        size |= {"train_with_pen": 0, "repaired": 0}
        slides[name] = size | facts
    rest = 1 - (192 / 200) ** 2
    assert [s["tissue_beyond_grid"] for s in slides.values()] == [0, pytest.approx(rest, abs=1e-4)]
    assert totals([*slides.values()])["tissue_beyond_grid"] == pytest.approx(rest * 200**2 / (200**2 + 96**2), abs=1e-4)
    assert remarks(slides) == [
        "Tissue at the right or lower border fills no tile and is left out; tile.edge: shift takes it. 1 slide(s): large (8%)."
    ]
    slides["small"] |= {"pen_fraction": 0.5, "tissue_fraction": 0.4, "out_of_focus": 3}
    said = " ".join(remarks(slides))
    assert "colours of pen" in said and "small (50%)" in said and "out of focus" in said and "small (33%)" in said
