"""Train a CLIP on the train split's tile-caption pairs, or note the text encoder that params name."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, use_training_threads
from pipeline.config import load_cluster, load_params
from pipeline.training.study import train_study_encoders


def main() -> None:
    params, cluster = load_params(), load_cluster()
    use_training_threads(cluster)
    stated = {"train_encoders": params.train_encoders.model_dump(), "seed": params.seed}
    with stage.open_stage("train_encoders", params=stated, inputs=["data/tiles"]) as work:
        train_study_encoders(params, work, device(cluster), reports=Path("reports/train_encoders"))


if __name__ == "__main__":
    stage.run(main)
