"""The pixel arrays of a study: their hashes, so that two versions of the code can be compared.

`python -m tests.golden.arrays STUDY [OTHER]` prints the hash of each array of STUDY, or those in which OTHER differs.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import openslide
import zarr

_STORES = ("tiles", "synthetic", "woven_tiles")


def arrays(study: Path) -> dict[str, str]:
    """Of every array of the tile stores, and of every woven slide at level 0, its place to sha256."""
    found = {}
    for store in _STORES:
        for part in sorted((study / "data" / store).glob("*/images.zarr")):
            group = zarr.open_group(part, mode="r")
            for name in sorted(group.array_keys()):
                found[f"{store}/{part.parent.name}/{name}"] = _sha256(group[name][:])
    for path in sorted((study / "data/woven").glob("*/*.tif")):
        with openslide.OpenSlide(path) as slide:
            pixels = slide.read_region((0, 0), 0, slide.dimensions)
        found[f"woven/{path.parent.name}/{path.name}"] = _sha256(np.asarray(pixels))
    return found


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def main(study: str, other: str | None = None) -> int:
    found = arrays(Path(study))
    if other is None:
        print("\n".join(f"{sha256[:16]}  {place}" for place, sha256 in found.items()))
        return 0
    there = arrays(Path(other))
    differ = sorted(place for place in {*found, *there} if found.get(place) != there.get(place))
    print("\n".join(differ) or f"all {len(found)} arrays are the same")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
