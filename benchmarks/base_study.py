"""The study that histoloom-base is trained by, laid out from her2st, camelyon16 and tnbc: `python -m benchmarks.base_study DIR`.

HISTOLOOM_REAL_DATA names the folder that holds the three. Tiles that are blurred, background, padded or duplicates are left out, and counted.
Four slides of camelyon16, four patients of tnbc and section C5 of her2st are the test split. With --choose they are left out altogether, and
groups of the others are the val split: what is chosen is chosen on these.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.inputs import real_data
from benchmarks.studies import change_params
from histoloom.cli.init import make_study

_MOST_BACKGROUND, _LEAST_SHARPNESS = 0.5, 5.7
"""As camelyon16's table has them: fraction of a tile, and deviation of its Laplacian."""
_PADDED_PX = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--choose", action="store_true", help="leave the test groups out, and hold others out as val")
    parser.add_argument(
        "--recipe", action="append", default=[], help="a recipe after histoloom-base, such as histoloom-base-2"
    )
    asked = parser.parse_args()
    print(json.dumps(lay_out(asked.folder, choose=asked.choose, recipes=tuple(asked.recipe)), indent=1))


def lay_out(folder: Path, *, choose: bool, recipes: tuple[str, ...] = ()) -> dict[str, object]:
    """Make the study; what its splits hold and how many pictures were left out, and why."""
    data = real_data()
    make_study(folder, ("histoloom-base", *recipes))
    if not choose:  # there is no val group, and near_copy needs one
        change_params(folder / "params.yaml", {"filter": {"use": ["quality", "distance", "realism"]}})
    for place in ("spots.csv", "expression.parquet"):
        shutil.copy(data / "her2st" / place, folder / "manifests" / place)
    left_out: Counter[str] = Counter()
    tiles = pd.read_csv(data / "camelyon16_tiles/tiles.csv")
    held_out = {
        "her2st": (["C5"], ["C4"]),
        "camelyon16": _two_of_each(tiles.drop_duplicates("slide_id")),
        "tnbc": _patients(sorted({path.stem[:2] for path in (data / "tnbc/images").glob("*.png")})),
    }
    sections = [  # of one patient: C5 shows whether a section is known, and not whether a patient is
        {"slide_id": s, "path": f"{s}.tif", "patient_id": s, "split": _split(s, *held_out["her2st"], choose=choose),
         "dataset": "her2st", "organ": "breast", "stain": "H&E", "licence": "CC-BY-4.0"}
        for s in ("C2", "C3", "C4", "C5")
    ]  # fmt: skip
    kept = [row for row in sections if row["split"]]
    pd.DataFrame(kept).to_csv(folder / "manifests/slides.csv", index=False)
    spots = pd.read_csv(folder / "manifests/spots.csv")
    spots[spots["slide_id"].isin([row["slide_id"] for row in kept])].to_csv(folder / "manifests/spots.csv", index=False)
    _link(data / "her2st/slides", folder / "data/slides")
    _link(data / "camelyon16_tiles", folder / "data/camelyon16")
    _link(data / "tnbc", folder / "data/tnbc")
    blurred, empty = tiles["laplacian_sd"] < _LEAST_SHARPNESS, tiles["background_fraction"] > _MOST_BACKGROUND
    left_out |= {"camelyon16, blurred": int(blurred.sum()), "camelyon16, background": int((empty & ~blurred).sum())}
    tiles = tiles[~blurred & ~empty].assign(patient_id=tiles["slide_id"], licence="CC0-1.0")
    names = pd.Series(sorted(path.name for path in (data / "tnbc/images").glob("*.png")))
    images = pd.DataFrame({"path": "images/" + names, "mask": "masks/" + names})
    images["slide_id"] = images["patient_id"] = "tnbc_" + names.str[:2]
    images["licence"] = "CC-BY-4.0"
    for name, table, column in (("camelyon16", tiles, "slide_id"), ("tnbc", images, "slide_id")):
        table["split"] = [_split(g.removeprefix("tnbc_"), *held_out[name], choose=choose) for g in table[column]]
        table = _clean(table[table["split"] != ""], folder / "data" / name, name, left_out)
        columns = [c for c in ("path", "mask", "slide_id", "patient_id", "split", "licence") if c in table]
        table[columns].to_csv(folder / f"manifests/{name}.csv", index=False)
    return {"test": {n: of[0] for n, of in held_out.items()}, "left_out": dict(left_out)}


def _two_of_each(slides: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Two normal slides and two with tumour for test, drawn by seed 0; one of each after them for val."""
    draw = np.random.default_rng(0)
    orders = [
        draw.permutation(slides.loc[slides["slide_label"] == label, "slide_id"].sort_values())
        for label in ("normal", "tumor")
    ]
    return [str(s) for of in orders for s in of[:2]], [str(of[2]) for of in orders]


def _patients(patients: list[str]) -> tuple[list[str], list[str]]:
    order = np.random.default_rng(0).permutation(patients)
    return [str(p) for p in order[:4]], [str(order[4])]


def _split(group: str, test: list[str], val: list[str], *, choose: bool) -> str:
    """Empty for what is left out."""
    if group in test:
        return "" if choose else "test"
    return "val" if choose and group in val else "train"


def _clean(table: pd.DataFrame, root: Path, name: str, left_out: Counter[str]) -> pd.DataFrame:
    """Without duplicates and padded pictures."""
    known: set[bytes] = set()
    keep = []
    for path in table["path"]:
        pixels = np.asarray(Image.open(root / path).convert("RGB"))
        content = hashlib.sha256(pixels.tobytes()).digest()
        why = "duplicates" if content in known else "padded" if _padded(pixels) else None
        known.add(content)
        keep.append(why is None)
        if why is not None:
            left_out[f"{name}, {why}"] += 1
    return table[keep]


def _padded(pixels: np.ndarray) -> bool:
    """Whether one border is of one colour, some pixels wide."""
    borders = (pixels[:_PADDED_PX], pixels[-_PADDED_PX:], pixels[:, :_PADDED_PX], pixels[:, -_PADDED_PX:])
    return any(np.ptp(border.reshape(-1, 3), axis=0).max() == 0 for border in borders)


def _link(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
        place.rmdir()
    if not place.exists():
        place.symlink_to(source.resolve(), target_is_directory=True)


if __name__ == "__main__":
    main()
