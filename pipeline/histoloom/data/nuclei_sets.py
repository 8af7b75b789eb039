"""Public sets of nuclei as slides of a study: MoNuSeg (Kumar et al. 2017) and TNBC (Naylor et al. 2019), as their folders lie after unpacking."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.data.drawn import write_drawn

_TNBC_TEST = (2, 4, 6)
"""Of the eight patients, in the order of their numbers. No packaged model saw them."""
MPP = 0.25


def monuseg_slides(folder: Path, data: Path) -> pd.DataFrame:
    """Copy the pictures and the instance maps of thirty patients to a study's data/slides, and give its rows of slides.csv.

    Patients are ordered by organ. Every third is tested on, and every sixth is val.

    Parameters
    ----------
    data : with `images.csv` (image, instances, patient_id, organ, mpp), and the files that it names.
    """
    table = pd.read_csv(data / "images.csv").sort_values(["organ", "patient_id"]).reset_index(drop=True)
    place = _slides(folder)
    names = {
        column: [f"{n}_{Path(name).name}" for n, name in enumerate(table[column])] for column in ("image", "instances")
    }
    for column, new in names.items():
        for name, of in zip(table[column], new):
            shutil.copy(data / name, place / of)
    split = ["test" if number % 3 == 2 else "val" if number % 6 == 0 else "train" for number in range(len(table))]
    return pd.DataFrame(
        {"slide_id": table["patient_id"], "path": names["image"], "patient_id": table["patient_id"], "mpp": table["mpp"],
         "instances": names["instances"], "split": split, "organ": table["organ"]}
    )  # fmt: skip


def tnbc_slides(folder: Path, data: Path) -> pd.DataFrame:
    """The same of eight patients' pictures, with masks in which nuclei that touch are one. Three patients are tested on.

    Parameters
    ----------
    data : with `images/PP_k.png` and `masks/PP_k.png`, PP the patient.

    Returns
    -------
    `covered` is the share of a picture that nuclei cover.
    """
    names = sorted(path.stem for path in (data / "images").glob("*.png"))
    patients = sorted({name[:2] for name in names})
    place, rows = _slides(folder), []
    for name in names:
        shutil.copy(data / f"images/{name}.png", place / f"{name}.png")
        nuclei = np.asarray(Image.open(data / f"masks/{name}.png")) > 0
        Image.fromarray(nuclei.astype(np.uint8)).save(place / f"{name}_mask.png")
        split = "test" if patients.index(name[:2]) in _TNBC_TEST else "train"
        rows.append(
            {"slide_id": f"tnbc_{name}", "path": f"{name}.png", "patient_id": f"P{name[:2]}", "mpp": MPP, "split": split,
             "mask": f"{name}_mask.png", "covered": nuclei.mean()}
        )  # fmt: skip
    return pd.DataFrame(rows)


def write_both(folder: Path, data: Path) -> None:
    """Write slides.csv of both sets, each a site of its own, from a folder that holds `monuseg` and `tnbc`."""
    monuseg = monuseg_slides(folder, data / "monuseg").assign(site="monuseg").drop(columns="organ")
    tnbc = tnbc_slides(folder, data / "tnbc").assign(site="tnbc").drop(columns="covered")
    write_slides(folder, pd.concat([monuseg, tnbc], ignore_index=True))


def write_sites(folder: Path, data: Path | None, contrast: float) -> None:
    """Both sets from `data`; without it drawn patients of two sites, whose nuclei have this contrast over the usual one."""
    if data is None:
        write_drawn(folder, contrast=contrast)
    else:
        write_both(folder, data)


def write_slides(folder: Path, slides: pd.DataFrame) -> None:
    """Write slides.csv of a study."""
    (folder / "manifests").mkdir(parents=True, exist_ok=True)
    slides.to_csv(folder / "manifests/slides.csv", index=False)


def _slides(folder: Path) -> Path:
    place = folder / "data/slides"
    place.mkdir(parents=True, exist_ok=True)
    return place
