"""Golden values of the tiny study of tests/tiny_study.py: they are kept with the code, and a new version must give them too.

Cut tiles and masks are kept as hashes, and so are the slides, which numpy may draw otherwise on another CPU. What a network made depends on the CPU: training carries the last bits of its sums up to a few grey levels. So
it is kept as pixels, with the CPU that made them: the first tiles of each part, and the woven slide.

`python -m tests.golden.write STUDY` writes the values anew, from a study that `dvc repro` has made.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from tests.golden.arrays import arrays, level_0, sha256

EXACT, NEAR = (Path(__file__).parent / name for name in ("exact.json", "near.npz"))
_FIRST_TILES = 2


def cpu() -> str:
    """What the last bits of a network's sums depend on: the CPU's maker and make, its vector unit, and how many cores."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    stated = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    made = [stated[name] for name in ("vendor_id", "cpu family", "model") if name in stated] or [platform.processor()]
    return f"{' '.join(made)} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()} cores"


def values(study: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Place to sha256 where every bit is promised, and place to pixels where a network made them."""
    slides = sorted((study / "data/slides").glob("*.tif"))
    exact, near = {f"slides/{path.stem}": sha256(level_0(path)) for path in slides}, {}
    for place, array in arrays(study):
        store, _, name = place.split("/")
        if store == "tiles" or name in ("mask", "condition"):
            exact[place] = sha256(array)
        elif store == "synthetic":
            near[place] = array[:_FIRST_TILES]
        elif store == "woven":
            near[place] = array
    return exact, near


def main(study: str) -> None:
    exact, near = values(Path(study))
    EXACT.write_text(json.dumps(exact, indent=2) + "\n", encoding="utf-8")
    np.savez_compressed(NEAR, cpu=np.array(cpu()), **near)
    print(f"{len(exact)} hashes and {len(near)} pictures, {(EXACT.stat().st_size + NEAR.stat().st_size) >> 10} KiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
