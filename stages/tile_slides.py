"""Cut woven slides into a second tile store, which is filtered and emitted as sampled tiles are."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import open_pool
from pipeline.config import load_cluster, load_params
from pipeline.slides.woven import tile_woven_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    with stage.open_stage("tile_slides", params=params.tile.model_dump(), inputs=["data/woven"]) as work:
        tile_woven_study(params.tile, work, lambda tasks: open_pool(cluster, tasks=tasks))


if __name__ == "__main__":
    stage.run(main)
