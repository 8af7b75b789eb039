"""The pixel arrays of a study: their hashes, so that two versions of the code can be compared.

`python -m tests.golden.arrays STUDY [OTHER]` prints the hash of each array of STUDY, or those in which OTHER differs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import zarr

_STORES = ("tiles", "synthetic", "woven_tiles")


def arrays(study: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of the tile stores, and every woven slide at level 0, with its place, such as 'tiles/PART/image'."""
    for store in _STORES:
        for part in sorted((study / "data" / store).glob("*/images.zarr")):
            group = zarr.open_group(part, mode="r")
            for name in sorted(group.array_keys()):
                yield f"{store}/{part.parent.name}/{name}", group[name][:]
    for path in sorted((study / "data/woven").glob("*/*.tif")):
        yield f"woven/{path.parent.name}/{path.stem}", level_0(path)


def level_0(path: Path) -> np.ndarray:
    """A slide's pixels at level 0, (height, width, 3) uint8."""
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def main(study: str, other: str | None = None) -> int:
    found = {place: sha256(array) for place, array in arrays(Path(study))}
    if other is None:
        print("\n".join(f"{value[:16]}  {place}" for place, value in found.items()))
        return 0
    there = {place: sha256(array) for place, array in arrays(Path(other))}
    differ = sorted(place for place in {*found, *there} if found.get(place) != there.get(place))
    print("\n".join(differ) or f"all {len(found)} arrays are the same")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
