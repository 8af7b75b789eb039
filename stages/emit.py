"""Write the augmented dataset: real train with accepted synthetic; val and test real only."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.config import load_params
from pipeline.data.store import MADE
from pipeline.emit.study import emit_study


def main() -> None:
    params = load_params()
    tile = params.tile.model_dump(include={"tile_px", "mpp", "labels"})
    stated = {"emit": params.emit.model_dump(), "tile": tile}
    with stage.open_stage("emit", params=stated, inputs=["data/tiles", *MADE, "data/verdicts"]) as work:
        work.promote(lambda folder: emit_study(params, folder, Path("reports/emit")), "data/dataset")


if __name__ == "__main__":
    stage.run(main)
