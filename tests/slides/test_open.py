"""One door for slides, and what does not pass it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histoloom.config import Tissue
from histoloom.data.pixel_box import PixelBox
from histoloom.slides import slide as reading
from histoloom.slides import tissue
from histoloom.slides.open import open_slide, slide_sha256
from histoloom.slides.slide import BadSlide
from histoloom.slides.tissue import detect_tissue, read_whole
from tests.build import make_scanned_part, make_slide, tissue_picture

WIDTH, HEIGHT = 420, 300


@pytest.mark.parametrize("name", ["s.svs", "s.tif", "s.tiff", "s.png", "s.jpg"])
def test_each_format_passes_one_door(tmp_path, name):
    picture = tissue_picture(WIDTH, HEIGHT, seed=3)
    path = make_slide(tmp_path / name, picture=picture)
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        read = slide.read(PixelBox(0, 0, WIDTH, HEIGHT), 1.0)
    assert read.shape == (HEIGHT, WIDTH, 3) and read.dtype == np.uint8
    difference = np.abs(read.astype(int) - picture)
    assert difference.mean() < 3 if name.endswith("jpg") else difference.max() == 0


@pytest.mark.parametrize(
    "in_file, stated, expected",
    [(0.5, None, (0.5, "file")), (0.5, 0.25, (0.25, "manifest")), (None, 2, (2, "manifest"))],
)
def test_the_manifest_s_scale_wins_over_the_file_s(tmp_path, in_file, stated, expected):
    path = make_slide(tmp_path / "s.svs", mpp=in_file, width=128, height=128)
    with open_slide(path, stated) as slide:
        assert (slide.mpp, slide.mpp_source) == (pytest.approx(expected[0], rel=1e-3), expected[1])


def _half(path):
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])


@pytest.mark.parametrize(
    "name, spoil, message",
    [
        ("s.svs", lambda path: path.write_bytes(b""), "empty"),
        ("s.svs", lambda path: path.write_text("not a slide"), "neither a slide"),
        ("s.png", lambda path: path.write_text("not a picture"), "neither a slide"),
        ("s.svs", _half, "s.svs"),
        ("s.tif", _half, "s.tif"),
        ("s.png", _half, "s.png"),
        ("s.jpg", _half, "s.jpg"),
    ],
    ids=["empty", "text as svs", "text as png", "half svs", "half tif", "half png", "half jpg"],
)
def test_a_spoilt_file_is_a_bad_slide_when_opened_or_read(tmp_path, name, spoil, message):
    path = make_slide(tmp_path / name, width=WIDTH, height=HEIGHT)
    spoil(path)
    with pytest.raises(BadSlide, match=message), open_slide(path, mpp=1.0) as slide:
        detect_tissue(slide, Tissue())
        slide.read(PixelBox(0, 0, WIDTH, HEIGHT), 1.0)


@pytest.mark.parametrize("name", ["s.svs", "s.png", "s.jpg"])
def test_no_scale_anywhere_is_a_bad_slide_that_says_where_to_state_it(tmp_path, name):
    path = make_slide(tmp_path / name, mpp=None, width=64, height=64)
    with pytest.raises(BadSlide, match=r"doesn't tell its scale.*'mpp' in slides.csv, or --slide-mpp"):
        open_slide(path)


@pytest.mark.parametrize("name", ["s.svs", "s.png"])
def test_a_slide_over_the_cap_is_refused(tmp_path, name):
    path = make_slide(tmp_path / name, width=200, height=100)
    open_slide(path, 1.0, max_gpx=20e-6).handle.close()
    with pytest.raises(BadSlide, match=r"200 x 100 px is over tile\.max_slide_gpx"):
        open_slide(path, 1.0, max_gpx=19e-6)


@pytest.mark.parametrize("alpha, expected", [(0, 255), (255, 100)])
def test_what_is_transparent_reads_as_white_glass(tmp_path, alpha, expected):
    Image.fromarray(np.full((64, 64, 4), (100, 100, 100, alpha), np.uint8)).save(tmp_path / "s.png")
    with open_slide(tmp_path / "s.png", 1.0) as slide:
        assert (slide.read(PixelBox(0, 0, 64, 64), 1.0) == expected).all()
        assert (slide.read(PixelBox(0, 0, 64, 64), 4.0) == expected).all()


def test_outside_the_slide_is_white_glass(tmp_path):
    path = make_slide(tmp_path / "s.svs", picture=np.full((64, 64, 3), 100, np.uint8))
    with open_slide(path) as slide:
        read = slide.read(PixelBox(32, 32, 64, 64), 1.0)
    assert (read[:32, :32] == 100).all() and (read[32:] == 255).all() and (read[:, 32:] == 255).all()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    with open_slide(make_slide(tmp_path_factory.mktemp("large") / "s.svs", width=700, height=600, levels=3)) as slide:
        yield slide


@given(
    downsample=st.sampled_from([1.0, 1.3, 2.0, 2.7, 3.999, 4.0, 6.25]),
    at=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    along=st.booleans(),
)
@settings(max_examples=25)
def test_two_neighbouring_boxes_are_one_box(large, downsample, at, along):
    x, y = (place * downsample for place in at)
    side = 48 * downsample
    whole = large.read(PixelBox(x, y, side, side), downsample).astype(int)
    half = (side / 2, side) if along else (side, side / 2)
    step = (side / 2, 0) if along else (0, side / 2)
    boxes = PixelBox(x, y, *half), PixelBox(x + step[0], y + step[1], *half)
    pieces = [large.read(box, downsample) for box in boxes]
    difference = np.abs(np.concatenate(pieces, axis=1 if along else 0) - whole)
    assert difference.mean() < 1.5 and np.percentile(difference, 99) < 20


@pytest.mark.parametrize("downsample", [1.0, 2.0, 3.0, 4.0, 5.5])
def test_levels_agree_on_what_a_place_looks_like(large, downsample):
    size = int(600 / downsample)
    read = large.read(PixelBox(0, 0, size * downsample, size * downsample), downsample).astype(float)
    expected = np.asarray(
        Image.fromarray(large.read(PixelBox(0, 0, 700, 600), 1.0)).resize(
            (size, size), Image.Resampling.BOX, box=(0, 0, size * downsample, size * downsample)
        ),
        float,
    )
    assert np.abs(read - expected).mean() < 3


def test_a_place_between_pixels_is_read_there(tmp_path):
    ramp = np.repeat(np.arange(0, 256, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    with open_slide(make_slide(tmp_path / "s.svs", picture=ramp, levels=1)) as slide:
        middle = slide.read(PixelBox(100.5, 10, 8, 8), 1.0)[4, 4, 0]
        coarse = slide.read(PixelBox(100, 10, 32, 32), 4.0)[4, 4, 0]
    assert middle == pytest.approx(104.5, abs=1)
    assert coarse == pytest.approx(100 + 4 * 4 + 1.5, abs=1)


def test_the_folder_that_a_mirax_slide_keeps_its_pixels_in_is_of_its_hash(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"head")
    (tmp_path / "s.svs").write_bytes(b"head")
    found = {}
    for pixels in (b"damaged", b"whole"):
        (tmp_path / "s/Data0000.dat").write_bytes(pixels)
        found[pixels] = [slide_sha256(tmp_path / name) for name in ("s.mrxs", "s.svs")]
    assert found[b"damaged"][0] != found[b"whole"][0] and found[b"damaged"][1] == found[b"whole"][1]


def _scaled(path, resolution, unit, **options):
    picture = np.full((64, 96, 3), 120, np.uint8)
    tifffile.imwrite(
        path, picture, photometric="rgb", resolution=resolution, resolutionunit=unit, metadata=None, **options
    )
    return path


@pytest.mark.parametrize("stated", [None, 0.5], ids=["file", "manifest"])
@pytest.mark.parametrize("layout", [{"tile": (32, 32)}, {"rowsperstrip": 64}], ids=["tiled", "striped"])
@pytest.mark.parametrize("unit, per_unit", [("CENTIMETER", 1e4), ("INCH", 25400.0), ("NONE", 3.0)])
def test_pixels_that_are_not_square_are_refused_whoever_states_the_scale(tmp_path, unit, per_unit, layout, stated):
    path = _scaled(tmp_path / "s.tif", (per_unit / 0.25, per_unit / 0.5), unit, **layout)
    with pytest.raises(BadSlide, match=r"s\.tif: its pixels aren't square \(0\.\d+.*[Rr]esample"):
        open_slide(path, stated)


@pytest.mark.parametrize("name", ["s.png", "s.jpg"])
def test_a_plain_picture_s_density_tells_whether_its_pixels_are_square(tmp_path, name):
    Image.new("RGB", (64, 64)).save(tmp_path / name, dpi=(300, 150))
    with pytest.raises(BadSlide, match=r"aren't square \(0\.5.* times as wide as high\)"):
        open_slide(tmp_path / name, 0.5)
    Image.new("RGB", (64, 64)).save(tmp_path / name, dpi=(300, 300))
    open_slide(tmp_path / name, 0.5).handle.close()


def test_a_rounded_scale_is_square_and_its_mean_is_taken(tmp_path):
    path = _scaled(tmp_path / "s.tif", (1e4 / 0.25, 1e4 / 0.252), "CENTIMETER", tile=(32, 32))
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.251, rel=1e-6)


def test_a_file_that_tells_its_objective_or_no_likely_scale_is_refused_with_what_it_tells(tmp_path):
    text = "Aperio Image Library v1\r\n96x64 [0,0 96x64] (32x32) Q=70|AppMag = 40"
    picture = np.full((64, 96, 3), 120, np.uint8)
    tifffile.imwrite(tmp_path / "s.svs", picture, photometric="rgb", tile=(32, 32), description=text, metadata=None)
    with pytest.raises(BadSlide, match=r"doesn't tell its scale.*an objective of 40x.*'mpp'"):
        open_slide(tmp_path / "s.svs")
    path = _scaled(tmp_path / "s.tif", (72, 72), "INCH", tile=(32, 32))
    with pytest.raises(BadSlide, match=r"doesn't tell its scale.*352\.778 µm/px.*'mpp'"):
        open_slide(path)


@given(
    downsample=st.sampled_from([1.0, 1.37, 2.0, 2.7, 4.0, 6.25, 13.9]),
    at=st.tuples(st.floats(0, 40), st.floats(0, 40)),
    band=st.sampled_from([2**12, 2**14, 2**16]),
)
@settings(max_examples=30, deadline=None)
def test_a_large_box_read_in_bands_has_the_bytes_of_one_read_at_once(single, downsample, at, band):
    box = PixelBox(*at, int(560 / downsample) * downsample, int(520 / downsample) * downsample)
    whole = single.read(box, downsample)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BAND_PX", band)
        assert np.array_equal(single.read(box, downsample), whole)


@pytest.fixture(scope="module", params=["s.svs", "s.png"])
def single(request, tmp_path_factory):
    path = make_slide(tmp_path_factory.mktemp("single") / request.param, width=700, height=600, levels=1)
    with open_slide(path, 1.0) as slide:
        yield slide


def test_a_wide_slide_is_seen_whole_in_lower_strips(single, monkeypatch):
    whole = read_whole(single, 4.0)
    monkeypatch.setattr(tissue, "_STRIP_LEVEL_PX", 700 * 30)
    assert np.array_equal(read_whole(single, 4.0), whole) and whole.shape == (150, 175, 3)


_MEASURED = """
import json, resource, sys
from pathlib import Path
from histoloom.data.pixel_box import PixelBox
from histoloom.slides.open import open_slide
from histoloom.slides.rasters import read_raster
from histoloom.slides.tissue import read_whole
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
before = peak()
with open_slide(Path(sys.argv[1]), 0.25) as slide:
    picture = read_whole(slide, 32.0)
    corner = slide.read(PixelBox(slide.width - 64, slide.height - 64, 64, 64), 1.0)
    size = slide.width, slide.height
mask = None if len(sys.argv) < 3 else read_raster(Path(sys.argv[2]), *size)
ids = mask and mask.nearest(PixelBox(0, 0, 9600, 9600), 32.0)
print(json.dumps([peak() - before, picture.mean(), corner.mean(), ids is not None and int(ids.max())]))
"""


_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("striped.tif", "one_strip.tif", "s.jpg")]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["tiled.tif", "s.png", *_SLOW])
def test_memory_does_not_grow_with_a_slide_without_levels(tmp_path, kind):
    """14,000 px a side: over what Pillow takes for an attack, 588 MB of RGB."""
    picture = pyvips.Image.black(14_000, 14_000).bandjoin([0, 0]).linear([1, 1, 1], [190, 120, 170])
    picture = picture.cast("uchar").copy(interpretation="srgb")
    options = {
        "tiled.tif": {"tile": True, "tile_width": 256, "tile_height": 256, "compression": "deflate"},
        "striped.tif": {"compression": "deflate"},
        "one_strip.tif": {"compression": "deflate", "tile_height": 14_000},
        "s.png": {"compression": 1, "keep": "none"},
        "s.jpg": {"Q": 95},
    }[kind]
    picture.write_to_file(str(tmp_path / kind), **options)
    mask = [str(tmp_path / "m.png")] if kind == "s.png" else []
    if mask:
        (pyvips.Image.black(14_000, 14_000) + 3).cast("uchar").write_to_file(mask[0], compression=1)
    command = [sys.executable, "-c", _MEASURED, str(tmp_path / kind), *mask]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    grown, mean, corner, most = json.loads(done.stdout)
    assert mean == pytest.approx(160, abs=1) and corner == pytest.approx(160, abs=1)
    assert most == (3 if mask else False)
    assert grown < 250, f"{grown:.0f} MB"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kind] + ["m.png"] * bool(mask))


def test_a_decoded_picture_that_the_disk_cannot_hold_is_refused(tmp_path, monkeypatch):
    path = make_slide(tmp_path / "s.png", width=100, height=80)
    monkeypatch.setattr("histoloom.slides.plain._DISC_BYTES", 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2000}))
    with pytest.raises(BadSlide, match=r"s\.png: .*TMPDIR"):
        open_slide(path, 1.0)


def test_bounds_are_what_the_file_says_was_scanned_else_all_of_it(tmp_path):
    picture = np.full((96, 64, 3), (200, 30, 30), np.uint8)
    with open_slide(make_scanned_part(tmp_path / "part.scn", picture, 128, 32, (256, 384))) as slide:
        assert (slide.size, slide.bounds) == ((256, 384), (128, 32, 64, 96))
        assert (slide.read(slide.bounds, 1.0) == picture).all()
    with open_slide(make_slide(tmp_path / "whole.tif", width=130, height=70)) as slide:
        assert slide.bounds == (0, 0, 130, 70)
