"""What the pretrained models that params name were trained on, held against the manifest before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd

from histoloom.config import Params
from histoloom.config.extractors import OF_NO_PATIENT, TRAIN
from histoloom.config.package import packaged, tile_encoder_of
from histoloom.config.pretrained import named_models
from histoloom.data.codes import known_salt
from histoloom.data.groups import split_groups
from histoloom.data.lineage import Lineage, lineage_of
from histoloom.data.lineage_match import Recognised, all_in_train, answer, first, grid_of, recognise
from histoloom.data.manifest import Manifest
from histoloom.data.slide_entry import SlideEntry
from histoloom.errors import Fault, HistoloomError, Note
from histoloom.slides.predicted import lineage_of_prediction, read_prediction


def check_lineage(params: Params, manifest: Manifest, splits: dict[str, str], salt: Path) -> list[Fault]:
    """What the leak gate of `emit`, `evaluate` and `uplift` will refuse of the models that params name."""
    columns = ["slide_id", "patient_id", "split_group", "split", "dataset"]
    rows = [  # a row for each slide and group, as `tile` will write them
        (entry.slide_id, entry.patient_id, group, splits[group], entry.extra.get("dataset"))
        for entry in manifest.stated
        for group in split_groups(entry, params.tile)
    ]
    table, grid = pd.DataFrame(rows, columns=columns), grid_of(params.tile.split)
    lineages = _lineages(params) | _of_predictions(params, manifest, splits)
    found = {key: recognise(lineage.record, table, known_salt(salt), grid) for key, lineage in lineages.items()}
    seen = {group for each in found.values() for group in each.seen}  # by any model, so that one block mends all
    remedy = all_in_train(seen, params.tile.split.assign, is_all=seen == {*splits})
    return [fault for key, each in found.items() for fault in _faults(key, each, manifest, params, remedy)]


def _lineages(params: Params) -> dict[str, Lineage]:
    """Key of params to the lineage of the model that it names; each record once."""
    out: dict[str, Lineage] = {}
    if params.tile.repair.is_on and Path(packaged(params.tile.repair.model, "denoiser")).is_dir():
        out["tile.repair.model"] = lineage_of(params.tile.repair.model, "denoiser")
    for name, link in params.run_models.items():
        of_model = f"models.{name}." if name else ""
        for key, (source, part, revision) in named_models(link).items():
            lineage = lineage_of(source, part, revision)
            if lineage not in out.values():
                out[of_model + key] = lineage
        if "image" in link.train_denoiser.encoded:
            tower = link.train_encoders.image.source
            if tower not in (TRAIN, *OF_NO_PATIENT) and tile_encoder_of(tower) is None:
                out[f"{of_model}train_encoders.image.source"] = Lineage(unknown=(tower,))
    return out


def check_repair(params: Params) -> Iterator[Fault]:
    """Whether the model is there that makes pen anew. What it makes is looked at by `tile`."""
    model = params.tile.repair.model
    if params.tile.repair.is_on and not Path(packaged(model, "denoiser")).is_dir():
        remedy = "name a packaged model, or the models folder of a study; of several models, the folder of one."
        yield Fault("params.yaml", f"tile.repair.model names no model: {model}.", remedy)


def _of_predictions(params: Params, manifest: Manifest, splits: dict[str, str]) -> dict[str, Lineage]:
    """Slide to the lineage of the learner whose masks train tiles of it will have; each record once."""
    out: dict[str, Lineage] = {}
    for entry, path in _with_predictions(params, manifest):
        of_train = "train" in {splits[group] for group in split_groups(entry, params.tile)}
        if not of_train or (entry.masks_annotated(params.tile) and params.tile.labels.fraction == 1):
            continue
        with suppress(HistoloomError):  # check_predictions says it
            if (lineage := lineage_of_prediction(path)) not in out.values():
                out[f"the column predicted of '{entry.slide_id}'"] = lineage
    return out


def check_predictions(params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
    """Whether predicted masks are read, say what they are, and know the study's classes."""
    where, stated = params.tile.stated_in, [e for e in manifest.slides if e.predicted is not None]
    if stated and not params.tile.masks.drawn:
        fact = f"{len(stated)} slide(s) have predicted masks, which are not read: tile.masks.source is {params.tile.masks.source}."
        yield Note(where, fact, stated[0].row, "predicted")
    for entry, path in _with_predictions(params, manifest):
        try:
            facts = read_prediction(path)
        except HistoloomError as error:
            yield Fault(where, str(error), "see histoloom predict --help.", entry.row, "predicted")
            continue
        if unknown := [name for name in params.tile.masks.classes if name not in facts.classes]:
            problem = f"its learner knows {', '.join(facts.classes)}, and tile.masks.classes names {unknown[0]}."
            yield Fault(where, problem, "predict with a learner that knows it.", entry.row, "predicted")


def _with_predictions(params: Params, manifest: Manifest) -> list[tuple[SlideEntry, Path]]:
    """Slides whose predicted masks may be read, each with what states these."""
    slides = manifest.slides if params.tile.masks.drawn else ()
    return [(entry, entry.predicted) for entry in slides if entry.predicted is not None]


def _faults(key: str, found: Recognised, manifest: Manifest, params: Params, remedy: str) -> Iterator[Fault]:
    where, lines = params.tile.stated_in, {entry.slide_id: entry.row for entry in manifest.stated}
    for name in found.held_out:
        problem = f"'{name}' is held out, and the model of {key} was trained on it."
        yield Fault(where, problem, f"name another model, or {remedy}", lines.get(name), "split")
    several = len({*found.unstated.values()}) > 1
    for slide, name in found.unstated.items():
        problem = f"the model of {key} was trained on '{name}', which may be this held-out slide, or its patient."
        yield Fault(where, problem, answer(name, several=several), lines.get(slide), "dataset")
    if found.unknown and not params.emit.allow_unknown_ancestors:
        problem = f"nobody knows whose these are, on which the model of {key} was trained: {first(found.unknown)}."
        remedy = "state `dataset` in slides.csv if they are slides of yours, or set emit.allow_unknown_ancestors: true."
        yield Fault("params.yaml", problem, f"{remedy} Else emit refuses the tiles.")
