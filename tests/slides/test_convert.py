"""Pyramids as OME-TIFF and OME-Zarr, read by the readers of others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v05.image import Image as NgffImage
from ome_zarr_models.v05.image_label import ImageLabel

from histoloom.cli.main import cli
from histoloom.data.commit import hash_tree
from histoloom.errors import HistoloomError
from histoloom.slides.convert import convert
from histoloom.slides.pyramid import PyramidPicture, TiffFormat, write_pyramid
from histoloom.slides.woven import NOTE
from tests.build import make_slide, tissue_picture

WIDTH, HEIGHT = 701, 530


def _write(path: Path, picture: np.ndarray, compression: str = "jpeg", note: str = NOTE, mpp: float = 0.35) -> Path:
    def read(box):
        return picture[box.top : box.bottom, box.left : box.right]

    drawn = PyramidPicture(read, picture.shape[:2], mpp, note)
    write_pyramid(path, drawn, TiffFormat(compression=compression), scratch=path.parent)
    return path


@pytest.fixture(params=["jpeg", "deflate"])
def slide(tmp_path, request) -> Path:
    """slide.tif, with condition.tif and canvas.json beside it."""
    ids = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    ids[100:, 200:] = 2
    ids[:50, :300] = 1
    _write(tmp_path / "condition.tif", ids, "deflate", "")
    (tmp_path / "canvas.json").write_text(json.dumps({"classes": ["nucleus", "clear"]}))
    return _write(tmp_path / "slide.tif", tissue_picture(WIDTH, HEIGHT), request.param)


def _levels(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


def test_ome_tiff_is_valid_and_has_the_same_pixels_at_every_level(slide):
    target = slide.with_name("s.ome.tif")
    convert(slide, target)
    with tifffile.TiffFile(target) as file:
        ome_types.validate_xml(file.ome_metadata)
        found = [level.asarray() for level in file.series[0].levels]
        assert file.is_bigtiff and file.series[0].levels[1].pages[0].subfiletype == 1
    assert len(found) == 3 and all(np.array_equal(a, b) for a, b in zip(found, _levels(slide), strict=True))
    (image,) = ome_types.from_tiff(target).images
    pixels = image.pixels
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_x_unit.value) == (0.35, 0.35, "µm")
    assert [c.name for c in pixels.channels] == ["RGB"] and image.description == NOTE and pixels.size_x == WIDTH


def test_class_ids_as_ome_tiff_say_their_classes(slide):
    target = slide.with_name("ids.ome.tiff")
    convert(slide.with_name("condition.tif"), target)
    (image,) = ome_types.from_tiff(target).images
    assert image.description == "Class ids: 0 is background; 1 is nucleus; 2 is clear."
    assert [c.name for c in image.pixels.channels] == ["class ids"]
    assert np.array_equal(tifffile.imread(target), _levels(slide.with_name("condition.tif"))[0])


def test_ome_zarr_is_valid_and_has_the_same_pixels_at_every_level(slide):
    target, ids = slide.with_name("s.ome.zarr"), slide.with_name("condition.tif")
    convert(slide, target, {"condition": ids})
    group = zarr.open_group(str(target), mode="r")
    image = NgffImage.from_zarr(group)  # refuses what the specification does not allow
    ImageLabel.from_zarr(group["labels/condition"])
    (multiscale,) = image.ome_attributes.multiscales
    scales = [d.coordinateTransformations[0].scale for d in multiscale.datasets]
    assert scales == [[1, 0.35 * 2**n, 0.35 * 2**n] for n in range(3)]
    assert [axis.unit for axis in multiscale.axes] == [None, "micrometer", "micrometer"]
    assert group.metadata.zarr_format == 3 and group.attrs["histoloom"] == {"note": NOTE}
    assert [c["label"] for c in image.ome_attributes.omero["channels"]] == ["red", "green", "blue"]
    for number, level in enumerate(_levels(slide)):
        assert np.array_equal(group[str(number)][:].transpose(1, 2, 0), level)
    for number, level in enumerate(_levels(ids)):
        assert np.array_equal(group[f"labels/condition/{number}"][:], level)
    label = group["labels/condition"].attrs["ome"]["image-label"]
    assert [p["class"] for p in label["properties"]] == ["nucleus", "clear"]


def test_the_reference_reader_finds_picture_and_labels(slide):
    target = slide.with_name("s.ome.zarr")
    convert(slide, target, {"condition": slide.with_name("condition.tif")})
    nodes = [node for node in Reader(parse_url(str(target)))() if node.data]
    assert [node.data[0].shape for node in nodes] == [(3, HEIGHT, WIDTH), (HEIGHT, WIDTH)]
    assert np.array_equal(np.asarray(nodes[0].data[2]).transpose(1, 2, 0), _levels(slide)[2])


@pytest.mark.parametrize("name", ["s.ome.tif", "s.ome.zarr"])
def test_the_bytes_are_the_same_each_time(slide, name):
    found = []
    for folder in ("a", "b"):
        (slide.parent / folder).mkdir()
        convert(slide, slide.parent / folder / name)
        found.append(hash_tree(slide.parent / folder / name))
    assert found[0] == found[1]


def test_the_command_writes_one_and_overwrites_nothing(slide):
    target = str(slide.with_name("out.ome.zarr"))
    run = CliRunner().invoke
    done = run(cli, ["convert", str(slide), target, "--labels", str(slide.with_name("condition.tif"))])
    assert done.exit_code == 0 and (Path(target) / "labels/condition/zarr.json").is_file()
    before = hash_tree(Path(target))
    again = run(cli, ["convert", str(slide), target])
    assert again.exit_code == 1 and "is there already" in again.output and hash_tree(Path(target)) == before


def test_what_is_no_pyramid_of_ours_is_refused(tmp_path):
    picture = tissue_picture(300, 300)
    (tmp_path / "t.tif").write_text("x")
    tifffile.imwrite(tmp_path / "strips.tif", picture)
    other = make_slide(tmp_path / "other.tif", levels=1, mpp=None)
    ours = _write(tmp_path / "slide.tif", picture)
    for source, target, words in (
        (tmp_path / "t.tif", "a.ome.tif", "is no TIFF"),
        (tmp_path / "strips.tif", "a.ome.tif", "doesn't consist of tiles"),
        (other, "a.ome.zarr", "states no scale"),
        (ours, "a.png", "names no format"),
    ):
        with pytest.raises(HistoloomError, match=words):
            convert(source, tmp_path / target)
    with pytest.raises(HistoloomError, match="no labels"):
        convert(ours, tmp_path / "a.ome.tif", {"ids": ours})
    broken = tmp_path / "broken.tif"
    broken.write_bytes(ours.read_bytes()[:-3000])
    with pytest.raises(HistoloomError, match="Copy it again"):
        convert(broken, tmp_path / "a.ome.zarr")
    assert not [*tmp_path.glob("*a.ome*")]


@pytest.mark.long
def test_memory_does_not_grow_with_the_slide(tmp_path):
    """A slide of 8,192 px has 200 MB of pixels; they are never held at once."""
    row = tissue_picture(8192, 256)
    picture = np.broadcast_to(row[None], (32, *row.shape)).reshape(8192, 8192, 3)
    _write(tmp_path / "slide.tif", picture)
    code = (
        "import resource, sys; from pathlib import Path; from histoloom.slides.convert import convert\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "[convert(Path('slide.tif'), Path(n)) for n in ('s.ome.tif', 's.ome.zarr')]; print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000  # kB
