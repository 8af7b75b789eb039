"""Measure synthetic against real held-out tiles, each distance beside its floor."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, use_training_threads
from pipeline.config import load_cluster, load_params
from pipeline.data.store import MADE
from pipeline.quality.evaluate import evaluate_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    use_training_threads(cluster)
    stated = {"evaluate": params.evaluate.model_dump(), "seed": params.seed}
    with stage.open_stage("evaluate", params=stated, inputs=["data/tiles", *MADE, "data/verdicts", "models/encoders"]):
        evaluate_study(params, device(cluster), Path("reports/evaluate"))


if __name__ == "__main__":
    stage.run(main)
