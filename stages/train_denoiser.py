"""Train the denoiser on cached latents under their conditions."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, use_training_threads
from pipeline.config import load_cluster, load_params
from pipeline.config.package import packaged
from pipeline.data.commit import contents
from pipeline.training.study import train_study_denoiser


def main() -> None:
    params, cluster = load_params(), load_cluster()
    use_training_threads(cluster)
    config = params.train_denoiser
    begun_from = contents(packaged(config.init, "denoiser"), config.resume_from)
    stated = {"train_denoiser": config.model_dump(), "begun_from": begun_from, "seed": params.seed}
    with stage.open_stage("train_denoiser", params=stated, inputs=["data/encoded"]) as work:
        train_study_denoiser(params, work, device(cluster), reports=Path("reports/train_denoiser"))


if __name__ == "__main__":
    stage.run(main)
