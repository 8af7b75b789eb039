"""What of a slide no tile shows, counted by slide and over a study, and said where it is much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from histoloom.slides.artefacts import PADDING, PEN
from histoloom.slides.tile_selection import Choice
from histoloom.slides.tissue import TissueMap

MUCH_BEYOND_GRID = 0.03
MUCH_PEN = 0.2
"""Of all that is tissue or pen."""
MUCH_PADDING = 0.5
"""Of all that is tissue or padding: scanners lay much of it around small pieces."""
MUCH_OUT_OF_FOCUS = 0.1
_SLIDES_NAMED = 4


class LeftOut(TypedDict):
    """What is left out of a slide: columns of `slides.csv`.

    tissue_fraction, padding_fraction, pen_fraction : of the slide's area.
    with_artefacts, in_gaps : tiles with tissue enough that padding, pen or gaps between regions exclude.
    tissue_beyond_grid : fraction of the tissue, at the right and lower border.
    with_tissue, out_of_focus : tiles with tissue enough, and those of them that are blurred; of slides that were cut.
    """

    tissue_fraction: float
    padding_fraction: float
    pen_fraction: float
    with_artefacts: int
    in_gaps: int
    tissue_beyond_grid: float
    with_tissue: NotRequired[int]
    out_of_focus: NotRequired[int]


class SlideRecord(LeftOut):
    """What is written down of a slide that was cut.

    mpp_level0, mpp_source : its scale, and who states it. bounds_x_level0_px, bounds_y_level0_px : of what was scanned.
    hidden : split to the number of tiles, of tile.mpp, whose labels the study may not see.
    predicted : number of train tiles that have a learner's mask.
    train_with_pen : train tiles with some pen, which tile.repair would make anew. repaired : those that it did.
    stain : what the normalisation says of itself.
    """

    mpp_level0: float
    mpp_source: str
    width_px: int
    height_px: int
    bounds_x_level0_px: int
    bounds_y_level0_px: int
    tiles: int
    hidden: dict[str, int]
    predicted: int
    train_with_pen: int
    repaired: int
    stain: str


class TissueLeftOut(TypedDict):
    """What is left out of a study's slides: numbers of tiles and of slides, and the fraction of all tissue beyond the grids."""

    tiles_with_artefacts: int
    tiles_in_gaps: int
    tiles_out_of_focus: int
    slides_with_padding: int
    slides_with_pen: int
    train_tiles_with_pen: int
    tiles_repaired: int
    tissue_beyond_grid: float


def left_out(tissue: TissueMap, choices: list[Choice]) -> LeftOut:
    """What a slide's choices leave out; they are those of all scales, tile.mpp's first."""
    return {
        "tissue_fraction": round(float(tissue.mask.mean()), 4),
        "padding_fraction": round(tissue.artefact_fraction(PADDING), 4),
        "pen_fraction": round(tissue.artefact_fraction(PEN), 4),
        "with_artefacts": sum(choice.with_artefacts for choice in choices),
        "in_gaps": sum(choice.in_gaps for choice in choices),
        "tissue_beyond_grid": round(choices[0].beyond, 4),
    }


def totals(slides: Sequence[SlideRecord]) -> TissueLeftOut:
    """Over the slides of a study that were cut."""
    areas = [s["tissue_fraction"] * s["width_px"] * s["height_px"] * s["mpp_level0"] ** 2 for s in slides]
    beyond = sum(area * s["tissue_beyond_grid"] for area, s in zip(areas, slides))
    return {
        "tiles_with_artefacts": sum(s["with_artefacts"] for s in slides),
        "tiles_in_gaps": sum(s["in_gaps"] for s in slides),
        "tiles_out_of_focus": sum(s["out_of_focus"] for s in slides),
        "slides_with_padding": sum(s["padding_fraction"] > 0 for s in slides),
        "slides_with_pen": sum(s["pen_fraction"] > 0 for s in slides),
        "train_tiles_with_pen": sum(s["train_with_pen"] for s in slides),
        "tiles_repaired": sum(s["repaired"] for s in slides),
        "tissue_beyond_grid": round(beyond / max(sum(areas), 1e-9), 4),
    }


def remarks(slides: Mapping[str, LeftOut]) -> list[str]:
    """What is much, in a sentence each that names the slides; `slides` are by their ids."""
    found: dict[str, list[tuple[float, str]]] = {}
    for slide_id, facts in slides.items():
        for sentence, fraction in _remarks_on(facts):
            found.setdefault(sentence, []).append((fraction, slide_id))
    lines = []
    for sentence, names in found.items():
        names.sort(key=lambda each: (-each[0], each[1]))
        named = ", ".join(f"{name} ({fraction:.0%})" for fraction, name in names[:_SLIDES_NAMED])
        more = f", and {len(names) - _SLIDES_NAMED} more" if len(names) > _SLIDES_NAMED else ""
        lines.append(f"{sentence} {len(names)} slide(s): {named}{more}.")
    return lines


def _remarks_on(slide: LeftOut) -> list[tuple[str, float]]:
    found, pen, padding = [], slide["pen_fraction"], slide["padding_fraction"]
    if slide["tissue_beyond_grid"] > MUCH_BEYOND_GRID:
        words = "Tissue at the right or lower border fills no tile and is left out; tile.edge: shift takes it."
        found.append((words, slide["tissue_beyond_grid"]))
    if pen > MUCH_PEN * (pen + slide["tissue_fraction"]):
        words = "Much of the slide has the colours of pen and is left out; tile.tissue.leave_out: [padding] keeps it, if it is a stain."
        found.append((words, pen))
    if padding > MUCH_PADDING * (padding + slide["tissue_fraction"]):
        words = "Much of the slide is grey, black or flat up to its border and is left out as padding; tile.tissue.leave_out: [pen] keeps it, if it is tissue."
        found.append((words, padding))
    if slide.get("out_of_focus", 0) > MUCH_OUT_OF_FOCUS * slide.get("with_tissue", 0):
        words = "Many tiles are out of focus; tile.tissue.out_of_focus says whether they are kept."
        found.append((words, slide["out_of_focus"] / slide["with_tissue"]))
    return found
