"""What a stage that comes late would refuse, or would not read, as far as params and manifests tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.config import Params
from pipeline.config.package import context_length, has_part, packaged
from pipeline.data.manifest import Manifest, SlideEntry
from pipeline.emit.gate import check_ancestors
from pipeline.errors import Fault, HistoloomError, Note
from pipeline.models.lineage import Lineage, read_lineage
from pipeline.slides.describe import known_captions, split_groups
from pipeline.slides.open import BadSlide, open_slide

_OF_NO_PATIENT = ("scratch", "train", "efficientnet-lite0", "inception-v3")


def check_study(params: Params, manifest: Manifest, splits: dict[str, str]) -> list[Fault | Note]:
    """Faults and notes of a study whose params, manifests and splits have none."""
    checks = (_held_out(params, splits), _instances(params, manifest), _ancestors(params, manifest, splits))
    return [found for check in (*checks, _regions(params, manifest), _captions(params, manifest)) for found in check]


def _held_out(params: Params, splits: dict[str, str]) -> Iterator[Fault]:
    if not {"val", "test"} & set(splits.values()):
        problem = "no group is in val or test, and evaluate has nothing to measure against."
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


def _ancestors(params: Params, manifest: Manifest, splits: dict[str, str]) -> Iterator[Fault]:
    """What `emit` would refuse of the models that this study begins from, asked of its own gate."""
    rows = pd.DataFrame([row for entry in manifest.slides for row in _rows(entry, params, splits)])
    synthetic = pd.DataFrame(
        {"tile_id": ["tile"], "purpose": "augment", "generator_sha256": "begun from", "ancestors": [[]]}
    )
    for key, source, record in _begun_from(params):
        try:
            check_ancestors(synthetic, {"begun from": record.record}, rows, params.emit.allow_unknown_ancestors)
        except HistoloomError as error:
            remedy = "begin from another model, or state what the error asks for."
            yield Fault(f"params.yaml, {key}", f"emit will refuse what '{source}' makes: {error}", remedy)


def _rows(entry: SlideEntry, params: Params, splits: dict[str, str]) -> Iterator[dict]:
    for group in split_groups(entry, params.tile):
        names = {"slide_id": entry.slide_id, "patient_id": entry.patient_id, "dataset": entry.extra.get("dataset")}
        yield names | {"split_group": group, "split": splits[group]}


def _begun_from(params: Params) -> Iterator[tuple[str, str, Lineage]]:
    """Every model that what is made descends from, the same one once."""
    names, encoders, seen = params.train_denoiser.conditions, params.train_encoders, []
    sources = [
        ("train_denoiser.init", params.train_denoiser.init, "denoiser", True),
        ("train_autoencoder.init", params.train_autoencoder.init, "autoencoder", True),
        ("train_encoders.text.source", encoders.text.source, "encoders/text", "text" in names),
        ("train_encoders.rna.init", encoders.rna.init, "encoders/rna", "rna" in names),
    ]
    for key, source, part, used in sources:
        if source in _OF_NO_PATIENT or not used:
            continue
        folder = Path(packaged(source, part))
        inside = has_part(source, part) or part == "encoders/rna"
        record = read_lineage(folder.parent if part.startswith("encoders/") and inside else folder)
        if record not in seen:
            seen.append(record)
            yield key, source, record
    if "image" in names and encoders.image.source not in _OF_NO_PATIENT:
        yield "train_encoders.image.source", encoders.image.source, Lineage(unknown=(encoders.image.source,))


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
    from pipeline.conditions.reader import said
    from pipeline.conditions.text import text_reader

    try:
        measured = text_reader(config).measure(captions)
    except HistoloomError as error:
        yield Fault("params.yaml, train_encoders.text.source", str(error), "mend the folder, or name another.")
        return
    if words := said(measured):
        yield Note(
            "params.yaml, train_encoders.text", words if whole else f"of what is known before tiles are cut, {words}"
        )
