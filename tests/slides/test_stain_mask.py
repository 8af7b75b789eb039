"""Masks told by stain: nuclei, clear space, and what boxes of a slide have to agree on."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histoloom.cli.main import cli
from histoloom.config.tile import Masks
from histoloom.data.pixel_box import PixelBox
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.slides.open import open_slide
from histoloom.slides.segment import _numbered, segment_slide
from histoloom.slides.stain_mask import CLEAR, NUCLEUS, fit_stain_mask
from tests.build import STAINS, make_scanned_part, make_slide, make_study, tissue_picture
from tests.stages import run, study_of

BOTH = (NUCLEUS, CLEAR)
MPP = 0.5


def _picture(centres, radius: float = 7.0, side: int = 160, hole=None) -> np.ndarray:
    """Round nuclei on pink ground; `hole` (y, x, radius) is clear."""
    y, x = np.mgrid[:side, :side]
    nuclei = np.zeros((side, side), bool)
    for cy, cx in centres:
        nuclei |= np.hypot(y - cy, x - cx) < radius
    stained = np.stack([0.05 + 0.9 * nuclei, np.where(nuclei, 0.1, 0.35)], -1)
    if hole is not None:
        stained[np.hypot(y - hole[0], x - hole[1]) < hole[2]] = 0
    stained[:, -12:] = 0
    return (240 * 10 ** -(stained @ STAINS)).astype(np.uint8)


def test_nuclei_that_touch_are_parted_and_clear_space_is_no_nucleus():
    centres = [(30, 30), (30, 42), (90, 40), (60, 100), (120, 90)]
    picture = _picture(centres, hole=(120, 40, 16))
    found = fit_stain_mask(BOTH, picture[None], MPP).segment(picture, MPP)
    inner = found.nuclei[:, :140]
    assert len(np.unique(inner)) - 1 == len(centres)
    numbers = [inner[y, x] for y, x in centres]
    assert 0 not in numbers and len(set(numbers)) == len(centres)
    assert found.mask[120, 40] == 2 and found.mask[75, 75] == 0 and found.mask[60, 100] == 1
    true = np.pi * 7**2 * len(centres)
    assert (found.mask == 1).sum() == pytest.approx(true, rel=0.35)


def test_a_ring_of_nuclei_keeps_its_lumen():
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    picture = _picture([(80 + 28 * np.sin(a), 70 + 28 * np.cos(a)) for a in angles], hole=(80, 70, 19))
    found = fit_stain_mask(BOTH, picture[None], MPP).segment(picture, MPP)
    assert found.mask[80, 70] == 2


def test_blank_glass_has_no_nucleus():
    blank = np.full((2, 64, 64, 3), 242, np.uint8)
    found = fit_stain_mask((NUCLEUS,), blank, MPP).segment(blank[0], MPP)
    assert not found.nuclei.any() and not found.mask.any()


def test_words_follow_what_is_there():
    sparse, dense = _picture([(40, 40)]), _picture([(y, x) for y in range(12, 150, 18) for x in range(12, 140, 18)])
    fitted = fit_stain_mask(BOTH, np.stack([sparse, dense]), MPP)
    few, many = (fitted.words(fitted.segment(p, MPP)) for p in (sparse, dense))
    assert few.startswith("few nuclei") and many.startswith("crowded nuclei")
    clear = fitted.segment(_picture([(40, 40)], hole=(90, 80, 55)), MPP)
    assert "much open space" in fitted.words(clear)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 99))
def test_a_box_with_its_margin_agrees_with_the_whole(y, x, seed):
    """What a box shows doesn't depend on where the boxes' borders lie."""
    rng = np.random.default_rng(seed)
    picture = _picture(rng.integers(10, 250, (60, 2)), side=260)
    fitted, margin = fit_stain_mask(BOTH, picture[None], MPP), 48
    whole = fitted.segment(picture, MPP)
    y, x = y + margin, x + margin
    part = fitted.segment(picture[y - margin : y + 96 + margin, x - margin : x + 96 + margin], MPP)
    inner = np.s_[margin : margin + 96, margin : margin + 96]
    agree = part.mask[inner] == whole.mask[y : y + 96, x : x + 96]
    assert agree.mean() > 0.995  # the smoothing's tails, beyond four sigmas, are cut


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="nucleus and clear"):
        Masks(source="stain", classes=("stroma",))


def test_a_study_without_annotations_gets_masks_and_words(folder):
    rows = []
    for name in ("a", "b"):
        make_slide(folder / f"data/slides/{name}.svs", width=384, height=384, seed=ord(name))
        rows.append({"slide_id": name, "path": f"{name}.svs", "patient_id": name, "label": "tumour"})
    tile = {
        "masks": {"source": "stain", "classes": list(BOTH)},
        "caption": "H&E of {label}, {measured}",
    }
    params = make_study(".", rows, tile)
    run("tile", study_of(params))
    store = TileStore("data/tiles")
    rows = store.rows()
    mask, instance, edge = (store.read(rows, name) for name in ("mask", "instance", "edge"))
    assert set(np.unique(mask)) <= {0, 1, 2} and (mask == 1).any()
    assert ((mask == 1) == (instance > 0)).all() and (edge[instance == 0] == 0).all()
    dark = store.read(rows).mean(3)
    assert dark[mask == 1].mean() < dark[mask == 0].mean()
    assert rows["caption"].str.contains("nuclei").all()
    assert rows["caption"].nunique() > 1


def test_a_slides_masks_become_files_that_a_woven_slide_takes(tmp_path):
    path = make_slide(tmp_path / "s.svs", width=1400, height=1200, mpp=0.5)
    found = segment_slide(path, BOTH, 0.5, PixelBox(100, 50, 1200, 1100), tmp_path / "out")
    mask, numbers = (np.asarray(Image.open(tmp_path / "out" / name)) for name in ("mask.png", "instances.png"))
    assert mask.shape == numbers.shape == (1100, 1200) and (found.width, found.height) == (1200, 1100)
    assert ((mask == 1) == (numbers > 0)).all() and len(np.unique(numbers)) - 1 == found.nuclei > 100
    with open_slide(path) as slide:
        grey = slide.read(PixelBox(100, 50, 1200, 1100), 1.0).mean(2)
    assert grey[mask == 1].mean() < grey[mask == 0].mean() < grey[mask == 2].mean()


def test_a_nucleus_across_two_bands_is_one():
    above, below = np.zeros((4, 12), np.int32), np.zeros((4, 12), np.int32)
    above[2:, 1:4], above[3, 8:10] = 1, 2
    below[:2, 1:4], below[0, 9:11], below[2:, 5:7] = 7, 3, 4
    first, last = _numbered(above, None, 0)
    second, last = _numbered(below, first[-1], last)
    assert last == 5 and (second[:2, 1:4] == 1).all() and (second[0, 9:11] == 2).all() and set(second[2:, 5]) == {4}


def test_a_slide_without_tissue_says_so(tmp_path):
    path = make_slide(tmp_path / "s.svs", picture=np.full((400, 400, 3), 243, np.uint8))
    with pytest.raises(HistoloomError, match="no tissue"):
        segment_slide(path, BOTH, 1.0, None, tmp_path / "out")


def test_without_a_box_all_that_was_scanned_is_segmented_as_a_raster_that_lies_there(tmp_path):
    picture = tissue_picture(512, 384)
    path = make_scanned_part(tmp_path / "s.scn", picture, 64, 128, (1024, 768))
    found = segment_slide(path, BOTH, 0.5, None, tmp_path / "out")
    assert (found.width, found.height) == (512, 384)
    mask = np.asarray(Image.open(tmp_path / "out/mask.png"))
    grey = picture.mean(2)
    assert grey[mask == 1].mean() + 30 < grey[mask == 0].mean()


def test_a_box_beyond_the_slide_is_refused(tmp_path):
    path = make_slide(tmp_path / "s.svs", width=400, height=400)
    with pytest.raises(HistoloomError, match="reaches beyond it"):
        segment_slide(path, BOTH, 1.0, PixelBox(300, 0, 200, 200), tmp_path / "out")


def test_a_drawing_of_two_colours_has_no_nucleus():
    drawing = np.full((1, 64, 64, 3), 242, np.uint8)
    drawing[:, 20:40] = (90, 60, 130)
    fit_stain_mask((NUCLEUS,), drawing, 30.0).segment(drawing[0], 30.0)


def test_the_command_says_what_it_found(tmp_path):
    path = make_slide(tmp_path / "s.svs", width=600, height=600, mpp=0.5)
    done = CliRunner().invoke(cli, ["segment", str(path), str(tmp_path / "out"), "--mpp", "1.0"])
    assert done.exit_code == 0 and "300 x 300 px" in done.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"mask.png", "instances.png", "overlay.jpg"}
