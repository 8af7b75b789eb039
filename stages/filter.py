"""Score every synthetic tile, and reject those that the filters distrust."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, open_pool
from pipeline.config import load_cluster, load_params
from pipeline.data.store import MADE
from pipeline.models.lineage import model_sha256
from pipeline.quality.study import filter_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    stated = {"min_yield": params.filter.min_yield}
    with stage.open_stage("filter", params=stated, inputs=[*MADE, "models/filters"]) as work:
        filter_study(
            params,
            work,
            device(cluster),
            model_sha256(Path("models/filters")),
            lambda tasks: open_pool(cluster, tasks=tasks, gpu=True),
        )


if __name__ == "__main__":
    stage.run(main)
