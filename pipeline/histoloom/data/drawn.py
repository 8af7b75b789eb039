"""Drawn tissue with a known truth, for studies that have no slides yet: patients whose label, marker, expression and site all show.

It is no tissue. What a model learns of it says that the machinery works, and nothing of real slides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

LABELS = ("dense", "sparse")
MARKER = "IDH1"
"""Of patients who have it altered, nuclei are half as large again."""
SITES = ("north", "south")
"""Each stains in its own way."""
GENES = tuple(f"G{number}" for number in range(12))
MPP = 0.5
FAINT = 0.03
"""Contrast at which nuclei are hardly darker than their ground, so that learners of masks differ."""
RARE, RIM_PX = 2, 1.5
"""The rare class of nuclei: its id in masks, and the rim that is left of them, as they are hollow."""
_RARE_IN_TRAIN, _RARE_HELD_OUT = 0.05, 0.5
_STAINS = {"north": ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)), "south": ((0.49, 0.77, 0.41), (0.12, 0.87, 0.48))}
_GLASS = {"north": 245.0, "south": 232.0}


@dataclass(frozen=True)
class Drawing:
    """What a patient's slide shows. density : nuclei in 1,000 px. radius_px : of nuclei."""

    density: float
    radius_px: float


def draw_layout(rng: np.random.Generator, side: int, drawing: Drawing) -> np.ndarray:
    """Numbers of nuclei (side, side) uint16 that don't touch one another; 0 outside."""
    out, (y, x) = np.zeros((side, side), np.uint16), np.mgrid[:side, :side]
    number = 0
    for cy, cx, turn in rng.uniform(0, 1, (int(drawing.density * side * side / 1000 * 3), 3)) * (side, side, np.pi):
        if number >= drawing.density * side * side / 1000:
            break
        radius = drawing.radius_px * rng.uniform(0.8, 1.2)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        nucleus = np.hypot(along / (radius * 1.2), across / radius)
        if not out[nucleus < 1.35].any() and (nucleus < 1).any():
            number += 1
            out[nucleus < 1] = number
    return out


def draw_picture(rng: np.random.Generator, nuclei: np.ndarray, site: str, contrast: float = 1.0) -> np.ndarray:
    """The layout stained as at a site, (side, side, 3) uint8. contrast : of nuclei to their ground, over the usual one."""
    texture = gaussian_filter(rng.standard_normal(nuclei.shape), 2.0, mode="wrap")
    haematoxylin = 0.05 + 0.65 * contrast * gaussian_filter((nuclei > 0).astype(float), 0.7) * (
        1 + 0.5 * texture / texture.std() * 0.3
    )
    eosin = 0.32 + 0.10 * texture / texture.std() - 0.15 * contrast * (nuclei > 0)
    amounts = np.stack([haematoxylin, eosin.clip(0.02)], -1)
    light = _GLASS[site] * 10 ** -(amounts @ np.array(_STAINS[site])) + rng.normal(0, 1.0, (*nuclei.shape, 3))
    return light.clip(0, 255).astype(np.uint8)


def write_drawn(folder: Path, patients: int = 14, side: int = 160, seed: int = 0, *, contrast: float = 1.0) -> None:
    """Write slides, instance maps, slides.csv, a table of expression and one of genotypes to a study's folder.

    Each patient's tissue is drawn as both sites stain it, a slide each, place by place alike.

    patients : of whom two fourteenths are val and four test. contrast : of nuclei, over the usual one.
    """
    rows, expression, genotypes = [], [], []
    for place in ("data/slides", "manifests"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        label, altered = LABELS[number % 2], number // 2 % 2 == 1
        drawing = Drawing(7.0 if label == "dense" else 2.5, 4.5 if altered else 3.0)
        nuclei = draw_layout(rng, side, drawing)
        name = f"p{number:02d}"
        Image.fromarray(nuclei).save(folder / f"data/slides/{name}_nuclei.png")
        split = "test" if number % 7 in (5, 6) else "val" if number % 7 == 4 else "train"
        for site in SITES:
            slide = f"{name}_{site}"
            Image.fromarray(draw_picture(rng, nuclei, site, contrast)).save(folder / f"data/slides/{slide}.png")
            rows.append(
                {"slide_id": slide, "path": f"{slide}.png", "patient_id": name, "mpp": MPP, "label": label, "split": split,
                 "instances": f"{name}_nuclei.png", "site": site}
            )  # fmt: skip
        of_density = np.r_[np.full(4, drawing.density * 30), np.full(4, 200 - drawing.density * 20), np.full(4, 90.0)]
        expression.append(rng.poisson(of_density))
        genotypes.append({"patient_id": name, MARKER: "MUT" if altered else "WT"})
    pd.DataFrame(rows).to_csv(folder / "manifests/slides.csv", index=False)
    table = pd.DataFrame(expression, columns=list(GENES))
    table.insert(0, "patient_id", [f"p{number:02d}" for number in range(patients)])
    table.to_csv(folder / "manifests/expression.csv", index=False)
    pd.DataFrame(genotypes).to_csv(folder / "manifests/genotype.csv", index=False)


def write_two_classes(folder: Path, patients: int = 14, side: int = 128) -> None:
    """Write slides, masks, instance maps and slides.csv of patients with usual and rare nuclei; few are rare in train, half in val and test."""
    place = folder / "data/slides"
    for made in (place, folder / "manifests"):
        made.mkdir(parents=True, exist_ok=True)
    rows = [_write_patient(place, number, side) for number in range(patients)]
    pd.DataFrame(rows).to_csv(folder / "manifests/slides.csv", index=False)


def _write_patient(folder: Path, number: int, side: int) -> dict[str, object]:
    """A picture, its mask of classes and its nuclei's numbers; the manifest's row."""
    rng, name = np.random.default_rng([0, number]), f"p{number:02d}"
    split = "test" if number % 7 in (5, 6) else "val" if number % 7 == 4 else "train"
    nuclei = draw_layout(rng, side, Drawing(5.0, 3.5))
    share = _RARE_IN_TRAIN if split == "train" else _RARE_HELD_OUT
    is_rare = rng.permutation(nuclei.max()) < round(share * nuclei.max())
    mask = np.r_[0, 1 + is_rare].astype(np.uint8)[nuclei]
    hollow = np.where((mask == RARE) & (distance_transform_edt(nuclei > 0) > RIM_PX), 0, nuclei)
    pictures = {"": draw_picture(rng, hollow, "north"), "_nuclei": nuclei, "_mask": mask}
    for end, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}{end}.png")
    return {
        "slide_id": name, "path": f"{name}.png", "patient_id": name, "mpp": MPP, "label": LABELS[number % 2], "split": split,
        "mask": f"{name}_mask.png", "instances": f"{name}_nuclei.png",
    }  # fmt: skip
