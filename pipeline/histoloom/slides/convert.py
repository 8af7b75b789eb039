"""A finished pyramid in the formats of other programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from histoloom.data.commit import let_read
from histoloom.errors import HistoloomError
from histoloom.progress import progress
from histoloom.slides.ome_tiff import write_ome_tiff
from histoloom.slides.ome_zarr import write_ome_zarr
from histoloom.slides.pyramid_file import open_pyramid

SUFFIXES = {"ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr"}
"""Of each format."""


def format_of(target: Path) -> str:
    """The format that a name asks for.

    Raises
    ------
    HistoloomError
        when it ends in none of the suffixes.
    """
    for name, suffixes in {"ome-tiff": (".ome.tif", ".ome.tiff"), "ome-zarr": (".ome.zarr",)}.items():
        if target.name.lower().endswith(suffixes):
            return name
    raise HistoloomError(f"{target.name} names no format. Let it end in .ome.tif or .ome.zarr.")


def convert(source: Path, target: Path, labels: Mapping[str, Path] | None = None) -> None:
    """Write a pyramid of ours in the format that the target's suffix names; whole, or not at all.

    Parameters
    ----------
    labels : name to a pyramid of class ids, which an OME-Zarr holds beside the picture.

    Raises
    ------
    HistoloomError
        when the target is there already, its suffix is unknown, or a source is no pyramid of ours.
    """
    form = format_of(target)
    if labels and form != "ome-zarr":
        raise HistoloomError("An OME-TIFF holds no labels. Write the mask to a file of its own, or an .ome.zarr.")
    if target.exists():
        raise HistoloomError(f"{target} is there already. Name another file, or remove it.")
    levels = 0
    for path in (source, *(labels or {}).values()):
        with open_pyramid(path) as pyramid:
            levels += len(pyramid.levels)
    making = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    try:
        with progress(f"{target.name}, levels", levels) as advance:
            if form == "ome-tiff":
                write_ome_tiff(source, making, advance=advance)
            else:
                write_ome_zarr(source, making, labels, advance=advance)
                let_read(making)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True) if making.is_dir() else making.unlink(missing_ok=True)
