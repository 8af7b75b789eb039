"""Whether pen that a model replaces (`tile.repair`) helps a segmenter: monuseg's nuclei, with pen drawn over the train slides.

U-Nets of as many steps learn from the train tiles in four ways: as they were before the pen; with the pen on them; without tiles that have much pen,
as `tile` leaves them out unless told otherwise; and with the pen replaced by histoloom-base, which saw none of these patients. What is measured is
Dice on the unmarked tiles of held-out patients. It needs the real data that HISTOLOOM_REAL_DATA names; with --smoke, slides are drawn.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from benchmarks.inputs import real_data
from benchmarks.run import arguments, report
from benchmarks.studies import Study
from benchmarks.tissue import PENS
from histoloom.cli.recipe import merge
from histoloom.config.learners import PlainLearner
from histoloom.data.drawn import write_drawn
from histoloom.data.nuclei_sets import monuseg_slides
from histoloom.uplift.learner_comparison import Fold, LearnerComparison, MaskedTiles, dice_difference, mean_dice
from histoloom.uplift.tasks import MaskTask

STEPS, SEEDS, TRAIN_SLIDES = 400, 3, 6
STROKES, STROKE = 2, 0.16
"""Lines of pen on a slide, and their width as a fraction of its own. Thinner ones are not told from tissue (slides/artefacts.py)."""
UNET, TEST = PlainLearner(name="unet"), "test"
_TILE: dict[str, Any] = {
    "mpp": 0.5, "tile_px": 128, "stride_px": 64, "labels": {"source": "none"}, "masks": {"source": "raster", "classes": ["nucleus"]},
    "tissue": {"mpp": 2.0, "min_fraction": 0.1, "min_area_um2": 100},
}  # fmt: skip
_REPAIR = {"model": "histoloom-base", "max_pen": 0.5, "steps": 20, "rounds": 2}
ARMS: dict[str, dict[str, Any]] = {
    "unmarked": {},
    "marked": {"tissue": {"leave_out": []}},
    "left_out": {},
    "repaired": {"repair": _REPAIR},
}


def drawn_over(picture: np.ndarray, number: int) -> np.ndarray:
    """A picture (h, w, 3) uint8 with lines of one colour of pen across it; `number` is the slide's."""
    h, w = picture.shape[:2]
    y, x = np.mgrid[0:h, 0:w]
    covered = np.zeros((h, w), bool)
    for stroke in range(STROKES):
        along = (stroke + 0.5) * w / STROKES + 0.04 * w * np.sin(2 * np.pi * y / h + number + stroke)
        covered |= (np.abs(x - along) < STROKE * w / 2) & (np.abs(y / h - 0.5) < 0.42)
    ink = np.array([*PENS.values()][number % len(PENS)]) / 255
    return (picture * ink ** gaussian_filter(covered.astype(np.float32), 3)[..., None]).astype(np.uint8)


def _slides(folder: Path, smoke: bool) -> pd.DataFrame:
    """Rows of slides.csv: a few train slides, evenly spread, and all of val and test."""
    if smoke:
        write_drawn(folder)
        rows = pd.read_csv(folder / "manifests/slides.csv", dtype=str).drop(columns=["site", "label"], errors="ignore")
    else:
        rows = monuseg_slides(folder, real_data() / "monuseg").drop(columns="organ")
    train = rows["split"] == "train"
    return pd.concat([rows[train].iloc[:: max(1, train.sum() // TRAIN_SLIDES)].head(TRAIN_SLIDES), rows[~train]])


def _tiles(work: Path, arm: str, slides: pd.DataFrame, pictures: Path) -> Study:
    """One arm's study, its tiles cut."""
    files = {f"data/slides/{path.name}": path for path in pictures.iterdir() if path.is_file()}
    if arm != "unmarked":
        train = slides["split"] == "train"
        slides = slides.assign(path=slides["path"].where(~train, slides["slide_id"] + "_marked.png"))
        files |= {f"data/slides/{path.name}": path for path in (work / "marked_slides").iterdir()}
    tile = copy.deepcopy(_TILE)
    merge(tile, ARMS[arm])
    study = Study(work / arm, {"tile": tile}, slides.to_dict("records"), files)
    study.run("tile")
    return study


def _measured(work: Path, smoke: bool, pictures: Path | None) -> tuple[dict[str, float], dict[str, Any]]:
    source = work / "source"
    if not (source / "data/slides").is_dir():
        source.mkdir(parents=True, exist_ok=True)
        _slides(source, smoke).to_csv(work / "slides.csv", index=False)
    slides = pd.read_csv(work / "slides.csv")
    (work / "marked_slides").mkdir(exist_ok=True)
    for number, row in enumerate(slides[slides["split"] == "train"].itertuples()):
        with Image.open(source / "data/slides" / row.path) as picture:
            over = drawn_over(np.asarray(picture.convert("RGB")), number)
        marked = (
            work / "marked_slides" / f"{row.slide_id}_marked.png"
        )  # without loss, so that all else stays to the bit
        Image.fromarray(over).save(marked)
    studies = {arm: _tiles(work, arm, slides, source / "data/slides") for arm in ARMS}
    plain = studies["unmarked"].tiles
    test = MaskedTiles.of(plain, plain.rows().query("split == 'test'"))
    task, steps, seeds = MaskTask(("nucleus",), test.groups), 4 if smoke else STEPS, 1 if smoke else SEEDS
    counts, keys, sizes = {}, {}, {"test_tiles": len(test.images), "test_patients": len({*test.groups})}
    for arm, study in studies.items():
        rows = study.tiles.rows().query("split == 'train'")
        train = MaskedTiles.of(study.tiles, rows)
        sizes[f"train_tiles.{arm}"] = len(rows)
        fold = [Fold(train, {TEST: test})]
        counts[arm] = LearnerComparison(("nucleus",), fold, work / "learners", steps, 8, seeds).counts(UNET, TEST)
        keys[f"dice.{arm}"] = mean_dice(task, counts[arm])
    sizes["repaired_tiles"] = int((studies["repaired"].tiles.rows()["repaired"] > 0).sum())
    for before in ("marked", "left_out", "unmarked"):
        change = dice_difference(task, counts[before], counts["repaired"])
        keys |= {
            f"repaired_over_{before}.difference": change["difference"],
            f"repaired_over_{before}.interval": change["interval"],
        }
    if pictures is not None:
        _show(studies, pictures)
    return keys, sizes | {"steps": steps, "seeds": seeds}


def _show(studies: dict[str, Study], pictures: Path) -> None:
    """Twelve repaired tiles: as they were, with pen, and repaired, one above the other."""
    pictures.mkdir(parents=True, exist_ok=True)
    rows = studies["repaired"].tiles.rows().query("repaired > 0").set_index("tile_id", drop=False)
    if rows.empty:
        return
    rows = rows.iloc[:: max(1, len(rows) // 12)][:12]
    lines = []
    for arm in ("unmarked", "marked", "repaired"):
        of = studies[arm].tiles.rows().set_index("tile_id", drop=False)
        lines.append(
            np.hstack(list(studies[arm].tiles.read(of.loc[[name for name in rows["tile_id"] if name in of.index]])))
        )
    width = min(line.shape[1] for line in lines)
    Image.fromarray(np.vstack([line[:, :width] for line in lines])).save(pictures / "repaired.png")


def main() -> None:
    options = arguments(__doc__, work="keep the studies here", pictures="write repaired tiles here")
    with tempfile.TemporaryDirectory() as temporary:
        keys, sizes = _measured((options.work or Path(temporary)).absolute(), options.smoke, options.pictures)
    report("repaired", options.smoke, sizes, keys, {}, options.json)


if __name__ == "__main__":
    main()
