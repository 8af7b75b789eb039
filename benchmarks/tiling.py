"""Tiles per second of the `tile` stage's own path, over those of a bare loop of OpenSlide reads.

Both cut the same 256 px tiles at the slide's own scale, one after the other in one process. The pipeline also finds
the tissue, draws the thumbnail, compresses, writes, hashes and syncs; the bare loop only reads.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import openslide
import pandas as pd
import tifffile
from PIL import Image
from skimage.filters import gaussian

from benchmarks.run import arguments, report, seconds
from histoloom.config import Labels, Tile
from histoloom.data.commit import sha256_file
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.store import TileWriter, cut_arrays
from histoloom.slides.job import SlideJob
from histoloom.slides.tiler import cut_slide

REAL = Path("data/slides/cmu_small_region.svs")
TISSUE_BOX = ((560, 300), 0, (900, 2400))  # most of this part of it is tissue
MPP = 0.499
TILE_PX = 256
JPEG_PX = 240  # side of the JPEG tiles in the file, a multiple of 16 as Aperio's scanners write
LEVELS = (1, 4, 16)
LATENCY_S = 0.1
"""Of a read, where reads are slow: a block of 2,048 px."""
STAINS = ("none", "macenko", "reinhard")


def texture() -> np.ndarray:
    """A picture (h, w, 3) of tissue: the demo's slide where there is one, else noise with H&E's colours."""
    if REAL.is_file():
        with openslide.OpenSlide(str(REAL)) as slide:
            return np.asarray(slide.read_region(*TISSUE_BOX).convert("RGB"))
    draw = np.random.default_rng(0)
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    coarse, fine = (gaussian(draw.standard_normal((2048, 2048, 2)), s, channel_axis=-1) for s in (8, 1.5))
    amounts = np.clip(0.5 + coarse / coarse.std() * 0.2 + fine / fine.std() * 0.15, 0.05, None)
    return (255 * 10 ** -(amounts @ stains)).clip(0, 255).astype(np.uint8)


def write_slide(path: Path, side_px: int) -> None:
    """Write a square slide of mirrored copies of the texture, as a pyramidal TIFF of JPEG tiles."""
    one = texture()
    padding = [(0, max(0, side_px - length)) for length in one.shape[:2]]
    picture = Image.fromarray(np.pad(one, (*padding, (0, 0)), mode="symmetric")[:side_px, :side_px])
    form = {"photometric": "rgb", "tile": (JPEG_PX, JPEG_PX), "compression": "jpeg", "compressionargs": {"level": 80}}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in LEVELS:
            reduced = picture if level == 1 else picture.reduce(level)
            file.write(np.asarray(reduced), subfiletype=int(level > 1), **form)


def bare(path: Path, places: list[tuple[int, int]]) -> None:
    """The loop to compare with: read each tile, and do nothing with it."""
    with openslide.OpenSlide(str(path)) as slide:
        for place in places:
            np.asarray(slide.read_region(place, 0, (TILE_PX, TILE_PX)).convert("RGB"))


def stored(path: Path, places: list[tuple[int, int]], folder: Path) -> None:
    """The loop that does what a store needs, with the same libraries: read, compress, write and hash. It finds no tissue and draws nothing."""
    with openslide.OpenSlide(str(path)) as slide, TileWriter(folder, cut_arrays(TILE_PX)) as writer:
        for place in places:
            writer.add(image=np.asarray(slide.read_region(place, 0, (TILE_PX, TILE_PX)).convert("RGB")))
    for file in [path, *(file for file in folder.rglob("*") if file.is_file())]:
        sha256_file(file)


def cut(path: Path, stain: str, parts: Path) -> Path:
    """Cut the slide as the stage does; return its part."""
    config = Tile(
        mpp=MPP, tile_px=TILE_PX, stride_px=TILE_PX, stain=stain, labels=Labels(source="slide", classes=("tissue",))
    )
    entry = SlideEntry("slide", path, "patient", 2, mpp=MPP, label="tissue")
    result = cut_slide(SlideJob(entry, config, {"patient": "train"}, None, parts, "benchmark"))
    return parts / result.part


@contextmanager
def slow_reads(latency_s: float) -> Iterator[None]:
    """Each read of a slide waits, as on a network's file system."""
    read = openslide.OpenSlide.read_region

    def late(self, *arguments):
        time.sleep(latency_s)
        return read(self, *arguments)

    with patch.object(openslide.OpenSlide, "read_region", late):
        yield


def main() -> None:
    options = arguments(__doc__)
    side_px, repeats = (8192, 3) if options.smoke else (12288, 7)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "slide.tif"
        write_slide(path, side_px)
        rows = pd.read_parquet(cut(path, "none", root / "first") / "rows.parquet")
        places = sorted(zip(rows["x_level0_px"], rows["y_level0_px"]), key=lambda place: place[::-1])
        bare(path, places)  # the file is in memory for both from here on
        times = {name: [] for name in ("bare", "stored", *STAINS)}
        for repeat in range(repeats):
            times["bare"].append(seconds(lambda: bare(path, places)))
            times["stored"].append(seconds(partial(stored, path, places, root / f"stored-{repeat}")))
            shutil.rmtree(root / f"stored-{repeat}")
            for stain in STAINS if repeat < 3 else STAINS[:1]:
                parts = root / f"{stain}-{repeat}"
                times[stain].append(seconds(partial(cut, path, stain, parts)))
                shutil.rmtree(parts)  # a virtual machine's first touch of memory for new files costs more than zstd
        with slow_reads(LATENCY_S):
            late = [seconds(partial(cut, path, "none", root / f"late-{number}")) for number in range(3)]
    ratios = {name: statistics.median(b.wall / t.wall for b, t in zip(times["bare"], times[name])) for name in STAINS}
    report(
        "tiling",
        options.smoke,
        {"side_px": side_px, "tiles": len(places), "tile_px": TILE_PX, "repeats": repeats}
        | {"texture": "cmu_small_region" if REAL.is_file() else "synthetic"},
        {
            "tiles_per_s_over_bare_openslide": ratios["none"],
            **{f"{stain}_tiles_per_s_over_bare_openslide": ratios[stain] for stain in STAINS[1:]},
            "tiles_per_s_with_latency_over_without": statistics.median(t.wall for t in times["none"])
            / statistics.median(t.wall for t in late),
            **{f"{stain}_over_none": ratios[stain] / ratios["none"] for stain in STAINS[1:]},
            **{
                f"{name}_cpu_over_pipeline_cpu": statistics.median(
                    b.cpu / t.cpu for b, t in zip(times[name], times["none"])
                )
                for name in ("bare", "stored")
            },
        },
        {
            f"{name}_tiles_per_s": len(places) / statistics.median(t.wall for t in values)
            for name, values in times.items()
        },
        options.json,
    )


if __name__ == "__main__":
    main()
