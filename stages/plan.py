"""Decide what to synthesise and why. `--dry-run` prints counts, time and disk, and writes nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import stage
from pipeline.cluster import device, one_thread
from pipeline.config import load_cluster, load_params
from pipeline.data.named_files import files_of
from pipeline.data.plan import plan_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="print counts, estimated time and disk; write nothing")
    arguments = parser.parse_args()
    params = load_params()
    if arguments.dry_run:  # needs the models' code, on which the stage itself doesn't depend
        from pipeline.diffusion.dry_run import print_dry_run

        with one_thread():
            print_dry_run(params, device(load_cluster()), Path("models"))
        return
    stated = {
        "plan": params.plan.model_dump(),
        "classes": [params.tile.labels.classes, params.tile.masks.classes],
        "conditions": params.train_denoiser.conditions,
        "encoders": params.train_encoders.model_dump(),
        "files": files_of(params, "train_encoders"),
        "seed": params.seed,
    }
    with stage.open_stage("plan", params=stated, inputs=["data/tiles"]) as work:
        work.promote(lambda folder: plan_study(params, folder, Path("reports/plan")), "data/plan")


if __name__ == "__main__":
    stage.run(main)
