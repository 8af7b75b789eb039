"""What the inputs of a study's canvases are made from, and whether a slide may draw on the groups that it draws on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from histoloom.conditions.encode import ConditionSet
from histoloom.config import Params, WovenSlide
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.store import TileStore
from histoloom.errors import Fault
from histoloom.targets.target import Raster


@dataclass(frozen=True)
class InputSources:
    """What the inputs of a study's canvases are made from.

    target, conditions : of the trained model.
    tiles : the study's real tiles, whose conditions a grid may take; None without a study.
    slides : slide_id to the manifest's entry; a canvas may begin from a region of one.
    """

    params: Params
    target: Raster
    conditions: ConditionSet
    tiles: TileStore | None
    slides: dict[str, SlideEntry]

    @property
    def factor(self) -> int:
        """Pixels to a latent pixel."""
        return self.target.factor

    @property
    def maps(self) -> dict[str, tuple[slice, tuple[str, ...]]]:
        """Of each condition that is a map, where its channels lie among those of all, and their names."""
        found, start = {}, 0
        for spec in (spec for spec in self.conditions.specs() if spec.shape == "map"):
            found[spec.name] = slice(start, start + spec.size), spec.channels
            start += spec.size
        return found


def check_source_groups(slide: WovenSlide, groups: Iterable[str], splits: dict[str, str]) -> list[Fault]:
    """Faults of the split groups that a slide draws on: those that aren't there, and held-out ones for what is to be emitted."""
    faults, place = [], f"sample_slides.slides, '{slide.name}'"
    for group in groups:
        if group not in splits:
            known = ", ".join(sorted(splits)[:4])
            faults.append(Fault("params.yaml", f"{place}: '{group}' is no split group.", f"groups are {known}, ..."))
        elif slide.purpose == "augment" and splits[group] != "train":
            problem = f"{place}: '{group}' is held out ({splits[group]}), and purpose is augment."
            faults.append(Fault("params.yaml", problem, "draw on train groups alone, or set purpose: evaluate."))
    return faults
