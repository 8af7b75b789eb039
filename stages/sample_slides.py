"""Weave whole slides, each as one canvas of blocks on the cluster."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import device, open_pool
from pipeline.config import load_cluster, load_params
from pipeline.diffusion.slides import sample_slides_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    stated = {
        "sample_slides": params.sample_slides.model_dump(),
        "tile": params.tile.model_dump(),
        "seed": params.seed,
        "conditions": [params.train_denoiser.conditions, params.train_denoiser.attention],
        "encoders": params.train_encoders.model_dump(),
        "edges": params.encode.edges,
    }
    inputs = ["data/tiles", "manifests", "models/autoencoder", "models/denoiser", "models/encoders"]
    with stage.open_stage("sample_slides", params=stated, inputs=inputs) as work:
        sample_slides_study(
            params, work, device(cluster), lambda tasks: open_pool(cluster, tasks=tasks, gpu=True, steal=False)
        )


if __name__ == "__main__":
    stage.run(main)
