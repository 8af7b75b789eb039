"""How the time of a stage grows with its work: with tiles, with slides, with the side of a woven slide; and how it falls with workers. A plot, and
the slopes.

Tiles: stages of `benchmarks.tables`. Slides: `tile` on copies of one slide, one worker. Sides: a canvas of two convolutions, woven, decoded and
written as a pyramid, so that nearly all of its time is histoloom's own. Workers: `tile` on copies of one slide, and `filter`; the start of dask's
workers is part of the time.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks import tables
from benchmarks.canvas import _whole
from benchmarks.run import report, seconds
from benchmarks.studies import Study
from benchmarks.tiling import MPP, TILE_PX, write_slide
from histoloom.cluster import cores

STAGES = ("plan", "train_filters", "filter", "emit")
"""Those whose time is not for the most part that of networks."""
WORKERS = tuple(sorted({2**n for n in range(cores().bit_length())} | {cores()}))
WORKED_SLIDES, WORKED_TILES = 64, 100_000
"""What is done by different numbers of workers."""
TILES, SLIDES, SIDES_PX = (10_000, 30_000, 100_000), (2, 4, 8, 16), (2048, 4096, 8192, 16384)
SLIDE_PX = 4096

_TICKS_S = (1, 2, 5, 10, 20, 30, 50, 100, 200, 500)

Times = dict[int, float]
"""Work to seconds."""


def of_tiles(root: Path) -> dict[str, Times]:
    found: dict[str, Times] = {stage: {} for stage in STAGES}
    for count in TILES:
        tables.make_study(root / str(count), count)
        for stage in STAGES:
            found[stage][count] = tables.measured(root / str(count), stage, count)["s"]
        shutil.rmtree(root / str(count))
    return found


def of_slides(root: Path) -> dict[str, Times]:
    root.mkdir()
    write_slide(root / "slide.tif", SLIDE_PX)
    return {"tile": {count: _cutting(root, count, 0) for count in SLIDES}}


def of_workers(root: Path) -> dict[str, Times]:
    found: dict[str, Times] = {"tile": {}, "filter": {}}
    root.mkdir()
    write_slide(root / "slide.tif", SLIDE_PX)
    tables.make_study(root / "tables", WORKED_TILES)
    for stage in ("plan", "train_filters"):
        tables.measured(root / "tables", stage, WORKED_TILES)
    for workers in WORKERS:
        found["tile"][workers] = _cutting(root, WORKED_SLIDES, workers)
        shutil.rmtree(root / "tables/.work/filter", ignore_errors=True)
        found["filter"][workers] = tables.measured(root / "tables", "filter", WORKED_TILES, workers)["s"]
    return found


def _cutting(root: Path, count: int, workers: int) -> float:
    """Seconds of `tile` on so many copies of the slide in this folder."""
    rows = []
    for number in range(count):
        path = root / f"{count}-{number}.tif"
        path.write_bytes((root / "slide.tif").read_bytes() + bytes(number))  # each is another file
        rows.append({"slide_id": path.stem, "path": str(path), "patient_id": path.stem, "mpp": MPP, "label": "tissue"})
    labels = {"source": "slide", "classes": ["tissue"]}
    tile = {"mpp": MPP, "tile_px": TILE_PX, "stride_px": TILE_PX, "labels": labels, "slides_root": str(root)}
    study = Study(root / f"study-{count}-{workers}", {"tile": tile}, rows, {}, workers=workers)
    return seconds(partial(study.run, "tile")).wall


def of_sides(root: Path) -> dict[str, Times]:
    times: Times = {}
    context = multiprocessing.get_context("spawn")
    for side in SIDES_PX:
        folder, queue = root / str(side), context.Queue()
        folder.mkdir(parents=True)
        process = context.Process(target=_whole, args=(side, folder, queue))

        def work(process=process, queue=queue) -> None:
            process.start()
            queue.get()
            process.join()

        times[side] = seconds(work).wall
        shutil.rmtree(folder)
    return {"weave": times}


def slope(times: Times) -> float:
    """Of the logarithm of time against that of work, between the two largest: what is constant weighs least there."""
    if len(times) < 2:
        return math.nan
    (few, before), (many, after) = sorted(times.items())[-2:]
    return math.log(after / before) / math.log(many / few)


def plot(parts: dict[str, dict[str, Times]], path: Path) -> None:
    figure, axes = plt.subplots(1, len(parts), figsize=(4 * len(parts), 3.4), layout="constrained", squeeze=False)
    for axis, (name, lines) in zip(axes[0], parts.items()):
        for stage, times in lines.items():
            axis.loglog(*zip(*sorted(times.items())), marker="o", label=f"{stage}: slope {slope(times):.2f}")
        axis.set(xlabel=name, ylabel="seconds", title=f"time against {name}")
        works = sorted({work for times in lines.values() for work in times})
        axis.set_xticks(works, [f"{work:,}" for work in works])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_yticks([s for s in _TICKS_S if axis.get_ylim()[0] <= s <= axis.get_ylim()[1]])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


_MEASURES = {"tiles": of_tiles, "slides": of_slides, "px a side": of_sides, "workers": of_workers}
_NAMES = [name.split()[0] for name in _MEASURES]


def _parts(root: Path, only: list[str]) -> Iterator[tuple[str, dict[str, Times]]]:
    for name, measure in _MEASURES.items():
        if name.split()[0] in only:
            yield name, measure(root / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=Path("growth.png"), help="the plot")
    parser.add_argument("--only", nargs="+", choices=_NAMES, default=_NAMES, help="measure these alone")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        parts = dict(_parts(Path(temporary), options.only))
    plot(parts, options.picture)
    keys, details = {}, {}
    for name, lines in parts.items():
        for stage, times in lines.items():
            keys[f"slope.{name.split()[0]}.{stage}"] = slope(times)
            details |= {f"{name.split()[0]}.{stage}.{work}": s for work, s in times.items()}
    sizes = {"tiles": TILES, "slides": SLIDES, "sides_px": SIDES_PX, "workers": WORKERS}
    sizes |= {"slides_of_workers": WORKED_SLIDES, "tiles_of_workers": WORKED_TILES}
    report("growth", False, sizes, keys, details, options.json)


if __name__ == "__main__":
    main()
