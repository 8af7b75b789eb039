"""What the near-copy filter catches and lets pass, on patients that neither it nor its threshold knew; and what filtering costs.

On monuseg at 0.5 µm/px: train tiles are indexed, the threshold is set on tiles of other patients, and judged on tiles of a third
part of them. Copies are planted from the train patients' pictures, so that what comes into view when a tile is shifted is real.
`cells` asks the same of an index that holds her2st's sections too, so many tiles that it is searched by cells. In
full it needs the real data that HISTOLOOM_REAL_DATA names; with --smoke it draws pictures, and its figures mean nothing.

With --planted STUDY or --gain STUDY it measures a study's own filters instead (planted.py).
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from benchmarks.inputs import drawn_slides, real_data
from benchmarks.planted import gain, planted
from benchmarks.run import arguments, flat, report, seconds
from benchmarks.sampling import demo_study, links_of
from histoloom.cluster import one_thread
from histoloom.config import Params, TrainFilters
from histoloom.data.lineage import model_sha256
from histoloom.data.pixel_box import PixelBox
from histoloom.quality.copy_search import build_index, copy_scores
from histoloom.quality.filters.near_copy import CopyFilter
from histoloom.quality.planted_copies import DISGUISES, cut, disguised
from histoloom.sampling.diffusion_model import generator_sha256
from histoloom.slides.open import open_slide
from histoloom.studies.filter import FilterPart, filter_part
from histoloom.studies.sample import SamplePart, sample_part

PARTS = ("copies", "cells", "time")
MPP, TILE_PX = 0.5, 128
WHITE = 215
"""Mean grey level above which a tile is mostly glass."""
Picture = np.ndarray
Place = tuple[int, int, int]
"""Number of a picture, and a tile's corner in it."""


def monuseg() -> list[Picture]:
    """A picture a patient, at 0.5 µm/px."""
    table = pd.read_csv(real_data() / "monuseg/images.csv")
    pictures = [Image.open(real_data() / "monuseg" / path).convert("RGB") for path in table["image"]]
    sizes = [tuple(round(n * mpp / MPP) for n in p.size) for p, mpp in zip(pictures, table["mpp"])]
    return [np.asarray(p.resize(size, Image.Resampling.BOX)) for p, size in zip(pictures, sizes)]


def her2st() -> np.ndarray:
    """Tiles of all sections (n, 128, 128, 3), of tissue, at their own scale."""
    found = []
    for path in sorted((real_data() / "her2st/slides").glob("*.tif")):
        with open_slide(path, None) as slide:
            picture = slide.read(PixelBox(0, 0, slide.width, slide.height), 1.0)
        tiles = sliding_window_view(picture, (TILE_PX, TILE_PX), (0, 1))[::TILE_PX, ::TILE_PX]
        tiles = tiles.reshape(-1, 3, TILE_PX, TILE_PX).transpose(0, 2, 3, 1)
        found.append(tiles[tiles.mean((1, 2, 3)) < WHITE])
    return np.concatenate(found)


def drawn(root: Path) -> list[Picture]:
    rows, _ = drawn_slides(root)
    return [np.asarray(Image.open(root / "drawn" / row["path"])) for row in rows]


def places(pictures: list[Picture], numbers: np.ndarray, side: int, stride: int) -> list[Place]:
    out = []
    for n in numbers:
        height, width = pictures[n].shape[:2]
        out += [(n, y, x) for y in range(0, height - side + 1, stride) for x in range(0, width - side + 1, stride)]
    return out


def kinds(
    pictures: list[Picture], side: int, rng: np.random.Generator
) -> Iterator[tuple[str, Callable[[Place], Picture]]]:
    """Each way to disguise a tile, alone and all together."""

    def at(place: Place, *, shift: bool = False, scale: bool = False) -> Picture:
        number, y, x = place
        return cut(pictures[number], PixelBox(x, y, side, side), rng, shift=shift, scale=scale)

    def hidden(disguise: Callable[[Picture, np.random.Generator], Picture], place: Place) -> Picture:
        return disguise(at(place), rng)

    for name, disguise in DISGUISES.items():
        yield name, partial(hidden, disguise)
    yield "shift", partial(at, shift=True)
    yield "scale", partial(at, scale=True)
    yield "shift and scale", partial(at, shift=True, scale=True)
    yield "all but shift", lambda place: disguised(at(place, scale=True), rng)
    yield "all", lambda place: disguised(at(place, shift=True, scale=True), rng)


def measure_copies(pictures: list[Picture], side: int, seed: int, sheet: Path | None, among: np.ndarray) -> dict:
    """Half of the patients are train's, a sixth set the threshold, a third are those of whom nothing was known.

    Parameters
    ----------
    among : other tiles (n, h, w, 3) that are indexed with the train patients'.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pictures))
    train, calibrate, unseen = np.split(order, [len(order) // 2, len(order) // 2 + max(1, len(order) // 6)])
    known = places(pictures, train, side, 3 * side // 4)

    def tiles(which: list[Place]) -> np.ndarray:
        return np.stack([pictures[n][y : y + side, x : x + side] for n, y, x in which])

    names = [f"{n}-{y}-{x}" for n, y, x in known] + [f"other-{n}" for n in range(len(among))]
    index = build_index(np.array(names), [tiles(known), among])
    held_out, others = (
        copy_scores(tiles(places(pictures, part, side, side // 2)), index) for part in (calibrate, unseen)
    )
    limit = CopyFilter(index).threshold(held_out[0], TrainFilters().false_rejection_of("near_copy"))
    caught, least, missed = {}, {}, []
    for name, make in kinds(pictures, side, rng):
        copies = np.stack([make(place) for place in known])
        scores, _ = copy_scores(copies, index)
        caught[name], least[name] = float((scores > limit).mean()), float(scores.min())
        missed += [np.concatenate(pair) for pair in zip(copies[scores <= limit], tiles(known)[scores <= limit])]
    if sheet is not None and missed:
        Image.fromarray(np.concatenate(missed[:16], 1)).save(sheet)
    return {
        "planted_copies_caught": caught | {"least": min(caught.values())},
        "real_other_patient_passed": float((others[0] <= limit).mean()),
        "real_other_patient_tiles": len(others[0]),
        "real_other_patient_highest": float(others[0].max()),
        "planted_copies_lowest": least,
        "threshold": limit,
        "tiles_indexed": len(names),
        "cells_indexed": getattr(index.patches, "nlist", 0),
    }


def measure_time(root: Path, tiles: int, steps: int) -> dict:
    """Filtering a plan's parts over sampling them, both on one torch thread, the models loaded."""
    study = demo_study(root, tiles, 32, steps)
    study.train()
    study.run("train_filters")
    params, models, plan = Params.model_validate(study.params), study.folder / "models", study.plan
    sha256, links, parts = generator_sha256(models), links_of(models, params, "cpu"), sorted(plan["part"].unique())

    def sample(folder: str) -> None:
        for part in parts:
            sample_part(SamplePart(part, study.folder / "data/plan", links, sha256, params, root / folder))

    def filtered(folder: str) -> None:
        filters, order = models / "filters", params.filter.use  # all but those that look at the generator
        for part in parts:
            job = FilterPart(part, root / "sampled", filters, model_sha256(filters), "cpu", root / folder, None, order)
            filter_part(job)

    with one_thread():
        sample("sampled")
        filtered("filtered")  # the first ones load what they need
        took = {
            name: seconds(partial(work, f"{name}-again")).wall
            for name, work in (("sample", sample), ("filter", filtered))
        }
    return {"filter_over_sampling_time": took["filter"] / took["sample"]}


def _of_study(options: Namespace) -> None:
    keys = {"planted": planted(options.planted, options.others)} if options.planted else {}
    keys |= {"filter": gain(options.gain)} if options.gain else {}
    report("filters", options.smoke, {}, flat(keys), {}, options.json)


def main() -> None:
    options = arguments(
        __doc__,
        PARTS,
        pictures="write the copies that were missed here",
        planted="a study that ran to filter: what its filters catch of bad tiles mixed into its own",
        others="with --planted, a folder of pictures of another organ",
        gain="a study that ran to filter: how much nearer to real tiles the accepted ones are than unfiltered ones",
    )
    if options.planted or options.gain:
        return _of_study(options)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        root, keys = Path(folder), {}
        if {"copies", "cells"} & set(options.only):
            pictures, side = (drawn(root), 48) if options.smoke else (monuseg(), TILE_PX)
        if "copies" in options.only:
            sheet, nothing = options.pictures and options.pictures / "missed.png", np.empty((0, 1, 1, 3), np.uint8)
            keys |= measure_copies(pictures, side, 0, sheet, nothing)
        if "cells" in options.only and not options.smoke:
            keys["cells"] = measure_copies(pictures, side, 0, None, her2st())
        if "time" in options.only:
            keys |= measure_time(root / "time", *((32, 4) if options.smoke else (128, 20)))
    report("filters", options.smoke, {"mpp": MPP, "tile_px": TILE_PX}, flat(keys), {}, options.json)


if __name__ == "__main__":
    main()
