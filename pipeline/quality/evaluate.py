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

    def features(store: TileStore, chosen: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Features of at most as many tiles as params state, and their labels."""
        chosen = spread(chosen, config.max_tiles)
        return extractor.features(store.read(chosen)), chosen["label"].to_numpy(object)

    (held_out, held_out_labels), (train, train_labels) = (
        features(real, test),
        features(real, rows[rows["split"] == "train"]),
    )
    options = {"subsets": config.kid_subsets, "neighbours": config.neighbours, "seed": params.seed}
    metrics = {
        "extractor": extractor.record,
        "reference": f"{test['split'].iloc[0]} split, {len(test)} tiles",
        "patients": int(rows["patient_id"].nunique()),
        "extractor_encodes_a_condition": _is_an_encoder(params),
    }
    for store in made_stores(made, rows_from=verdicts):
        chosen = store.rows()
        if store.folder == Path(MADE[1]):
            metrics["woven"] = compare(features(store, chosen)[0], held_out, train, **options)
        elif len(chosen := chosen[chosen["purpose"] == "evaluate"]):
            made, labels = features(store, chosen)
            metrics["unfiltered"] = compare(made, held_out, train, **options)
            metrics["accepted"] = compare(features(store, chosen[chosen["accepted"]])[0], held_out, train, **options)
            parts = [
                (
                    name,
                    [
                        f[known == name]
                        for f, known in ((made, labels), (held_out, held_out_labels), (train, train_labels))
                    ],
                )
                for name in params.tile.labels.classes
            ]
            metrics["by_class"] = {name: found for name, part in parts if (found := compare(*part, **options))}
    write_json(reports / "metrics.json", metrics)
    return metrics


def _is_an_encoder(params: Params) -> bool:
    """Whether what measures pictures also told the generator what to make, which flatters it."""
    return (
        "image" in params.train_denoiser.conditions and params.train_encoders.image.source == params.evaluate.features
    )
