"""A finished pyramid as OME-Zarr: NGFF 0.5, zarr v3, sharded, without loss; masks of classes as its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from histoloom.slides.pyramid_file import PyramidFile, open_pyramid

VERSION = "0.5"
_CHUNK_PX, _SHARD_PX = 256, 2048
_ZSTD_LEVEL = 3
_COLOURS = ("FF0000", "00FF00", "0000FF")
_LABEL_COLOURS = ((230, 97, 0), (93, 58, 155), (64, 176, 166), (225, 190, 106), (220, 50, 32), (0, 90, 181))


def write_ome_zarr(
    source: Path, target: Path, labels: Mapping[str, Path] | None = None, *, advance: Callable[[], None] = lambda: None
) -> None:
    """Write a pyramid of ours as OME-Zarr. Pixels are those that the source is decoded to.

    Memory holds one shard: 2,048 x 2,048 px.

    Parameters
    ----------
    labels : name to a pyramid of class ids, which viewers lay over the picture.
    advance : called for each level.

    Raises
    ------
    HistoloomError
        when the source or a label is no pyramid of ours.
    """
    with open_pyramid(source) as pyramid:
        root = _write(target, pyramid, advance, colour=True)
        root.attrs["ome"] = _image(pyramid, ("c", "y", "x")) | {"omero": _omero(pyramid)}
        if pyramid.note:
            root.attrs["histoloom"] = {"note": pyramid.note}
    if labels:
        root.create_group("labels").attrs["ome"] = {"version": VERSION, "labels": [*labels]}
    for name, path in (labels or {}).items():
        with open_pyramid(path) as ids:
            group = _write(target / "labels" / name, ids, advance, colour=False)
            group.attrs["ome"] = _image(ids, ("y", "x")) | {"image-label": _label(ids.classes)}


def _write(target: Path, pyramid: PyramidFile, advance: Callable[[], None], *, colour: bool) -> zarr.Group:
    """The levels, (c, y, x) with colour and (y, x) without."""
    root = zarr.create_group(str(target), zarr_format=3)
    for number, page in enumerate(pyramid.levels):
        height, width = page.shape[:2]
        shard = min(_SHARD_PX, _up(height)), min(_SHARD_PX, _up(width))
        lead = (page.samplesperpixel,) if colour else ()
        array = root.create_array(
            str(number),
            shape=(*lead, height, width),
            dtype=np.uint8,
            chunks=(*lead, _CHUNK_PX, _CHUNK_PX),
            shards=(*lead, *shard),
            compressors=ZstdCodec(level=_ZSTD_LEVEL),
            dimension_names=("c", "y", "x") if colour else ("y", "x"),
        )
        with pyramid.file.aszarr(key=pyramid.levels.index(page)) as store:
            pixels = zarr.open_array(store, mode="r")
            for rows, columns in _boxes(height, width, shard):
                box = np.asarray(pixels[rows, columns])
                box = box.reshape(*box.shape[:2], -1).transpose(2, 0, 1)
                array[..., rows, columns] = box if colour else box[0]
        advance()
    return root


def _up(side: int) -> int:
    """To whole chunks."""
    return -(-side // _CHUNK_PX) * _CHUNK_PX


def _boxes(height: int, width: int, shard: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """One for each shard: two writers to a shard would lose pixels, and two writes read it again."""
    for top in range(0, height, shard[0]):
        for left in range(0, width, shard[1]):
            yield slice(top, min(height, top + shard[0])), slice(left, min(width, left + shard[1]))


def _image(pyramid: PyramidFile, axes: tuple[str, ...]) -> dict:
    """A coarser pixel covers two by two of the level before, so its centre lies between theirs."""
    lead = [1.0] if "c" in axes else []
    datasets = []
    for number in range(len(pyramid.levels)):
        mpp, shift = pyramid.mpp * 2**number, pyramid.mpp * (2**number - 1) / 2
        scale = {"type": "scale", "scale": [*lead, mpp, mpp]}
        moved = {"type": "translation", "translation": [*(0.0 for _ in lead), shift, shift]}
        datasets.append({"path": str(number), "coordinateTransformations": [scale, moved]})
    multiscale = {
        "name": pyramid.path.stem,
        "axes": [_axis(name) for name in axes],
        "datasets": datasets,
        "type": "nearest" if pyramid.classes else "mean",
        "metadata": {"description": pyramid.note},
    }
    return {"version": VERSION, "multiscales": [multiscale]}


def _axis(name: str) -> dict[str, str]:
    if name == "c":
        return {"name": name, "type": "channel"}
    return {"name": name, "type": "space", "unit": "micrometer"}


def _omero(pyramid: PyramidFile) -> dict:
    """Names, colours and ranges of channels, for viewers."""
    names = pyramid.channels
    colours = _COLOURS if len(names) == 3 else ("FFFFFF",)
    window = {"min": 0, "start": 0, "end": 255, "max": 255}
    channels = [
        {"label": name, "color": colour, "window": window, "active": True} for name, colour in zip(names, colours)
    ]
    return {"channels": channels, "rdefs": {"model": "color" if len(names) == 3 else "greyscale"}}


def _label(classes: tuple[str, ...]) -> dict:
    numbers = range(1, len(classes) + 1)
    colours = (_LABEL_COLOURS[(number - 1) % len(_LABEL_COLOURS)] for number in numbers)
    return {
        "colors": [{"label-value": n, "rgba": [*colour, 128]} for n, colour in zip(numbers, colours)],
        "properties": [{"label-value": number, "class": name} for number, name in zip(numbers, classes)],
        "source": {"image": "../../"},
    }
