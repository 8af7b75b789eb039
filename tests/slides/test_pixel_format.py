"""What can't be read exactly is refused with its reason, as a slide and as a mask; what can is read to the byte."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from histoloom.data.manifest import read_manifest
from histoloom.data.pixel_box import PixelBox
from histoloom.data.study_folder import Study
from histoloom.slides.job import SlideJob
from histoloom.slides.open import open_slide
from histoloom.slides.pixel_format import WHOLE_PX, PixelFormat, fault_of_ids, fault_of_size
from histoloom.slides.slide import BadSlide
from histoloom.slides.tiler import cut_slide
from histoloom.studies.checks.validate import check_study
from tests.build import make_slide, make_study, tissue_picture

WIDTH, HEIGHT = 210, 150
RGB = tissue_picture(WIDTH, HEIGHT, seed=3)
GREY = RGB[..., 0].copy()
TILED, STRIPED = {"tile": (64, 64)}, {"rowsperstrip": 40}


def _tiff(path, samples, **options):
    tifffile.imwrite(path, samples, metadata=None, **{"photometric": "rgb", **options})
    return path


def _read(path):
    with open_slide(path, 0.5) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        return slide.read(PixelBox(0, 0, WIDTH, HEIGHT), 1.0)


def _with_alpha(value):
    return np.dstack([RGB, np.full(GREY.shape, value, np.uint8)])


def _palette_picture():
    picture = Image.fromarray(GREY // 16).convert("P")
    picture.putdata((GREY // 16).ravel())
    picture.putpalette(list(range(48)))
    return picture


SAMPLES = {
    "16-bit RGB": (RGB.astype(np.uint16) * 257, {}, "unsigned, of 16 bits"),
    "16-bit grey": (GREY.astype(np.uint16) * 200, {"photometric": "minisblack"}, "unsigned, of 16 bits"),
    "float": (RGB.astype(np.float32) / 255, {}, "float, of 32 bits"),
    "signed": (RGB.astype(np.int8), {}, "signed, of 8 bits"),
    "CMYK": (_with_alpha(7), {"photometric": "separated"}, "colours are CMYK"),
    "CIELAB": (RGB, {"photometric": "cielab"}, "colours are CIELAB"),
    "YCbCr as it is": (
        RGB,
        {"photometric": "ycbcr", "subsampling": (1, 1), "compression": "zlib"},
        "colours are YCbCr",
    ),
    "three channels": (RGB, {"photometric": "minisblack", "planarconfig": "contig"}, r"2 more channel\(s\)"),
    "five channels": (np.dstack([RGB, RGB[..., :2]]), {}, r"2 more channel\(s\)"),
    "no alpha": (_with_alpha(7), {"extrasamples": ["unspecified"]}, r"1 more channel\(s\)"),
    "turned": (RGB, {"extratags": [(274, "H", 1, 3, True)]}, "Orientation tag.*upright"),
    "stack": (np.stack([RGB, RGB]), {}, "holds 2 pictures"),
    "half transparent": (_with_alpha(128), {"extrasamples": ["unassalpha"]}, "half transparent"),
    "16-bit palette": (
        GREY,
        {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 85},
        "palette samples",
    ),
}


@pytest.mark.parametrize("layout", [TILED, STRIPED], ids=["tiled", "striped"])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_tiff_that_is_not_8_bit_rgb_is_refused_with_its_reason(tmp_path, name, layout):
    samples, options, reason = SAMPLES[name]
    path = _tiff(tmp_path / "s.tif", samples, **options, **layout)
    with pytest.raises(BadSlide, match=rf"s\.tif: .*{reason}"):
        open_slide(path, 0.5)


def _exif(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


PLAIN = {
    "turned.jpg": (RGB, {"exif": _exif(6)}, r"Orientation tag.*\(6\)"),
    "turned.png": (RGB, {"exif": _exif(3)}, r"Orientation tag.*\(3\)"),
    "turned.webp": (RGB, {"exif": _exif(8)}, r"Orientation tag.*\(8\)"),
    "grey.png": (GREY.astype(np.uint16) * 200, {}, "unsigned, of 16 bits"),
    "bits.png": (GREY > 100, {}, "unsigned, of 1 bits"),
    "alpha.png": (_with_alpha(254), {}, "half transparent"),
    "alpha.webp": (_with_alpha(128), {"lossless": True}, "half transparent"),
    "moving.png": (RGB, {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}, "holds 2 pictures"),
    "moving.webp": (RGB, {"save_all": True, "append_images": [Image.fromarray(RGB[::-1])]}, "holds 2 pictures"),
    "moving.gif": (RGB, {}, "it is GIF"),
    "s.bmp": (RGB, {}, "it is BMP.*WebP"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_picture_that_is_not_8_bit_rgb_is_refused_with_its_reason(tmp_path, name):
    samples, options, reason = PLAIN[name]
    Image.fromarray(samples).save(tmp_path / name, **options)
    with pytest.raises(BadSlide, match=rf"{name}: .*{reason}"):
        open_slide(tmp_path / name, 0.5)


def test_a_cmyk_jpeg_and_a_16_bit_rgb_png_are_refused(tmp_path):
    import imagecodecs

    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "s.jpg")
    with pytest.raises(BadSlide, match="colours are CMYK"):
        open_slide(tmp_path / "s.jpg", 0.5)
    (tmp_path / "s.png").write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) * 257))
    with pytest.raises(BadSlide, match="RGB samples are unsigned, of 16 bits"):
        open_slide(tmp_path / "s.png", 0.5)


EXACT = {
    "deflate": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "raw": {},
    "zstd": {"compression": "zstd"},
    "lzma": {"compression": "lzma"},
    "planar": {"planarconfig": "separate"},
    "planar zstd": {"planarconfig": "separate", "compression": "zstd"},
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
}


@pytest.mark.parametrize("layout", [TILED, STRIPED, {"rowsperstrip": HEIGHT}], ids=["tiled", "striped", "one strip"])
@pytest.mark.parametrize("name", EXACT)
def test_each_way_to_store_8_bit_rgb_is_read_to_the_byte(tmp_path, name, layout):
    options = EXACT[name]
    samples = np.moveaxis(RGB, -1, 0).copy() if "planarconfig" in options else RGB
    assert np.array_equal(_read(_tiff(tmp_path / "s.tif", samples, **options, **layout)), RGB)


@pytest.mark.parametrize("layout", [TILED, STRIPED], ids=["tiled", "striped"])
def test_grey_and_palettes_of_8_bits_and_alpha_that_says_nothing_are_exact(tmp_path, layout):
    grey = np.repeat(GREY[..., None], 3, -1)
    assert np.array_equal(_read(_tiff(tmp_path / "g.tif", GREY, photometric="minisblack", **layout)), grey)
    assert np.array_equal(_read(_tiff(tmp_path / "w.tif", GREY, photometric="miniswhite", **layout)), 255 - grey)
    colours = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
    table = {"photometric": "palette", "colormap": colours * 257}
    assert np.array_equal(_read(_tiff(tmp_path / "p.tif", GREY, **table, **layout)), colours.T[GREY])
    opaque = _tiff(tmp_path / "a.tif", _with_alpha(255), extrasamples=["unassalpha"], **layout)
    assert np.array_equal(_read(opaque), RGB)


@pytest.mark.parametrize("bits", [4, 8])
def test_plain_grey_palette_and_opaque_pictures_are_exact(tmp_path, bits):
    Image.fromarray(GREY).save(tmp_path / "g.png")
    assert np.array_equal(_read(tmp_path / "g.png"), np.repeat(GREY[..., None], 3, -1))
    _palette_picture().save(tmp_path / "p.png", bits=bits)
    assert np.array_equal(_read(tmp_path / "p.png"), np.arange(48, dtype=np.uint8).reshape(16, 3)[GREY // 16])
    Image.fromarray(_with_alpha(255)).save(tmp_path / "a.png")
    assert np.array_equal(_read(tmp_path / "a.png"), RGB)
    Image.fromarray(RGB).save(tmp_path / "w.webp", lossless=True)
    assert np.array_equal(_read(tmp_path / "w.webp"), RGB)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path, subsampling, progressive):
    Image.fromarray(RGB).save(tmp_path / "s.jpg", quality=80, subsampling=subsampling, progressive=progressive)
    assert np.array_equal(_read(tmp_path / "s.jpg"), np.asarray(Image.open(tmp_path / "s.jpg")))


def test_a_level_or_preview_beside_the_first_picture_is_no_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        writer.write(RGB, photometric="rgb", metadata=None)
        writer.write(RGB[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
        writer.write(RGB[:40, :40], photometric="rgb", metadata=None)
    assert np.array_equal(_read(tmp_path / "s.tif"), RGB)


def test_damaged_data_in_a_jpeg_is_not_read_as_pixels(tmp_path):
    Image.fromarray(tissue_picture(420, 300, seed=3)).save(tmp_path / "s.jpg", quality=92)
    contents = bytearray((tmp_path / "s.jpg").read_bytes())
    middle = len(contents) * 2 // 3
    contents[middle : middle + 40] = bytes(255 - value for value in contents[middle : middle + 40])
    (tmp_path / "s.jpg").write_bytes(contents)
    with open_slide(tmp_path / "s.jpg", 0.5) as slide:
        for _ in range(2):  # a second try doesn't give what the first refused
            with pytest.raises(BadSlide, match=r"s\.jpg: reading it failed"):
                slide.read(PixelBox(0, 0, WIDTH, HEIGHT), 1.0)


def test_what_must_be_decoded_at_once_has_a_limit_that_is_stated():
    large = {"width": 2**15, "height": WHOLE_PX // 2**15 + 1, "colours": "RGB"}
    assert "0.27 gigapixels" in fault_of_size(PixelFormat("PNG", at_once=True, **large))
    assert fault_of_size(PixelFormat("PNG", **large)) is None
    assert fault_of_size(PixelFormat("PNG", at_once=True, **large | {"height": WHOLE_PX // 2**15})) is None
    assert "Save it as grey" in fault_of_ids(PixelFormat("PNG", **large | {"colours": "palette"}))


def test_validate_and_tile_refuse_a_16_bit_slide_and_a_lossy_mask_for_the_same_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_slide("data/slides/s.svs", width=128, height=128)
    Image.fromarray(np.full((128, 128), 40_000, np.uint16)).save("data/slides/deep.png")
    Image.fromarray(np.ones((128, 128), np.uint8)).save("data/slides/m.jpg")
    told = {"patient_id": "p", "label": "tumour", "mpp": 1.0}
    rows = [told | {"slide_id": "a", "path": "deep.png"}, told | {"slide_id": "b", "path": "s.svs", "mask": "m.jpg"}]
    params = make_study(tmp_path, rows, {"split": {"group": "slide"}})
    faults = [fault for fault in check_study(Study()) if fault.column == "path"]
    assert [fault.row for fault in faults] == [2, 3]
    for fault, entry, reason in zip(faults, read_manifest(params.tile).slides, ("unsigned, of 16 bits", "lossy")):
        result = cut_slide(SlideJob(entry, params.tile, {entry.slide_id: "train"}, None, tmp_path / "parts", ""))
        assert reason in fault.problem and result.reason == fault.problem
