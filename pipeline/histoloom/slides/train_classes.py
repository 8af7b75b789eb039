"""Classes that the train split can't show, told from the slides' annotations before a tile is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from histoloom.config import Params, Request, Tile
from histoloom.config.tile import STAINED
from histoloom.data.found import Found
from histoloom.data.groups import split_groups
from histoloom.data.held_out_classes import class_counts, lacking_in_words
from histoloom.data.label_budget import visible_fractions
from histoloom.data.manifest import Manifest
from histoloom.data.pixel_box import PixelBox
from histoloom.data.schema import SPLITS
from histoloom.errors import Fault, Note
from histoloom.slides.annotate import Annotations

_BOX_PX = 4096


@dataclass(frozen=True)
class AnnotatedClasses:
    """The classes of tile labels and of masks that a slide's annotations name."""

    labels: frozenset[str]
    masks: frozenset[str]


def annotated_classes(annotations: Annotations, size_px: tuple[int, int]) -> AnnotatedClasses:
    """The classes on a slide of this (width, height) at level 0."""
    config = annotations.config
    labels = _of_source(annotations, config.labels.source, config.labels.classes, size_px)
    masks = _of_source(annotations, config.masks.source, config.masks.classes, size_px)
    if annotations.entry.predicted is not None and not annotations.entry.masks_annotated(config):
        masks = frozenset(config.masks.classes)  # as far as anybody can tell before it is read
    return AnnotatedClasses(labels, masks | ({*STAINED} & {*config.masks.classes} if config.masks.by_stain else set()))


def _of_source(
    annotations: Annotations, source: str, classes: tuple[str, ...], size: tuple[int, int]
) -> frozenset[str]:
    if source == "slide":
        return frozenset(name for name in classes if name == annotations.entry.label)
    if source == "spots":
        return frozenset(() if annotations.spots is None else annotations.spots["label"])
    if source == "polygons":
        return frozenset({*annotations.regions.names} & {*classes})
    if source == "raster" and (annotations.entry.mask or annotations.entry.instances):
        return _of_raster(annotations, classes, size)
    return frozenset(classes)


def _of_raster(annotations: Annotations, classes: tuple[str, ...], size: tuple[int, int]) -> frozenset[str]:
    found: set[int] = set()
    for x, y in product(*(range(0, side, _BOX_PX) for side in size)):
        box = PixelBox(x, y, min(_BOX_PX, size[0] - x), min(_BOX_PX, size[1] - y))
        found |= {*np.unique(annotations.ids(classes, "raster", box, 1.0)).tolist()} - {0}
        if len(found) == len(classes):
            break
    return frozenset(classes[number - 1] for number in found if number <= len(classes))


def check_classes(
    params: Params, manifest: Manifest, splits: Mapping[str, str], annotated: Mapping[str, AnnotatedClasses]
) -> list[Fault | Note]:
    """What can't be learned, as no train slide shows it: notes, and faults where the plan asks for it.

    Parameters
    ----------
    splits : group to split. annotated : slide to its classes; of every slide of the manifest.
    """
    config, found = params.tile, Found("params.yaml")
    places = _places(manifest, config, splits, params.seed)
    of_labels = {slide: each.labels for slide, each in annotated.items()}
    of_masks = {slide: each.masks for slide, each in annotated.items()}
    labels = _slides_of(config.labels.named, of_labels, places)
    masks = _slides_of(config.masks.classes, of_masks, places)
    for column, classes, of in (("tile.labels.classes", labels, of_labels), ("tile.masks.classes", masks, of_masks)):
        for name, count in classes.items():
            if not count["train"]:
                found.note(f"{_where_else(count)} '{name}': it can't be learned or made.", column)
        for line in _held_out(manifest, config, splits, [*classes], of, places):
            found.note(line, column)
    _check_plan(params, labels, masks, "test" if "test" in splits.values() else "val", found)
    return found.all


def _places(manifest: Manifest, config: Tile, splits: Mapping[str, str], seed: int) -> dict[str, set[str]]:
    """Slide to the splits in which its labels are visible."""
    visible = visible_fractions(manifest, config, splits, seed)
    return {
        entry.slide_id: {
            s for s in (splits[g] for g in split_groups(entry, config)) if visible[entry.slide_id].get(s, 1) > 0
        }
        for entry in manifest.stated
    }


def _slides_of(
    classes: tuple[str, ...], annotated: Mapping[str, frozenset[str]], places: Mapping[str, set[str]]
) -> dict[str, dict[str, int]]:
    """Class to split to the number of slides that show it there."""
    return {
        name: {
            split: sum(name in annotated[slide] and split in places[slide] for slide in annotated) for split in SPLITS
        }
        for name in classes
    }


def _held_out(
    manifest: Manifest,
    config: Tile,
    splits: Mapping[str, str],
    classes: list[str],
    annotated: Mapping[str, frozenset[str]],
    places: Mapping[str, set[str]],
) -> Iterator[str]:
    """Which of these classes val or test lack, in words. Of regions only tiles tell."""
    if config.split.group == "region":
        return
    shown = [
        (name, splits[group], group)
        for entry in manifest.stated
        for group in split_groups(entry, config)
        for name in annotated[entry.slide_id]
        if splits[group] in places[entry.slide_id]
    ]
    rows = pd.DataFrame(shown, columns=["label", "split", "split_group"])
    yield from lacking_in_words(class_counts(rows, classes), {*splits.values()}, "slide", config.split.group)


def _where_else(count: Mapping[str, int]) -> str:
    there = [f"{number} {split} slide(s)" for split, number in count.items() if number]
    if not there:
        return "look at the spelling: no slide whose labels are visible shows"
    return f"{' and '.join(there)}, and no train slide, show"


def _check_plan(
    params: Params, labels: Mapping[str, dict], masks: Mapping[str, dict], held_out: str, found: Found
) -> None:
    """What the plan can't make: faults of what it names, a note where it names nothing and can make nothing."""
    plan, remedy = params.plan, "give that split a slide of it, or take it out of the plan."
    if plan.target != "none":
        for name in plan.classes:
            if not labels.get(name, {}).get("train"):
                found.fault(f"'{name}' is on no train slide.", remedy, column="plan.classes")
        if not any(count["train"] for count in labels.values()):
            fact = "plan will refuse it: no train slide has a label of tile.labels.classes."
            found.note(
                f"{fact} Label some, or set it to none and state plan.requests or plan.evaluation_tiles.", "plan.target"
            )
    for number, request in enumerate(plan.requests):
        for name, classes in _asked(request, labels, masks):
            count = classes.get(name, {})
            split = {"augment": "train", "evaluate": held_out, "predict": ""}[request.purpose]
            if not (count.get(split) if split else any(count.values())):
                problem = f"it asks for '{name}', which is on no {f'{split} slide' if split else 'slide'}."
                found.fault(problem, remedy, column=f"plan.requests[{number}].where")


def _asked(request: Request, labels: Mapping[str, dict], masks: Mapping[str, dict]) -> list[tuple[str, Mapping]]:
    asked: list[tuple[str, Mapping]] = []
    for where in request.selections.values():
        asked += [] if where.label is None else [(where.label, labels)]
        asked += [(name, masks) for name, fraction in where.contains.items() if fraction > 0]
    return asked
