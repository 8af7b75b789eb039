"""Train classifiers or segmenters with and without synthetic tiles, and say whether these helped."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import device, open_pool
from pipeline.config import load_cluster, load_params
from pipeline.data.store import MADE
from pipeline.uplift.study import uplift_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    inputs = ["data/tiles", *MADE, "data/verdicts"]
    with stage.open_stage("uplift", params={}, inputs=inputs, shared_parts=True) as work:
        uplift_study(
            params,
            work,
            device(cluster),
            lambda tasks: open_pool(cluster, tasks=tasks, gpu=True),
            code=stage.code_fingerprint(),
        )


if __name__ == "__main__":
    stage.run(main)
