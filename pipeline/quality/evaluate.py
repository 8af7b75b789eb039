"""What the `evaluate` stage does with a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.conditions.features import load_extractor
from pipeline.config import Params
from pipeline.data.ancestry import grid_of
from pipeline.data.codes import known_salt
from pipeline.data.commit import write_json
from pipeline.data.plan import EVALUATION
from pipeline.data.rows import held_out_rows, spread
from pipeline.data.store import MADE, TileStore, made_stores
from pipeline.errors import HistoloomError
from pipeline.models.lineage import check_generators
from pipeline.quality.filters.judge import FILTERS
from pipeline.quality.metrics import clip_score, compare, inception_score
from pipeline.training.clip import likeness


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


def evaluate_study(
    params: Params,
    device: str,
    reports: Path,
    tiles="data/tiles",
    made: Sequence[Path | str] = MADE,
    verdicts="data/verdicts",
    encoders: Path | str = "models/encoders",
) -> dict:
    """Measure unfiltered and accepted samples, and the tiles of requests and of woven slides, against real held-out tiles,
    each distance beside its floor.

    Raises
    ------
    HistoloomError
        when there is no held-out tile, or a generator was taught by one.
    """
    config, real = params.evaluate, TileStore(tiles)
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
        if (Path(encoders) / "text/open_clip_config.json").is_file():
            compare_text = likeness(Path(encoders) / "text", params.train_encoders.text.max_tokens)
            both = (("clip_score", samples), ("clip_score_floor", held_out))
            found |= {name: clip_score(compare_text, p.images, p.rows["caption"]) for name, p in both}
        return found

    metrics = {
        "extractor": extractor.record,
        "reference": f"{test['split'].iloc[0]} split, {len(held_out.rows):,} of {len(test):,} tiles",
        "patients": int(rows["patient_id"].nunique()),
        "extractor_also": _also(params),
    }
    stores = made_stores(made, rows_from=verdicts)
    check_generators(stores, rows, known_salt(), grid_of(params.tile.split))
    for store in stores:
        chosen = store.rows()
        if store.folder == Path(MADE[1]):
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
    write_json(reports / "metrics.json", metrics)
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
