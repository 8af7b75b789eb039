"""Stages run in this process, on params that no file states."""

from __future__ import annotations

import json
from pathlib import Path

from histoloom.config import Cluster, Params
from histoloom.data.study_folder import Study
from histoloom.studies.stage_work import run_stage
from histoloom.studies.stages import STAGES


def study_of(params: Params, root: Path | str = ".", workers: int = 0) -> Study:
    """A study at `root` whose params and cluster are these, whatever its files state."""
    study = Study(Path(root))
    vars(study).update(stated=params, cluster=Cluster(workers=workers, training_threads=1))
    return study


def run(name: str, study: Study) -> dict:
    """Run a stage; its metrics. An input that the test has no need of is an empty folder, or no file."""
    for place in STAGES[name].inputs:
        folder = study.root / place
        (folder.parent if folder.suffix else folder).mkdir(parents=True, exist_ok=True)
    run_stage(name, study)
    return json.loads((study.reports(name) / "metrics.json").read_text(encoding="utf-8"))
