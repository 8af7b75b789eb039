"""`histoloom validate`: every fault at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.cli.begun_from import check_begun_from
from pipeline.cli.foreseen import check_study
from pipeline.config import Params, Tile, check_cluster, check_params, load_params
from pipeline.config.foreseen import check_foreseen
from pipeline.data.keys import StudyKeys
from pipeline.data.manifest import Manifest, check_manifest
from pipeline.data.requests import check_requests
from pipeline.data.tables import check_tables
from pipeline.errors import Fault, HistoloomError, ManifestFaults, Note, faults_among
from pipeline.models.pretrained import packaged
from pipeline.slides.annotate import check_annotations, load_annotations, load_polygons_and_spots
from pipeline.slides.classes import StatedClasses, check_classes, stated_classes
from pipeline.slides.open import BadSlide, open_slide
from pipeline.slides.study import study_keys, study_splits
from pipeline.slides.tiler import check_scale

_PROBE_PX = 64


def validate_study(folder: Path = Path()) -> list[Fault | Note]:
    """All faults of a study, in the order of its files, and the notes on what it leaves out."""
    (cluster, faults), (params, found) = check_cluster(folder / "cluster.yaml"), check_params(folder / "params.yaml")
    faults += found
    if params is None:
        return faults
    if cluster and not faults_among(faults):
        faults += check_foreseen(params, cluster)
    manifest, found = check_manifest(params.tile)
    faults += found
    stated: dict[str, StatedClasses] = {}
    faults += [fault for entry in manifest.slides for fault in _probe(entry, manifest, params.tile, stated)]
    faults += _check_splits(manifest, params, stated) + _check_weights(params)
    return faults


def validate_deep(folder: Path = Path()) -> list[Fault]:
    """Faults that only the tiles show.

    Raises
    ------
    HistoloomError
        when there are no tiles yet.
    """
    from pipeline.data.store import TileStore
    from pipeline.quality.duplicates import find_duplicates

    if not any((folder / "data/tiles").glob("*/commit.json")):
        raise HistoloomError("validate --deep looks at data/tiles, and there are none: run dvc repro tile first.")
    return find_duplicates(TileStore(folder / "data/tiles"), load_params(folder / "params.yaml").tile)


def _probe(entry, manifest: Manifest, config: Tile, stated: dict[str, StatedClasses]) -> list[Fault | Note]:
    """Open the slide and read small regions all over it, so that a file that breaks off shows; add its classes to `stated`."""
    annotations, bounds, found = None, None, []
    try:
        with open_slide(entry.path, entry.mpp, config.max_slide_gpx) as slide:
            bounds = slide.bounds
            check_scale(slide, config)
            for row in range(4):
                for col in range(4):
                    x, y = (slide.width - _PROBE_PX) * col / 3, (slide.height - _PROBE_PX) * row / 3
                    slide.read(max(x, 0), max(y, 0), _PROBE_PX, _PROBE_PX, 1.0)
            annotations = load_annotations(entry, config, manifest.spots, *slide.size, bounds)
            stated[entry.slide_id] = stated_classes(annotations, *slide.size)
    except BadSlide as error:
        found = [Fault(config.manifest, str(error), "mend or replace the file, or remove the row.", entry.row, "path")]
    if annotations is None:
        annotations = load_polygons_and_spots(entry, config, manifest.spots, bounds)
    return check_annotations(annotations, bounds) + found


def _check_splits(manifest: Manifest, params: Params, stated: dict[str, StatedClasses]) -> list[Fault | Note]:
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
    found += check_begun_from(params, manifest, splits) + check_study(params, manifest, splits)
    found += _check_tables(params, partial(study_keys, manifest, config, splits))
    if params.plan.evaluation_tiles and not {"val", "test"} & {*splits.values()}:
        fact = "plan will refuse it: no group is in val or test to lend conditions. Change tile.split, or set it to 0."
        found.append(Note("params.yaml", fact, None, "plan.evaluation_tiles"))
    whole = {entry.slide_id for entry in manifest.slides} == {*stated}
    return found + (check_classes(params, manifest, splits, stated) if whole else [])


def _check_tables(params: Params, keys: Callable[[str], StudyKeys] | None = None) -> list[Fault | Note]:
    init = params.train_encoders.rna.init
    return check_tables(params, keys, None if init == "train" else Path(packaged(init, "encoders/rna")))


def _check_weights(params: Params) -> list[Fault]:
    if params.evaluate.weights is None:
        return []
    from pipeline.conditions.features import check_weights  # which loads torch

    return check_weights(params.evaluate.features, params.evaluate.weights)


def _check_slides(params: Params, splits: dict[str, str], manifest: Manifest) -> list[Fault]:
    if not params.sample_slides.slides:
        return []
    from pipeline.diffusion.stated import check_slides  # which loads torch

    return check_slides(params, splits, [entry.slide_id for entry in manifest.slides])
