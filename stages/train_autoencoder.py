"""Train, fine-tune or load the autoencoder, and measure its latents."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, use_training_threads
from pipeline.config import load_cluster, load_params
from pipeline.config.package import packaged
from pipeline.data.commit import contents
from pipeline.training.study import train_study_autoencoder


def main() -> None:
    params, cluster = load_params(), load_cluster()
    use_training_threads(cluster)
    config = params.train_autoencoder
    begun_from = contents(packaged(config.init, "autoencoder"), config.resume_from)
    stated = {"train_autoencoder": config.model_dump(), "begun_from": begun_from, "seed": params.seed}
    with stage.open_stage("train_autoencoder", params=stated, inputs=["data/tiles"]) as work:
        train_study_autoencoder(params, work, device(cluster), reports=Path("reports/train_autoencoder"))


if __name__ == "__main__":
    stage.run(main)
