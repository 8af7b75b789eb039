"""Measure synthetic against real held-out tiles, each distance beside its floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoloom.conditions.features import load_extractor
from histoloom.config import Params
from histoloom.data.ancestry import grid_of
from histoloom.data.codes import known_salt
from histoloom.data.lineage import check_generators
from histoloom.data.plan import EVALUATION
from histoloom.data.rows import held_out_rows, spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.quality.filters.judge import FILTERS
from histoloom.quality.metrics import clip_score, compare, inception_score
from histoloom.studies.work import Work
from histoloom.training.clip import likeness


@dataclass(frozen=True)
class _Part:
    """Some tiles of a store, and their features (n, d)."""

    rows: pd.DataFrame
    features: np.ndarray
    images: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        return self.rows["split_group"].to_numpy(str)

    def of(self, label: str) -> _Part:
        chosen = (self.rows["label"] == label).to_numpy(bool)
        return _Part(self.rows[chosen], self.features[chosen], self.images[chosen])


def run(work: Work) -> None:
    work.write_metrics(measure_tiles(work.study, work.training_device()))


def measure_tiles(study: Study, device: str) -> dict[str, Any]:
    """Measure unfiltered and accepted samples, and the tiles of requests and of woven slides, against real held-out tiles,
    each distance beside its floor.

    Raises
    ------
    HistoloomError
        when there is no held-out tile, or a generator was taught by one.
    """
    params, config, real, encoders = study.params, study.params.evaluate, study.real(), study.encoders
    rows = real.rows()
    extractor = load_extractor(config.features, device, config.weights)
    test = held_out_rows(rows)
    if test.empty:
        raise HistoloomError("There is no held-out tile (test or val) to measure against. Change tile.split.")

    def part(store: TileStore, chosen: pd.DataFrame) -> _Part:
        chosen = spread(chosen, config.max_tiles)
        images = store.read(chosen)
        return _Part(chosen, extractor.features(images), images)

    held_out, train = part(real, test), part(real, rows[rows["split"] == "train"])
    options = {"subsets": config.kid_subsets, "neighbours": config.neighbours, "seed": params.seed}

    def compared(samples: _Part, reference: _Part, other: _Part) -> dict:
        sets = (part.features for part in (samples, reference, other))
        return compare(*sets, groups=reference.groups, **options)

    def measured(samples: _Part) -> dict:
        found = compared(samples, held_out, train)
        if not found:
            return {}
        scores = (("inception_score", samples), ("inception_score_floor", held_out))
        if extractor.head is not None:
            found |= {name: inception_score(p.features @ extractor.head, params.seed) for name, p in scores}
        if (encoders / "text/open_clip_config.json").is_file():
            compare_text = likeness(encoders / "text", params.train_encoders.text.max_tokens)
            both = (("clip_score", samples), ("clip_score_floor", held_out))
            found |= {name: clip_score(compare_text, p.images, p.rows["caption"]) for name, p in both}
        return found

    metrics = {
        "extractor": extractor.record,
        "reference": f"{test['split'].iloc[0]} split, {len(held_out.rows):,} of {len(test):,} tiles",
        "patients": int(rows["patient_id"].nunique()),
        "extractor_also": _also(params),
    }
    stores = study.synthetic_stores()
    check_generators(stores, rows, known_salt(study.salt), grid_of(params.tile.split))
    for store in stores:
        chosen = store.rows()
        if store.folder == study.woven_tiles:
            metrics["woven"] = measured(part(store, chosen))
            continue
        chosen = chosen[chosen["purpose"] == "evaluate"]
        drawn = chosen["request"] == EVALUATION  # as the held-out tiles are; what else was asked for is apart
        for name, asked in chosen[~drawn].groupby("request"):
            metrics.setdefault("requests", {})[name] = measured(part(store, asked))
        if len(chosen := chosen[drawn]):
            samples = part(store, chosen)
            metrics["unfiltered"] = measured(samples)
            metrics["accepted"] = measured(part(store, chosen[chosen["accepted"]]))
            sets = {name: [p.of(name) for p in (samples, held_out, train)] for name in params.tile.labels.classes}
            by_class = {name: compared(*parts) for name, parts in sets.items()}
            metrics["by_class"] = {name: found for name, found in by_class.items() if found}
    return metrics


def _also(params: Params) -> list[str]:
    """What else looks through the extractor: what told the generator what to make, or chose among what it made, flatters it."""
    name, conditions = params.evaluate.features, params.train_denoiser.conditions
    told = {"image": params.train_encoders.image.source, "text": params.train_encoders.text.source}
    also = [
        f"the encoder of the {kind} condition" for kind, source in told.items() if kind in conditions and source == name
    ]
    if name == params.train_filters.features and any(FILTERS[used].sees_features for used in params.filter.use):
        also.append("what the filters look through")
    return also
