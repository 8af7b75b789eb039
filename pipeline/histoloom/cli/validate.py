"""`histoloom validate`: every fault at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from histoloom.cli.begun_from import check_begun_from
from histoloom.cli.foreseen import check_study
from histoloom.cli.probe import probe_slides
from histoloom.config import Params, check_cluster, check_params
from histoloom.config.foreseen import check_foreseen
from histoloom.config.package import packaged
from histoloom.data.codes import known_salt
from histoloom.data.groups import study_keys, study_splits
from histoloom.data.keys import StudyKeys
from histoloom.data.manifest import Manifest, check_manifest
from histoloom.data.requests import check_requests
from histoloom.data.study_folder import Study
from histoloom.data.tables import check_tables
from histoloom.errors import Fault, HistoloomError, ManifestFaults, Note, faults_among
from histoloom.slides.classes import AnnotatedClasses, check_classes


def validate_study(study: Study | None = None) -> list[Fault | Note]:
    """All faults of a study, in the order of its files, and the notes on what it leaves out."""
    study = study or Study()
    (cluster, faults), (params, found) = (
        check_cluster(study.root / "cluster.yaml"),
        check_params(study.root / "params.yaml"),
    )
    faults += found
    if params is None:
        return faults
    if cluster and not faults_among(faults):
        faults += check_foreseen(params, cluster)
    faults += _check_salt(study.salt)
    manifest, found = check_manifest(params.tile)
    faults += found
    stated, of_slides = probe_slides(manifest, params.tile)
    faults += of_slides
    faults += _check_splits(study, manifest, params, stated) + _check_weights(params)
    return faults


def validate_deep(study: Study) -> list[Fault]:
    """Faults that only the tiles show.

    Raises
    ------
    HistoloomError
        when there are no tiles yet.
    """
    from histoloom.quality.duplicates import find_duplicates

    if not any(study.tiles.glob("*/commit.json")):
        raise HistoloomError("validate --deep looks at data/tiles, and there are none: run dvc repro tile first.")
    return find_duplicates(study.real(), study.params.tile)


def _check_splits(
    study: Study, manifest: Manifest, params: Params, stated: dict[str, AnnotatedClasses]
) -> list[Fault | Note]:
    config = params.tile
    if not manifest.slides:
        return _check_tables(params)
    try:
        splits = study_splits(manifest, config, params.seed)
    except ManifestFaults as error:
        return error.faults + _check_tables(params)
    if "train" not in splits.values():
        fault = Fault(config.manifest, "no group is in the train split.", "state train for some, or add slides.")
        return [fault, *_check_tables(params)]
    found = check_requests(params, manifest, splits) + _check_slides(params, splits, manifest)
    found += check_begun_from(params, manifest, splits, study.salt) + check_study(params, manifest, splits)
    found += _check_tables(params, partial(study_keys, manifest, config, splits))
    whole = {entry.slide_id for entry in manifest.slides} == {*stated}
    return found + (check_classes(params, manifest, splits, stated) if whole else [])


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
    from histoloom.conditions.features import check_weights

    return check_weights(params.evaluate.features, params.evaluate.weights)


def _check_slides(params: Params, splits: dict[str, str], manifest: Manifest) -> list[Fault]:
    if not params.sample_slides.slides:
        return []
    from histoloom.canvas.write_inputs import check_slides

    return check_slides(params, splits, [entry.slide_id for entry in manifest.slides])
