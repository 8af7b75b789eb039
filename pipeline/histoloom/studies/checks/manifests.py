"""What late stages would refuse, or would not read, as far as manifests, their splits and their slides tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from histoloom.config import Params, Tile
from histoloom.config.package import context_length, packaged
from histoloom.data.few_groups import empty_splits, few_groups, more_groups
from histoloom.data.found import listed
from histoloom.data.groups import split_groups
from histoloom.data.manifest import Manifest
from histoloom.errors import Fault, HistoloomError, Note, key_fault
from histoloom.slides.describe import known_captions
from histoloom.studies.checks.slides import SlideFacts


def check_splits(params: Params, manifest: Manifest, splits: dict[str, str]) -> Iterator[Fault | Note]:
    """Whether somebody is held out, whose split is stated twice, and whether nuclei are told apart where they must be."""
    yield from _check_held_out(params, manifest, splits)
    yield from _check_moved(params.tile, manifest)
    if "mask" not in params.conditions or params.tile.masks.by_stain:
        return
    lacking = [entry.slide_id for entry in manifest.stated if entry.instances is None]
    needing = ["encode.edges"] if params.encode.edges else []
    needing += [
        f"plan.requests, '{request.name}', change.mask"
        for request in params.plan.requests
        if request.change.mask.multiply or request.change.mask.scatter
    ]
    for key in needing if lacking else ():
        problem = f"it needs nuclei that are told apart, and {len(lacking)} slides name no 'instances' (first: '{lacking[0]}')."
        yield key_fault(key, problem, "name them in slides.csv, or set tile.masks.source to stain.")


def _check_moved(config: Tile, manifest: Manifest) -> Iterator[Note]:
    """Groups whose split both slides.csv and params state, and not the same."""
    moved = {
        group
        for entry in manifest.stated
        for group in split_groups(entry, config)
        if entry.split and config.split.assign.get(group, entry.split) != entry.split
    }
    if moved:
        fact = f"it moves {listed(sorted(moved))} to another split than the manifest states. What stands here counts."
        yield Note("params.yaml, tile.split.assign", fact)


def _check_held_out(params: Params, manifest: Manifest, splits: dict[str, str]) -> Iterator[Fault | Note]:
    config, patients = params.tile.split, {entry.patient_id for entry in manifest.stated}
    if config.group == "patient" and len(patients) == 1:
        return  # which is a fault of patient_id
    few, empty = few_groups(splits, config), empty_splits(splits, config)
    slides = [entry.slide_id for entry in manifest.stated]
    more = more_groups(slides, patients, config, of_sets=bool(manifest.sets)) if few else ""
    if not {"val", "test"} & set(splits.values()):
        problem = "no group is in val or test, so that evaluate has nothing to measure against"
        problem += (
            ", and plan.evaluation_tiles no tile to take conditions from." if params.plan.evaluation_tiles else "."
        )
        said = f"{problem} {few[0].upper()}{few[1:]}." if few else problem
        yield key_fault("tile.split", said, more or "hold some out: fractions, assign, or the column split.")
    elif "val" not in splits.values() and "near_copy" in params.filter.use:
        problem = "near_copy is calibrated on tiles of val, and no group is in val."
        yield key_fault("filter.use", problem, "put a group in val (tile.split), or take near_copy out.")
    for name in empty if few and "train" not in empty and len(empty) == 1 else ():
        fact = f"no group is in {name}: {few}. {_INSTEAD[name]} {more[0].upper()}{more[1:]} If none is wanted, set its fraction to 0."
        yield Note("params.yaml, tile.split", fact)


_INSTEAD = {
    "val": "Trainings are watched on train, which flatters.",
    "test": "What is chosen by val is measured on val too, which flatters.",
}


def check_regions(params: Params, slides: Mapping[str, SlideFacts]) -> Iterator[Fault]:
    """Regions that a canvas begins from, which must lie on their slide."""
    for canvas in params.sample_slides.slides:
        image = canvas.image
        if image is None or image.slide_id not in slides:
            continue  # said where slides are looked at
        slide, scale = slides[image.slide_id], params.tile.mpp / slides[image.slide_id].mpp
        right, bottom = image.x_level0_px + image.width_px * scale, image.y_level0_px + image.height_px * scale
        if right > slide.width_px + 1 or bottom > slide.height_px + 1:
            size = f"{slide.width_px} x {slide.height_px} px at level 0"
            problem = f"the region reaches beyond slide '{image.slide_id}', which is {size}."
            yield key_fault(f"sample_slides.slides, '{canvas.name}'", problem, "mend image.")


def check_captions(params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
    """What the text tower will not read of captions, as far as they are known before tiles are cut."""
    if "text" not in params.conditions:
        return
    config = params.train_encoders.text
    known, whole = known_captions(manifest, params.tile)
    if config.source == "train" and whole and len(known) < 2:
        problem = "all captions are one, and a text tower has nothing to tell apart."
        yield key_fault("tile.caption", problem, "quote more, or take text out of train_denoiser.conditions.")
        return
    captions = {request.change.caption for request in params.plan.requests} | {*known}
    captions |= {slide.caption for slide in params.sample_slides.slides}
    stated = [caption for caption in captions if caption]
    folder = Path(packaged(config.source, "encoders/text", config.revision))
    if config.source != "train" and not folder.is_dir():
        return  # a hub's tower may not be here
    length = config.context_length if config.source == "train" else context_length(folder)
    # A token is a byte at least: what is this short is read whole, and need not wait for torch.
    if all(len(caption.encode()) + 2 <= length for caption in stated):
        return
    from histoloom.conditions.caption_length import said
    from histoloom.conditions.text import text_reader

    try:
        reader = text_reader(config)
        assert reader is not None, "a tower that is here has a reader"
        words = said(reader.measure(stated))
    except HistoloomError as error:
        yield key_fault("train_encoders.text.source", str(error), "mend the folder, or name another.")
        return
    if words:
        before = "" if whole else "of what is known before tiles are cut, "
        yield Note("params.yaml, train_encoders.text", f"{before}{words}")
