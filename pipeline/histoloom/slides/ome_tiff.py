"""A finished pyramid as OME-TIFF: the same tiles, its levels as SubIFDs, its scale and channels in OME-XML (schema 2016-06)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import tifffile

from histoloom.data.commit import sha256_file
from histoloom.slides.pyramid_file import PyramidFile, open_pyramid


def write_ome_tiff(source: Path, target: Path, *, advance: Callable[[], None] = lambda: None) -> None:
    """Write a pyramid of ours as OME-TIFF. Tiles are copied as they stand, so that pixels are the same to the bit.

    Parameters
    ----------
    advance : called for each level.

    Raises
    ------
    HistoloomError
        when the source is no pyramid of ours.
    """
    with open_pyramid(source) as pyramid, tifffile.TiffWriter(target, bigtiff=True, ome=True) as writer:
        for number, page in enumerate(pyramid.levels):
            mpp = pyramid.mpp * 2**number
            writer.write(
                pyramid.compressed(number),
                shape=page.shape,
                dtype=page.dtype,
                tile=page.tile,
                photometric=page.photometric,
                subsampling=page.subsampling,
                compression=page.compression,
                subfiletype=int(number > 0),
                subifds=len(pyramid.levels) - 1 if number == 0 else None,
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit="CENTIMETER",
                software=False,
                metadata=_ome(pyramid) if number == 0 else None,
            )
            advance()


def _ome(pyramid: PyramidFile) -> dict:
    """What tifffile writes as OME-XML."""
    colour = pyramid.levels[0].samplesperpixel == 3
    ids = "; ".join(f"{number} is {name}" for number, name in enumerate(pyramid.classes, 1))
    scale = {f"PhysicalSize{axis}": pyramid.mpp for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    return scale | {
        "axes": "YXS" if colour else "YX",
        "Name": pyramid.path.stem,
        "Description": " ".join(filter(None, [pyramid.note, f"Class ids: 0 is background; {ids}." if ids else ""])),
        "Channel": {"Name": ["RGB" if colour else pyramid.channels[0]]},
        "UUID": str(
            uuid.uuid5(uuid.NAMESPACE_OID, sha256_file(pyramid.path))
        ),  # a random one gives other bytes each time
    }
