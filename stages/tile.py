"""Cut the manifest's slides into a tile store."""

from __future__ import annotations

from pipeline import stage
from pipeline.cluster import open_pool
from pipeline.config import load_cluster, load_params
from pipeline.slides.study import tile_study


def main() -> None:
    params, cluster = load_params(), load_cluster()
    with stage.open_stage("tile", params={}, inputs=[], shared_parts=True) as work:
        tile_study(
            params.tile, params.seed, work, lambda tasks: open_pool(cluster, tasks=tasks), code=stage.code_fingerprint()
        )


if __name__ == "__main__":
    stage.run(main)
