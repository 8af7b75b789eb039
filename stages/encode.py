"""Turn train tiles into latents and conditions into arrays, part by part."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import device, use_training_threads
from pipeline.config import load_cluster, load_params
from pipeline.training.study import encode_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    use_training_threads(cluster)
    stated = {
        "encode": params.encode.model_dump(),
        "conditions": params.train_denoiser.conditions,
        "encoders": params.train_encoders.model_dump(),
        "classes": [params.tile.labels.classes, params.tile.masks.classes],
    }
    inputs = ["data/tiles", "models/encoders", "models/autoencoder"]
    with stage.open_stage("encode", params=stated, inputs=inputs) as work:
        encode_study(params, work, device(cluster))


if __name__ == "__main__":
    stage.run(main)
