"""A study that only predicts: masks by diffusion of real tiles, nothing synthetic. It runs to its report, and emits its real tiles."""

from __future__ import annotations

import json

import pytest

from tests.test_systems import make_tiny


@pytest.mark.long
def test_a_study_without_a_synthetic_tile_runs_to_its_report(tmp_path):
    from histoloom.data.store import TileStore
    from histoloom.studies.stage_work import run_stage
    from histoloom.studies.stages import STAGES

    study = make_tiny("medsegdiff", tmp_path / "study")
    for name in (name for name, stage in STAGES.items() if not stage.demo):
        run_stage(name, study)
    assert (study.root / "reports/index.html").is_file()
    made = TileStore(study.predicted)
    assert made.has("mask") and made.has("agreement") and study.synthetic_stores() == []
    (measured,) = json.loads((study.root / "reports/evaluate/metrics.json").read_text())["predictions"].values()
    assert 0 <= measured["dice"] <= 1 and "calibration_error_as_said" in measured
    counts = json.loads((study.root / "reports/emit/metrics.json").read_text())["counts"]
    assert {source for of in counts.values() for source in of} == {"real"}
