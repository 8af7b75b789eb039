"""What params state of a slide to be woven: what is read of it, which groups it draws on, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from histoloom.canvas import decode, from_image, torus
from histoloom.canvas import write_inputs as stated
from histoloom.canvas.decode import HALO, decode_rows
from histoloom.canvas.slide_mask import read_mask
from histoloom.canvas.write_inputs import check_slides
from histoloom.config import Params
from histoloom.config.yaml_reader import check_section
from histoloom.data.nuclei_layout import outlines
from histoloom.data.pixel_box import PixelBox
from histoloom.errors import Fault, HistoloomError, Note
from histoloom.sampling.weaver import lay_windows
from histoloom.slides.open import open_slide
from tests.build import box_ring, feature, write_geojson
from tests.canvas.stating import FACTOR, SPLITS, WITH_EDGES, params_of, target_of, write


@pytest.mark.parametrize(
    "slide, messages",
    [
        ({"mask": "none.json"}, ["the file is missing"]),
        ({"mask": "other.json"}, ["unknown label 'middle'"]),
        ({"mask": "narrow.png"}, ["has 100 x 128 px and 1 channel(s), its slide 160 x 128 px"]),
        ({"mask": "three.png"}, ["it holds class id 3", "ids are 1 to 2"]),
        ({"source_groups": ["v"]}, ["'v' is held out (val), and purpose is augment"]),
        ({"source_groups": ["nobody"]}, ["'nobody' is no split group"]),
        ({"condition_grid": "none.csv"}, ["the file is missing"]),
        ({"condition_grid": "hole.csv"}, ["2 rows are no whole grid of 4 points"]),
        ({"condition_grid": "typo.csv"}, ["row 1, column 'colour'"]),
        ({"condition_grid": "old.csv"}, ["row 2, column 'number.age': '7,5' has a decimal comma"]),
        ({"condition_grid": "wrong.csv"}, ["row 2, column 'col'", "unknown label 'lefft'"]),
    ],
)
def test_faults_of_a_slide_are_said_with_their_place(here, slide, messages):
    text = "\n".join(str(fault) for fault in check_slides(params_of(slide), SPLITS))
    assert all(message in text for message in messages), text


def test_a_slide_without_faults_has_none(here):
    stated = {"mask": "halves.json", "condition_grid": "field.csv", "source_groups": ["a"]}
    assert check_slides(params_of(stated), SPLITS) == []
    assert check_slides(params_of({"source_groups": ["v"], "purpose": "evaluate"}), SPLITS) == []


@pytest.mark.parametrize("scale, kind", [(1, None), (1.04, Note), (2, Fault)])
def test_a_mask_beyond_its_canvas_is_counted_and_much_is_a_fault(here, scale, kind):
    write_geojson(
        "scaled.json", feature("left", box_ring(0, 0, 160 * scale, 128)), feature("left", box_ring(0, 0, 9, 9))
    )
    found = check_slides(params_of({"mask": "scaled.json"}), SPLITS)
    assert [type(each) for each in found] == ([kind] if kind else [])
    if kind:
        assert "lie beyond x 0 to 160, y 0 to 128 px" in str(found[0])


def test_what_a_mask_or_holes_leave_out_is_said_and_holes_beyond_what_is_kept_are_a_fault(here):
    write_geojson("point.json", feature("left", box_ring(0, 0, 160, 128)), feature("left", [(3, 4)], kind="Point"))
    image = {"slide_id": "x", "width_px": 64, "height_px": 64, "keep": True, "holes": "point.json"}
    note, fault = check_slides(params_of({"mask": "point.json", "image": image}), SPLITS, ["x"])
    assert isinstance(note, Note) and "left out are 1 point(s)" in note.fact
    assert isinstance(fault, Fault) and "lie beyond x 0 to 64, y 0 to 64 px" in fault.problem


def test_outlines_need_the_nuclei_of_a_raster(here):
    Image.fromarray(np.ones((128, 160), np.uint8)).save("mask.png")
    slide = params_of({"mask": "mask.png"}).sample_slides.slides[0]
    with pytest.raises(HistoloomError, match="name a raster of nuclei in 'instances'"):
        read_mask(slide, params_of({}), edges=True)


@pytest.mark.parametrize(
    "slide, settings, message",
    [
        ({"mask": "m.png", "outside": None}, {}, "outside: glass .for masks of regions of tissue. or outside: tissue"),
        ({}, {"scheduler": "heun"}, "'euler', 'dpmsolver..' or 'unipc'"),
        ({"rna": "x"}, {}, "'rna' is not among train_denoiser.conditions"),
        ({"label": "middle"}, {}, "'middle' is none of tile.labels.classes"),
        ({"image": {"slide_id": "x", "width_px": 9, "height_px": 9, "holes": "h.json"}}, {}, "set keep: true"),
        ({"image": {"slide_id": "x", "width_px": 9, "height_px": 9}}, {}, "would change nothing: set keep: true"),
        ({"image": {"slide_id": "x", "width_px": 9, "height_px": 9, "strength": 0.5}}, {}, "has nothing to begin from"),
        ({"image": {"slide_id": "x", "width_px": 9, "height_px": 9, "x_px": 5, "keep": True}}, {}, "multiples of 4 px"),
    ],
)
def test_params_that_cannot_be_meant_are_refused(slide, settings, message):
    with pytest.raises(ValidationError, match=message):
        params_of(slide, **settings)


@pytest.mark.parametrize(
    "slide, settings, message",
    [
        ({"width_px": 48}, {}, "is 48 x 128 px, smaller than a window of 64 px"),
        ({}, {"halo_latent_px": 5}, "more than a quarter of the window"),
    ],
)
def test_a_canvas_that_cannot_be_laid_out_is_refused(slide, settings, message):
    params = params_of(slide, **settings)
    with pytest.raises(HistoloomError, match=message):
        lay_windows(params.sample_slides.slides[0], params.sample_slides, FACTOR, 16)


def test_a_mask_says_what_is_made_and_what_it_shows(here):
    found = write({"mask": "halves.json", "source_groups": ["a"]})
    free, shown = found.arrays["free"][:], found.arrays["map"][:]
    assert free[:16].all() and not free[20:36].any()
    assert (shown[1, :15, :19] == 1).all() and (shown[2, :15, 21:39] == 1).all() and (shown[0, 20:32, :40] == 1).all()
    assert found.source_groups == ["a"]


def test_where_tissue_lies_outside_the_mask_all_of_the_slide_is_made(here):
    found = write({"mask": "halves.json", "outside": "tissue"})
    assert found.arrays["free"][:].all()


@pytest.mark.parametrize("band", [16, 256])
def test_a_slide_goes_on_beyond_its_borders_as_its_mirror_image(here, monkeypatch, band):
    """Its mask, the glass around it and the image that it begins from, so that no tissue draws an edge to a border."""
    write_geojson("nuclei.json", feature("left", box_ring(120, 40, 160, 80)), feature("right", box_ring(0, 0, 20, 12)))
    region = {"slide_id": "real", "width_px": 160, "height_px": 128, "strength": 0.5}
    monkeypatch.setattr(stated, "_BAND", band)
    monkeypatch.setattr(from_image, "_BAND", band)
    found = write({"mask": "nuclei.json", "image": region}, encoders=WITH_EDGES)
    for name in ("map", "free", "image"):
        whole = found.arrays[name][:]
        assert (whole[..., 32:36, :] == whole[..., 28:32, :][..., ::-1, :]).all()
        assert (whole[..., 44:, :] == whole[..., :4, :][..., ::-1, :]).all()
        assert (whole[..., 40:44] == whole[..., 36:40][..., ::-1]).all()
        assert (whole[..., 52:] == whole[..., :4][..., ::-1]).all()
    assert found.arrays["free"][10:20, 30:48].all() and not found.arrays["free"][24:40, 10:20].any()


@pytest.mark.parametrize("keep", [True, False])
def test_an_image_fills_the_last_latent_pixels_of_its_slide(here, keep):
    """Of a size that isn't whole latent pixels: no glass is left at the border, and what is kept needs no making."""
    region = {"slide_id": "real", "width_px": 161, "height_px": 130} | ({"keep": True} if keep else {"strength": 0.5})
    found = write({"width_px": 161, "height_px": 130, "image": region}, (52, 60))
    glass = np.array(found.arrays.attrs["background"], np.float32)[:, None, None]
    assert (found.arrays["image"][:] != glass).any(0).all()
    assert (found.arrays["free"][:] == (not keep)).all()


def test_a_nucleus_that_a_border_cuts_has_no_outline_there(here):
    ids = np.zeros((128, 160), np.int32)
    ids[50:60, 150:] = 7
    Image.fromarray((ids > 0).astype(np.uint8)).save("mask.png")
    Image.fromarray(ids).save("nuclei.tif")
    mask = read_mask(
        params_of({"mask": "mask.png", "instances": "nuclei.tif"}).sample_slides.slides[0], params_of({}), edges=True
    )
    canvas = (192, 224)
    edge = outlines(mask.on_canvas(mask.numbers, 0, 192, canvas))
    assert not edge[51:59, 151:169].any() and edge[50:60, 150].all() and edge[50:60, 169].all()


@given(length=st.integers(1, 40), padding=st.integers(0, 40))
def test_what_lies_beyond_a_slide_is_nearest_to_what_it_mirrors(length, padding):
    place = torus.mirrored(length, length + padding)
    assert (place[:length] == np.arange(length)).all() and place.min() >= 0 and place.max() < length
    for beyond in range(min(length, padding // 2)):
        assert place[length + beyond] == length - 1 - beyond and place[-1 - beyond] == beyond


def test_a_region_of_a_real_slide_is_kept_but_for_its_holes(here):
    write_geojson("hole.json", feature(None, box_ring(40, 40, 80, 80)))
    image = {
        "slide_id": "real",
        "width_px": 96,
        "height_px": 96,
        "x_px": 16,
        "y_px": 16,
        "keep": True,
        "holes": "hole.json",
    }
    found = write({"image": image})
    free = found.arrays["free"][:].astype(bool)
    assert free[10:20, 10:20].all() and not free[4:9, 4:28].any() and free[:4].all() and free[:, 28:40].all()
    assert found.source_groups == ["a"]
    latents, glass = found.arrays["image"][:], np.array(found.arrays.attrs["background"])[:, None]
    assert np.allclose(latents[:, 28:32, 28:40].reshape(4, -1), glass) and latents[:, 6:26, 6:26].std() > 0.01


@pytest.mark.parametrize(
    ("x", "y", "width", "height"), [(24, 40, 112, 40), (40, 24, 40, 112), (0, 8, 136, 72), (72, 96, 128, 104)]
)
def test_a_region_of_any_shape_begins_as_its_slide_is(here, monkeypatch, x, y, width, height):
    """Encoded piece by piece, with what lies around, as the slide would be as a whole; the slide's border repeated."""
    monkeypatch.setattr(from_image, "_ENCODE_PX", 64)
    region = {"x_level0_px": x, "y_level0_px": y, "width_px": width, "height_px": height}
    found = write({"width_px": 200, "height_px": 200, "image": {"slide_id": "real", "keep": True, **region}}, (64, 64))
    with open_slide(Path("real.tif"), None) as slide:
        whole = slide.read(PixelBox(0, 0, 200, 200), 1.0)
    around = target_of().encode({"image": np.pad(whole, ((64, 64), (64, 64), (0, 0)), mode="edge")[None]})[0].numpy()
    rows, columns = (slice((64 + start) // 4, (64 + start + side) // 4) for start, side in ((y, height), (x, width)))
    latents = found.arrays["image"][:, : height // 4, : width // 4]
    np.testing.assert_allclose(latents, around[:, rows, columns], atol=1e-4)


def test_a_region_beyond_its_slide_is_refused(here):
    with pytest.raises(HistoloomError, match="reaches beyond slide 'real', which is 200 x 200 px"):
        write({"image": {"slide_id": "real", "x_level0_px": 150, "width_px": 96, "height_px": 96, "keep": True}})


def test_a_slide_that_is_not_there_cannot_be_begun_from(here):
    with pytest.raises(HistoloomError, match="'gone' is no slide of"):
        write({"image": {"slide_id": "gone", "width_px": 96, "height_px": 96, "keep": True}})


@pytest.mark.parametrize("arch", ["tiny", "kl"])
def test_tiles_of_a_canvas_decode_as_the_whole_does(arch, monkeypatch):
    """But for rounding, where the decoder does not normalise; else nearly, and blended."""
    monkeypatch.setattr(decode, "TILE", 24)
    target, height, width = target_of(arch), 40, 56
    latents = torch.randn(4, height, width, generator=torch.Generator().manual_seed(0)).numpy()
    smooth = latents if arch == "tiny" else 0.3 * latents
    out = np.zeros((height * FACTOR, width * FACTOR, 3), np.uint8)

    def read(box: PixelBox[int]) -> np.ndarray:
        return smooth[:, np.arange(box.top, box.bottom) % height][:, :, np.arange(box.left, box.right) % width]

    def into(pixels: np.ndarray, *, left: int, top: int) -> None:
        out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    decode_rows(read, target, slice(0, height), width, into)
    whole = target.decode(torch.from_numpy(smooth)[None])["image"][0]
    inside = np.s_[HALO * FACTOR : -HALO * FACTOR, HALO * FACTOR : -HALO * FACTOR]
    assert target.reach is None if arch == "kl" else 4 < target.reach <= 10
    apart = np.abs(out.astype(int) - whole)[inside]
    assert apart.max() <= 1 if arch == "tiny" else apart.mean() < 3


@pytest.mark.parametrize(
    "section, old, new",
    [
        ({"slides": [{"name": "s", "width_px": 64, "height_px": 64, "field": "f.csv"}]}, "field", "condition_grid"),
        ({"slides": [{"name": "s", "width_px": 64, "height_px": 64, "lent_by": ["a"]}]}, "lent_by", "source_groups"),
        ({"cover": "random"}, "cover", "window_layout"),
    ],
)
def test_a_key_that_was_renamed_is_told_its_new_name(section, old, new):
    found = check_section({"sample_slides": section}, Params, Path("params.yaml"))[1]
    fault = next(each for each in found if each.where.endswith(f".{old}"))
    assert fault.remedy == f"it is called '{new}' now."
