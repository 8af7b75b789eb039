"""DICOM slides: a slide is a series of files, and each file's header says of which."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_SUFFIXES = ("", ".dcm", ".dicom")
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""The class of pictures of whole slides."""


@dataclass(frozen=True)
class DicomHeader:
    """What the header of a file says.

    series : UID of the series that it is a part of. whole_slide : whether it shows the slide, and not its label or overview.
    columns : its width, px.
    """

    series: str
    whole_slide: bool
    columns: int


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes. Only files that may be are opened: by suffix, or with a UID for a name."""
    if path.suffix.lower() not in _SUFFIXES and not path.suffix[1:].isdigit():
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom_header(path: Path) -> DicomHeader | None:
    """The header of a file; None where it is no DICOM, or damaged."""
    if not is_dicom(path):
        return None
    found = path.stat()
    return _read(os.fspath(path), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=65536)  # every slide of a folder asks for the headers of all files in it
def _read(path: str, size: int, changed_ns: int) -> DicomHeader | None:
    """size, changed_ns : those of the file, so that a changed one is read again."""
    import pydicom  # which takes a moment, and is asked of few studies alone
    from pydicom.errors import InvalidDicomError

    tags = ["SOPClassUID", "SeriesInstanceUID", "ImageType", "TotalPixelMatrixColumns"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that no rule allows; none of them is used
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            series, kind = str(found.SeriesInstanceUID), [*found.get("ImageType", [])]
            shown = found.get("SOPClassUID") == _WHOLE_SLIDE and "VOLUME" in kind
            return DicomHeader(series, shown, int(found.get("TotalPixelMatrixColumns") or 0))
    except (InvalidDicomError, AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError):
        return None


def series_in(folder: Path) -> dict[str, list[Path]]:
    """Series UID to its files in a folder, by name."""
    out: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if header := read_dicom_header(path):
            out.setdefault(header.series, []).append(path)
    return out


def series_of(path: Path) -> list[Path]:
    """The files that lie beside a DICOM file and are of its series, itself among them; OpenSlide opens the same."""
    header = read_dicom_header(path)
    return [path] if header is None else series_in(path.parent)[header.series]
