"""Weave whole slides, each as one canvas of blocks on the cluster."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import device, open_pool
from pipeline.config import load_cluster, load_params
from pipeline.diffusion.slides import sample_slides_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    inputs = ["data/tiles", "models/autoencoder", "models/denoiser", "models/encoders"]
    with stage.open_stage("sample_slides", params={}, inputs=inputs, shared_parts=True) as work:
        sample_slides_study(
            params,
            work,
            device(cluster),
            lambda tasks: open_pool(cluster, tasks=tasks, gpu=True, woven=True),
            code=stage.code_fingerprint(),
        )


if __name__ == "__main__":
    stage.run(main)
