"""A public set of mitotic figures as cut tiles of a study: AMi-Br (Bertram et al. 2025), atypical beside normal ones, as its folder lies after unpacking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

LABELS = ("normal", "atypical")
SET = "AMi-Br"
FILE = "data/mitoses.npz"


def write_mitoses(folder: Path, data: Path, px: int) -> None:
    """Write the set's tiles to a study's `FILE`: images (n, px, px, 3) uint8, label, slide_id and split.

    Slides are ordered by scanner. Every third is tested on, and every sixth is val. No slide is in two splits.

    Parameters
    ----------
    data : with `tiles.csv` (path, set, label, slide_id, domain), and the pictures that it names.
    px : side of the centre that is cut, where the figure is.
    """
    table = pd.read_csv(data / "tiles.csv")
    table = table[table["set"] == SET].sort_values(["domain", "slide_id", "path"]).reset_index(drop=True)
    number = pd.factorize(table["slide_id"])[0]
    split = np.where(number % 3 == 2, "test", np.where(number % 6 == 0, "val", "train"))
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / FILE,
        images=np.stack([_centre(data / path, px) for path in table["path"]]),
        label=table["label"].to_numpy(str),
        slide_id=table["slide_id"].str.replace(r"[^A-Za-z0-9]+", "-", regex=True).to_numpy(str),
        split=split,
    )


def _centre(path: Path, px: int) -> np.ndarray:
    picture = Image.open(path).convert("RGB")
    left, top = ((side - px) // 2 for side in picture.size)
    return np.asarray(picture.crop((left, top, left + px, top + px)))
