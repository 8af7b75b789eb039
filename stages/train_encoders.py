"""Make what turns conditions into numbers: a CLIP for text, a VAE for RNA, a vocabulary of genotypes."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, use_training_threads
from pipeline.config import load_cluster, load_params
from pipeline.config.package import packaged
from pipeline.data.commit import contents
from pipeline.data.named_files import files_of
from pipeline.training.study import train_study_encoders


def main() -> None:
    params, cluster = load_params(), load_cluster()
    use_training_threads(cluster)
    config = params.train_encoders
    stated = {
        "train_encoders": config.model_dump(),
        "begun_from": contents(
            packaged(config.text.source, "encoders/text"), packaged(config.rna.init, "encoders/rna")
        ),
        "conditions": params.train_denoiser.conditions,
        "files": files_of(params, "train_encoders"),
        "seed": params.seed,
    }
    with stage.open_stage("train_encoders", params=stated, inputs=["data/tiles"]) as work:
        train_study_encoders(params, work, device(cluster), reports=Path("reports/train_encoders"))


if __name__ == "__main__":
    stage.run(main)
