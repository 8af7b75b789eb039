"""Train the filters on real train tiles, and calibrate them on held-out ones."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, use_training_threads
from pipeline.config import load_cluster, load_params
from pipeline.quality.study import train_study_filters


def main() -> None:
    params, cluster = load_params(), load_cluster()
    use_training_threads(cluster)
    stated = {
        "train_filters": params.train_filters.model_dump(),
        "use": params.filter.use,
        "classes": params.tile.labels.classes,
        "masks": params.tile.masks.classes,
        "seed": params.seed,
    }
    reviews = ["reviews"] if "review" in params.filter.use else []
    with stage.open_stage("train_filters", params=stated, inputs=["data/tiles", "models/encoders", *reviews]) as work:
        train_study_filters(params, work, device(cluster), reports=Path("reports/train_filters"))


if __name__ == "__main__":
    stage.run(main)
