"""Sample the plan's parts as tasks on the cluster."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import device, open_pool
from pipeline.config import load_cluster, load_params
from pipeline.diffusion.study import sample_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    stated = {
        "sample": params.sample.model_dump(),
        "batch_size": params.plan.batch_size,
        "tile_px": params.tile.tile_px,
        "attention": params.train_denoiser.attention,
    }
    inputs = ["data/plan", "models/autoencoder", "models/denoiser", "models/encoders"]
    with stage.open_stage("sample", params=stated, inputs=inputs) as work:
        sample_study(params, work, device(cluster), lambda tasks: open_pool(cluster, tasks=tasks, gpu=True))


if __name__ == "__main__":
    stage.run(main)
