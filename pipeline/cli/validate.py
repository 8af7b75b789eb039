"""`histoloom validate`: every fault at once."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Params, Tile, load_cluster, load_params
from pipeline.data.manifest import Manifest, check_manifest
from pipeline.data.requests import check_requests
from pipeline.data.tables import check_tables
from pipeline.errors import Fault, HistoloomError, ManifestFaults, Note
from pipeline.progress import track
from pipeline.slides.annotate import check_annotations, load_annotations
from pipeline.slides.choose import NoTiles, check_choice, choose_tiles
from pipeline.slides.left_out import left_out, remarks
from pipeline.slides.open import BadSlide, open_slide
from pipeline.slides.study import study_splits
from pipeline.slides.tiler import check_scale
from pipeline.slides.tissue import detect_tissue

_PROBE_PX = 64


def validate_study(folder: Path = Path()) -> list[Fault | Note]:
    """All faults of a study, in the order of its files, and the notes on what it leaves out."""
    faults: list[Fault | Note] = []
    params = None
    for load in (lambda: load_cluster(folder / "cluster.yaml"), lambda: load_params(folder / "params.yaml")):
        try:
            params = load()
        except HistoloomError as error:
            faults.append(Fault("configuration", str(error), "mend the keys named; histoloom params lists all."))
            params = None
    if params is None:
        return faults
    manifest, found = check_manifest(params.tile)
    faults += found + check_annotations(manifest, params.tile)
    faults += _probe_slides(manifest, params.tile)
    faults += _check_splits(manifest, params) + check_tables(params)
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


def _probe_slides(manifest: Manifest, config: Tile) -> list[Fault | Note]:
    """Faults of the slides one by one, and notes on what is left out of those that hold."""
    found: list[Fault | Note] = []
    facts = []
    for entry in track(manifest.slides, "slides", len(manifest.slides)):
        try:
            facts.append({"slide_id": entry.slide_id} | _probe(entry, manifest, config))
        except NoTiles as error:
            found.append(Fault(config.manifest, error.problem, error.remedy, entry.row, "path"))
        except BadSlide as error:
            found.append(
                Fault(config.manifest, str(error), "mend or replace the file, or remove the row.", entry.row, "path")
            )
    return found + [Note(config.manifest, remark) for remark in remarks(facts)]


def _probe(entry, manifest: Manifest, config: Tile) -> dict:
    """Open a slide, read small regions all over it, so that a file that breaks off shows, and find its tissue.

    Returns
    -------
    What `tile` leaves out of it.
    """
    with open_slide(entry.path, entry.mpp, config.max_slide_gpx) as slide:
        check_scale(slide, config)
        for row in range(4):
            for col in range(4):
                x, y = (slide.width - _PROBE_PX) * col / 3, (slide.height - _PROBE_PX) * row / 3
                slide.read(max(x, 0), max(y, 0), _PROBE_PX, _PROBE_PX, 1.0)
        load_annotations(entry, config, manifest.spots, slide.width, slide.height)
        tissue = detect_tissue(slide, config.tissue)
        choice = choose_tiles(slide, tissue, config, config.mpp)
        check_choice(slide, tissue, config, choice)
        return left_out(tissue, [choice])


def _check_splits(manifest: Manifest, params: Params) -> list[Fault]:
    config = params.tile
    if not manifest.slides:
        return []
    try:
        splits = study_splits(manifest, config, params.seed)
    except ManifestFaults as error:
        return error.faults
    if "train" not in splits.values():
        return [Fault(config.manifest, "no group is in the train split.", "state train for some, or add slides.")]
    return check_requests(params, manifest, splits) + _check_slides(params, splits, manifest)


def _check_slides(params: Params, splits: dict[str, str], manifest: Manifest) -> list[Fault]:
    if not params.sample_slides.slides:
        return []
    from pipeline.diffusion.stated import check_slides  # which loads torch

    return check_slides(params, splits, [entry.slide_id for entry in manifest.slides])
