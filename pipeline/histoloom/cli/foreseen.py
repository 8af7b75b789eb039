"""What a stage that comes late would refuse, or would not read, as far as params and manifests tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from histoloom.config import Params
from histoloom.config.package import context_length, packaged
from histoloom.data.manifest import Manifest
from histoloom.errors import Fault, HistoloomError, Note
from histoloom.slides.describe import known_captions
from histoloom.slides.open import open_slide
from histoloom.slides.slide import BadSlide


def check_study(params: Params, manifest: Manifest, splits: dict[str, str]) -> list[Fault | Note]:
    """Faults and notes of a study whose params, manifests and splits have none."""
    checks = (
        _held_out(params, splits),
        _instances(params, manifest),
        _regions(params, manifest),
        _captions(params, manifest),
    )
    return [found for check in checks for found in check]


def _held_out(params: Params, splits: dict[str, str]) -> Iterator[Fault]:
    if not {"val", "test"} & set(splits.values()):
        problem = "no group is in val or test, so that evaluate has nothing to measure against"
        problem += ", and plan.evaluation_tiles nobody to lend conditions." if params.plan.evaluation_tiles else "."
        yield Fault("params.yaml, tile.split", problem, "hold some out: fractions, assign, or the column split.")


def _instances(params: Params, manifest: Manifest) -> Iterator[Fault]:
    """Nuclei that must be told apart, by every slide that lends a mask."""
    if "mask" not in params.train_denoiser.conditions or params.tile.masks.source == "stain":
        return
    lacking = [entry.slide_id for entry in manifest.slides if entry.instances is None]
    asks = ["encode.edges"] if params.encode.edges else []
    asks += [
        f"plan.requests, '{request.name}', change.mask"
        for request in params.plan.requests
        if request.change.mask.multiply or request.change.mask.scatter
    ]
    for key in asks if lacking else ():
        problem = f"it needs nuclei that are told apart, and {len(lacking)} slides name no 'instances' (first: '{lacking[0]}')."
        yield Fault(f"params.yaml, {key}", problem, "name them in slides.csv, or set tile.masks.source to stain.")


def _regions(params: Params, manifest: Manifest) -> Iterator[Fault]:
    """Regions that a canvas begins from, which must lie on their slide."""
    entries = {entry.slide_id: entry for entry in manifest.slides}
    for slide in params.sample_slides.slides:
        image = slide.image
        if image is None or image.slide_id not in entries:
            continue
        entry = entries[image.slide_id]
        try:
            with open_slide(entry.path, entry.mpp, params.tile.max_slide_gpx) as source:
                size, scale = (source.width, source.height), params.tile.mpp / source.mpp
        except BadSlide:
            continue  # said where slides are looked at
        ends = (image.x_level0_px + image.width_px * scale, image.y_level0_px + image.height_px * scale)
        if any(end > side + 1 for end, side in zip(ends, size)):
            problem = (
                f"the region reaches beyond slide '{image.slide_id}', which is {size[0]} x {size[1]} px at level 0."
            )
            yield Fault(f"params.yaml, sample_slides.slides, '{slide.name}'", problem, "mend image.")


def _captions(params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
    """What the text tower will not read of captions, as far as they are known before tiles are cut."""
    if "text" not in params.train_denoiser.conditions:
        return
    config = params.train_encoders.text
    known, whole = known_captions(manifest, params.tile)
    if config.source == "train" and whole and len(known) < 2:
        problem = "all captions are one, and a text tower has nothing to tell apart."
        yield Fault("params.yaml, tile.caption", problem, "quote more, or take text out of train_denoiser.conditions.")
        return
    stated = {request.change.caption for request in params.plan.requests} | {
        s.caption for s in params.sample_slides.slides
    }
    captions = {caption for caption in known | stated if caption}
    folder = Path(packaged(config.source, "encoders/text"))
    if config.source != "train" and not folder.is_dir():
        return  # a hub's tower may not be here
    length = config.context_length if config.source == "train" else context_length(folder)
    # A token is a byte at least: what is this short is read whole, and need not wait for torch.
    if all(len(caption.encode()) + 2 <= length for caption in captions):
        return
    from histoloom.conditions.reader import said
    from histoloom.conditions.text import text_reader

    try:
        measured = text_reader(config).measure(captions)
    except HistoloomError as error:
        yield Fault("params.yaml, train_encoders.text.source", str(error), "mend the folder, or name another.")
        return
    if words := said(measured):
        yield Note(
            "params.yaml, train_encoders.text", words if whole else f"of what is known before tiles are cut, {words}"
        )
