"""What the `evaluate` stage does with a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.conditions.features import load_extractor
from pipeline.config import Params
from pipeline.data.commit import write_json
from pipeline.data.rows import held_out_rows, spread
from pipeline.data.store import MADE, TileStore, made_stores
from pipeline.errors import HistoloomError
from pipeline.quality.metrics import compare


def evaluate_study(
    params: Params,
    device: str,
    reports: Path,
    tiles="data/tiles",
    made: Sequence[Path | str] = MADE,
    verdicts="data/verdicts",
) -> dict:
    """Measure unfiltered and accepted samples, and the tiles of woven slides, against real held-out tiles, each
    distance beside its floor.
    """
    config, real = params.evaluate, TileStore(tiles)
    rows = real.rows()
    extractor = load_extractor(config.features, device, config.weights)
    test = held_out_rows(rows)
    if test.empty:
        raise HistoloomError("There is no held-out tile (test or val) to measure against. Change tile.split.")

    def features(store: TileStore, chosen: pd.DataFrame) -> np.ndarray:
        return extractor.features(store.read(spread(chosen, config.max_tiles)))

    held_out, train = features(real, test), features(real, rows[rows["split"] == "train"])
    options = {"subsets": config.kid_subsets, "neighbours": config.neighbours, "seed": params.seed}
    metrics = {
        "extractor": extractor.record,
        "reference": f"{test['split'].iloc[0]} split, {len(test)} tiles",
        "patients": int(rows["patient_id"].nunique()),
    }
    for store in made_stores(made, rows_from=verdicts):
        chosen = store.rows()
        if store.folder == Path(MADE[1]):
            metrics["woven"] = compare(features(store, chosen), held_out, train, **options)
        elif len(chosen := chosen[chosen["purpose"] == "evaluate"]):
            metrics["unfiltered"] = compare(features(store, chosen), held_out, train, **options)
            metrics["accepted"] = compare(features(store, chosen[chosen["accepted"]]), held_out, train, **options)
    write_json(reports / "metrics.json", metrics)
    return metrics
