"""Every check of a study, in the order of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from histoloom.config import Params, check_cluster, check_params
from histoloom.config.file_keys import placed
from histoloom.config.package import packaged
from histoloom.data.codes import known_salt
from histoloom.data.groups import study_keys, study_splits
from histoloom.data.keys import StudyKeys
from histoloom.data.manifest import Manifest, check_manifest
from histoloom.data.requests import check_requests
from histoloom.data.study_folder import Study
from histoloom.data.tables import check_tables
from histoloom.errors import Fault, HistoloomError, ManifestFaults, Note, faults_among
from histoloom.registry import registered
from histoloom.slides.train_classes import AnnotatedClasses, check_classes
from histoloom.studies.checks.manifests import check_captions, check_regions, check_splits
from histoloom.studies.checks.models import check_lineage, check_predictions, check_repair
from histoloom.studies.checks.params import check_stages
from histoloom.studies.checks.slides import SlideFacts, open_slides
from histoloom.studies.checks.tile_sets import classes_of_sets, open_sets

_CHECKED_WITHOUT_TORCH = ("text", "rna", "image")
"""Conditions whose modules load torch, which takes seconds; check_captions and check_tables look at what they need."""


def check_study(study: Study) -> list[Fault | Note]:
    """All faults of a study, and notes on what it leaves out. Faults of params.yaml alone come alone."""
    cluster, faults = check_cluster(study.root / "cluster.yaml")
    stated, of_params = check_params(study.root / "params.yaml")
    found = [*faults, *of_params]
    if stated is None:
        return found
    params = placed(stated, study.root)
    if cluster and not faults_among(found):
        found += check_stages(params, cluster, study.reviews)
    found += _check_salt(study.salt)
    manifest, of_manifest = check_manifest(params.tile)
    slides, of_slides = open_slides(manifest, params.tile)
    of_slides += open_sets(manifest, params.tile)
    return [
        *found, *of_manifest, *of_slides, *_check_slides_and_splits(study, params, manifest, slides), *_check_weights(params),
    ]  # fmt: skip


def check_tiles(study: Study) -> list[Fault]:
    """Faults that only the tiles show.

    Raises
    ------
    HistoloomError
        when there are no tiles yet.
    """
    from histoloom.quality.shared_tissue import find_duplicates

    if not any(study.tiles.glob("*/commit.json")):
        raise HistoloomError("validate --deep looks at data/tiles, and there are none: run dvc repro tile first.")
    return find_duplicates(study.real(), study.params.tile)


def _check_slides_and_splits(
    study: Study, params: Params, manifest: Manifest, slides: dict[str, SlideFacts]
) -> list[Fault | Note]:
    """What follows from the manifest's slides and their splits; the tables, which need neither, are checked in any case."""
    config = params.tile
    if not manifest.stated:
        return _check_tables(params)
    try:
        splits = study_splits(manifest, config, params.seed)
    except ManifestFaults as error:
        return [*error.faults, *_check_tables(params)]
    if "train" not in splits.values():
        fault = Fault(config.stated_in, "no group is in the train split.", "state train for some, or add slides.")
        return [fault, *_check_tables(params)]
    found: list[Fault | Note] = [*_check_conditions(params, manifest)]
    found += [*check_requests(params, manifest, splits), *_check_canvases(params, splits, manifest)]
    found += [
        *check_repair(params),
        *check_predictions(params, manifest),
        *check_lineage(params, manifest, splits, study.salt),
    ]
    found += [
        *check_splits(params, manifest, splits),
        *check_regions(params, slides),
        *check_captions(params, manifest),
    ]
    found += _check_tables(params, partial(study_keys, manifest, config, splits))
    if {entry.slide_id for entry in manifest.slides} == {*slides}:
        annotated = classes_of_sets(manifest, config)
        for name, each in slides.items():
            before = annotated.get(name, each.classes)
            annotated[name] = AnnotatedClasses(before.labels | each.classes.labels, before.masks | each.classes.masks)
        found += check_classes(params, manifest, splits, annotated)
    return found


def _check_conditions(params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
    for link in params.run_models.values():
        for name in [n for n in link.train_denoiser.encoded if n not in _CHECKED_WITHOUT_TORCH]:
            yield from registered("condition", name).check(link, manifest)


def _check_tables(params: Params, keys: Callable[[str], StudyKeys] | None = None) -> list[Fault | Note]:
    init = params.train_encoders.rna.init
    return check_tables(params, keys, None if init == "train" else Path(packaged(init, "encoders/rna")))


def _check_salt(path: Path) -> list[Fault]:
    """What emit would say of the salt, where there is one; else emit makes it."""
    try:
        known_salt(path)
    except HistoloomError as error:
        return [Fault("the salt of codes", str(error), "emit would stop there.")]
    return []


def _check_weights(params: Params) -> list[Fault]:
    if params.evaluate.weights is None:
        return []
    from histoloom.conditions.inception import check_weights  # which loads torch

    return check_weights(params.evaluate.features, params.evaluate.weights)


def _check_canvases(params: Params, splits: dict[str, str], manifest: Manifest) -> list[Fault | Note]:
    if not params.sample_slides.slides:
        return []
    from histoloom.canvas.write_inputs import check_slides  # which loads torch

    return check_slides(params.last, splits, [entry.slide_id for entry in manifest.slides])
