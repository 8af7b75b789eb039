"""Measure synthetic against real held-out tiles, each distance beside its floor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from histoloom.conditions.feature_extractors import Extractor, ExtractorRecord, load_extractor
from histoloom.config import Params
from histoloom.config.extractors import JUDGE
from histoloom.data.codes import known_salt
from histoloom.data.lineage import check_generators
from histoloom.data.lineage_match import grid_of
from histoloom.data.plan import EVALUATION
from histoloom.data.rows import held_out_rows, leaving_rows, spread, spread_by
from histoloom.data.store import TileStore, stores_in
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.quality.audit import Audit, audit
from histoloom.quality.filters.filter_set import FILTERS
from histoloom.quality.interval_picture import draw_intervals, kid_rows
from histoloom.quality.metrics import Comparison, FeatureSets, clip_score, compare, inception_score
from histoloom.quality.realism import LEAST, Sample, ToldApart, told_apart
from histoloom.studies.mask_predictions import MaskPredictions, measured_predictions, told_the_mask
from histoloom.studies.stage_work import Work
from histoloom.training.clip import likeness
from histoloom.training.reconstruction import given_back

_JUDGED = 200
"""Tiles of a class, of each set, that the judge looks at: it is a large network."""


class Realism(TypedDict):
    """How easily samples are told from real held-out tiles, and what real train tiles score in their place."""

    samples: ToldApart
    floor: ToldApart


class RealismMetrics(TypedDict):
    """Of unfiltered samples, in all and by class; a set that is too small has its `n` alone.

    extractor : the record of the network that the judge looks through, whatever the distances look through.
    """

    extractor: ExtractorRecord
    overall: Realism
    by_class: dict[str, Realism]


class EvaluateMetrics(TypedDict, total=False):
    """What the stage reports.

    extractor : the record of the network that tiles are compared through; extractor_also : what else looks through it.
    reference : which real tiles, in words.
    unfiltered, accepted, by_class : samples under held-out conditions, all, those that passed the filters, and all by class.
    realism : how easily unfiltered samples are told from the reference.
    rebuilt : the reference's own tiles, encoded and decoded: so much of a distance is the autoencoder's. Absent where there is none.
    requests : by request, what else was asked for to evaluate. woven : tiles of woven slides.
    predictions : by request, masks that were predicted of held-out tiles whose masks are known.
    audit : what synthetic tiles tell of the train split, where they are to leave alone.
    """

    extractor: ExtractorRecord
    reference: str
    patients: int
    extractor_also: list[str]
    realism: RealismMetrics
    unfiltered: Comparison
    accepted: Comparison
    by_class: dict[str, Comparison]
    rebuilt: Comparison
    requests: dict[str, Comparison]
    woven: Comparison
    predictions: dict[str, MaskPredictions]
    audit: Audit


@dataclass(frozen=True)
class _Part:
    """Some tiles of a store, and their features (n, d)."""

    rows: pd.DataFrame
    features: np.ndarray
    images: np.ndarray

    def of(self, label: str) -> _Part:
        chosen = (self.rows["label"] == label).to_numpy(bool)
        return _Part(self.rows[chosen], self.features[chosen], self.images[chosen])

    def few(self, most: int) -> _Part:
        """At most so many of each label, evenly spread."""
        return self.at(spread_by(self.rows, self.rows["label"], most))

    def at(self, rows: pd.DataFrame) -> _Part:
        """The tiles of some of its rows."""
        places = self.rows.index.get_indexer(rows.index)
        return _Part(rows, self.features[places], self.images[places])

    def against(self, other: _Part) -> Sample:
        """What a judge sees of these tiles, no more of each label than `other` has: else the labels' mix would tell them apart."""
        labels = self.rows["label"].fillna("")
        counts = other.rows["label"].fillna("").value_counts()
        alike = [spread(rows, int(counts.get(label, 0))) for label, rows in self.rows.groupby(labels)]
        part = self.at(pd.concat(alike) if alike else self.rows)
        return Sample(part.features, *(part.rows[name].to_numpy(object) for name in ("tile_id", "split_group")))


@dataclass(frozen=True)
class _Measure:
    """Real tiles to compare with, and how; text : the folder of a CLIP with both towers, or None."""

    params: Params
    extractor: Extractor
    held_out: _Part
    train: _Part
    text: Path | None

    def distances(self, samples: _Part, held_out: _Part, train: _Part) -> Comparison:
        config, groups = self.params.evaluate, held_out.rows["split_group"].to_numpy(str)
        features = FeatureSets(samples.features, held_out.features, train.features, groups)
        return compare(features, subsets=config.kid_subsets, neighbours=config.neighbours, seed=self.params.seed)

    def __call__(self, samples: _Part) -> Comparison:
        """Distances and scores of samples; empty where there are too few."""
        found, head = self.distances(samples, self.held_out, self.train), self.extractor.head
        if not found:
            return found
        if head is not None:
            found["inception_score"] = inception_score(samples.features @ head, self.params.seed)
            found["inception_score_floor"] = inception_score(self.held_out.features @ head, self.params.seed)
        if self.text is not None:
            compare_text = likeness(self.text, self.params.last.train_encoders.text.max_tokens)
            found["clip_score"] = clip_score(compare_text, samples.images, samples.rows["caption"])
            found["clip_score_floor"] = clip_score(compare_text, self.held_out.images, self.held_out.rows["caption"])
        return found

    def realism(self, samples: _Part, judge: Extractor) -> RealismMetrics:
        """What the judge makes of samples, and of train tiles in their place, beside held-out tiles."""
        parts = [part.few(_JUDGED) for part in (self.held_out, samples, self.train)]
        if min(len(part.rows) for part in parts[:2]) >= LEAST and judge.record != self.extractor.record:
            parts = [replace(part, features=judge.features(part.images)) for part in parts]
        real, seen, train = parts

        def told(real: _Part, other: _Part) -> ToldApart:
            return told_apart(real.against(other), other.against(real), self.params.seed)

        by_class: dict[str, Realism] = {
            name: {"samples": told(real.of(name), seen.of(name)), "floor": told(real.of(name), train.of(name))}
            for name in self.params.tile.labels.classes
        }
        overall: Realism = {"samples": told(real, seen), "floor": told(real, train)}
        return {"extractor": judge.record, "overall": overall, "by_class": by_class}

    def by_class(self, samples: _Part) -> dict[str, Comparison]:
        """The distances of each class of which there are enough tiles."""
        sets = {
            name: [part.of(name) for part in (samples, self.held_out, self.train)]
            for name in self.params.tile.labels.classes
        }
        found = {name: self.distances(*parts) for name, parts in sets.items()}
        return {name: distances for name, distances in found.items() if distances}


def run(work: Work) -> None:
    metrics = measure_tiles(work.study, work.training_device())
    work.write_metrics({**metrics})
    several = {"all, unfiltered": metrics.get("unfiltered", {}), "all, accepted": metrics.get("accepted", {})}
    several |= {**metrics.get("by_class", {}), **metrics.get("requests", {})}
    title = "Kernel distance (KID) of samples to real held-out tiles"
    draw_intervals(kid_rows(several.items()), title, "KID: smaller is nearer", work.reports / "kid.png")


def measure_tiles(study: Study, device: str) -> EvaluateMetrics:
    """Measure unfiltered and accepted samples, and the tiles of requests and of woven slides, against real held-out tiles,
    each distance beside its floor.

    Raises
    ------
    HistoloomError
        when there is no held-out tile, or a generator was taught by one.
    """
    params, config, real = study.params, study.params.evaluate, study.real()
    rows = real.rows()
    extractor = load_extractor(config.features, device, config.weights)
    test = held_out_rows(rows)
    if test.empty:
        raise HistoloomError("There is no held-out tile (test or val) to measure against. Change tile.split.")

    part = partial(_part, extractor, config.max_tiles)
    text = study.encoders / "text"
    both_towers = text if (text / "open_clip_config.json").is_file() else None
    measure = _Measure(params, extractor, part(real, test), part(real, rows[rows["split"] == "train"]), both_towers)
    metrics: EvaluateMetrics = {
        "extractor": extractor.record,
        "reference": f"{test['split'].iloc[0]} split, {len(measure.held_out.rows):,} of {len(test):,} tiles",
        "patients": int(rows["patient_id"].nunique()),
        "extractor_also": _also(params),
    }
    stores = study.synthetic_stores()
    check_generators(stores, rows, known_salt(study.salt), grid_of(params.tile.split))
    for store in stores:
        chosen = store.rows()
        if store.folder == study.woven_tiles:
            metrics["woven"] = measure(part(store, chosen))
            continue
        chosen = chosen[chosen["purpose"] == "evaluate"]
        drawn = chosen["request"] == EVALUATION  # as the held-out tiles are; what else was asked for is apart
        for name, asked in chosen[~drawn].groupby("request"):
            metrics.setdefault("requests", {})[str(name)] = measure(part(store, asked))
        if len(chosen := chosen[drawn]):
            samples = part(store, chosen)
            metrics["unfiltered"] = measure(samples)
            metrics["realism"] = measure.realism(samples, load_extractor(JUDGE, device))
            metrics["accepted"] = measure(part(store, chosen[chosen["accepted"]]))
            metrics["by_class"] = measure.by_class(samples)
    if (rebuilt := _rebuilt(study, measure, device)) is not None:
        metrics["rebuilt"] = rebuilt
    for store in stores_in([study.predicted]):
        if found := measured_predictions(
            real, store, params.tile.masks.classes, config.max_tiles, told_the_mask(params)
        ):
            metrics["predictions"] = found
    if "real" not in params.emit.include:
        metrics["audit"] = audit(study, [(store, leaving_rows(store.rows())) for store in stores], device)
    return metrics


def _rebuilt(study: Study, measure: _Measure, device: str) -> Comparison | None:
    """The held-out tiles through the autoencoder, compared as samples are; None where what is diffused are no latents, or there is none."""
    if (found := given_back(study, measure.held_out.images, device)) is None:
        return None
    part = _Part(measure.held_out.rows, measure.extractor.features(found), found)
    return measure.distances(part, measure.held_out, measure.train)


def _part(extractor: Extractor, most: int, store: TileStore, rows: pd.DataFrame) -> _Part:
    """At most so many of a store's rows, evenly spread."""
    rows = spread(rows, most)
    images = store.read(rows)
    return _Part(rows, extractor.features(images), images)


def _also(params: Params) -> list[str]:
    """What else looks through the extractor. What told the generator what to make, or chose among its tiles, flatters them."""
    name, last = params.evaluate.features, params.last
    conditions, encoders = last.train_denoiser.conditions, last.train_encoders
    told = {"image": encoders.image.source, "text": encoders.text.source}
    also = [
        f"the encoder of the {kind} condition" for kind, source in told.items() if kind in conditions and source == name
    ]
    if name == params.train_filters.features and any(FILTERS[used].sees_features for used in params.filter.use):
        also.append("what the filters look through")
    return also
