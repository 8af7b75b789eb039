"""Lymph nodes of CAMELYON16 (Ehteshami Bejnordi et al. 2017) as pictures of a study, as a folder of pre-cut tiles lies after unpacking."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
from PIL import Image

from histoloom.data.nuclei_sets import write_slides
from histoloom.data.rows import spread

MPP = 0.25
_MOST_BACKGROUND = 0.3


def write_lymph_nodes(folder: Path, data: Path, mpp: float = MPP, pictures: int = 12) -> None:
    """Write some pictures of each slide with little background, and slides.csv; every third slide is tested on.

    Parameters
    ----------
    data : with `tiles.csv` (path, slide_id, and a column of the fraction of background), and the pictures that it names.
    mpp : of what is written; pictures are reduced to it. pictures : of each slide.
    """
    table = pd.read_csv(data / "tiles.csv")
    column = next(name for name in table if "background" in name)
    table = table[table[column] < _MOST_BACKGROUND]
    table = pd.concat([spread(own, pictures) for _, own in table.groupby("slide_id")])
    (folder / "data/slides").mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.{'jpg' if mpp == MPP else 'png'}" for number in range(len(table))]
    for path, name in zip(table["path"], names):
        if mpp == MPP:
            shutil.copy(data / path, folder / "data/slides" / name)
        else:
            reduced(Image.open(data / path).convert("RGB"), MPP / mpp).save(folder / "data/slides" / name)
    places = {slide: number for number, slide in enumerate(sorted(table["slide_id"].unique()))}
    split = [
        "test" if places[slide] % 3 == 2 else "val" if places[slide] % 6 == 0 else "train"
        for slide in table["slide_id"]
    ]
    rows = {
        "slide_id": [name[:4] for name in names],
        "path": names,
        "patient_id": table["slide_id"],
        "mpp": mpp,
        "split": split,
    }
    write_slides(folder, pd.DataFrame(rows))


def reduced(picture: Image.Image, scale: float) -> Image.Image:
    return picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS)
