"""Train classifiers or segmenters with and without synthetic tiles, and say whether these helped."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import device, open_pool
from pipeline.config import load_cluster, load_params
from pipeline.data.commit import command_files
from pipeline.data.store import MADE
from pipeline.uplift.study import uplift_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    tile = params.tile.model_dump(include={"labels", "masks"})
    own = {"command_files": command_files(params.uplift.command)}
    stated = {"uplift": params.uplift.model_dump(), "tile": tile, "seed": params.seed} | own
    with stage.open_stage("uplift", params=stated, inputs=["data/tiles", *MADE, "data/verdicts"]) as work:
        uplift_study(params, work, device(cluster), lambda tasks: open_pool(cluster, tasks=tasks, gpu=True))


if __name__ == "__main__":
    stage.run(main)
