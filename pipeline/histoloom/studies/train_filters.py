"""Train the filters on real train tiles, and calibrate them on held-out ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config.extractors import OF_NO_PATIENT
from histoloom.data.commit import write_json
from histoloom.data.lineage import Lineage, read_lineage
from histoloom.data.lineage_match import grid_of
from histoloom.data.rows import spread, train_rows, val_rows
from histoloom.data.tables import with_conditions
from histoloom.quality.filters.base import Fitting, tiles_of
from histoloom.quality.filters.calibration import RealTiles, draw_calibration, measure_filter_set
from histoloom.quality.filters.filter_set import EXTRACTOR, FILTERS, fit_filter_set
from histoloom.studies.stage_work import Work

_HELD_OUT_TILES = 1000
_MOST_TRAIN_TILES = 20000
"""So many teach the filters; copies are looked for among all."""
_BATCH = 512


def run(work: Work) -> None:
    params, store, device, encoders = work.params, work.study.real(), work.training_device(), work.study.encoders
    config = params.train_filters
    every = with_conditions(train_rows(store), params)
    unseen = with_conditions(spread(store.rows(split="test"), _HELD_OUT_TILES), params)
    rows = spread(every, _MOST_TRAIN_TILES), with_conditions(val_rows(store, _HELD_OUT_TILES), params), unseen
    extractor = load_extractor(config.features, device)
    tiles = RealTiles(*(tiles_of(store, part.reset_index(drop=True), extractor) for part in rows))
    fitting = Fitting(tiles.train, every, partial(store.batches, every, _BATCH), work.study, work.root, device)

    def write(folder: Path) -> None:
        own = tuple(name for name in params.filter.use if not FILTERS[name].of_generator)
        calibration = fit_filter_set(own, fitting, tiles.held_out, config)
        calibration.filter_set.save(folder)
        lineage = Lineage.trained_on(every, grid_of(params.tile.split))
        lineage |= Lineage(unknown=() if config.features in OF_NO_PATIENT else (config.features,))
        if {"text", "rna"} & set(params.filter.use):
            lineage |= read_lineage(encoders)
        lineage.save(folder)
        write_json(folder / EXTRACTOR, extractor.record)
        measured = measure_filter_set(calibration, tiles, config, params.seed)
        draw_calibration(calibration, measured.bad, work.reports / "calibration.png")
        work.write_metrics({**measured.together, **measured.by_filter})

    work.promote(write, work.study.filters)
