"""`histoloom run`: one stage of a study, whatever else lies in the study's folder; its errors are words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from histoloom.cli.main import cli
from tests.build import make_slide
from tests.study import add_slide, edit_yaml, environment, run, stage

BROKEN = "def broken(:\n"
MODULES = ("__init__", "data", "tile", "resolve", "work", "config", "histoloom", "torch", "cli")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study of two slides in whose folder lie Python files of the user's, none of which can be read."""
    folder = tmp_path_factory.mktemp("own") / "study"
    run(folder.parent, str(Path(sys.executable).with_name("histoloom")), "init", str(folder))
    for seed, split in enumerate(("train", "val")):
        add_slide(folder, f"slide-{split}", split, seed)
    labels = {"source": "polygons", "classes": ["left", "right"]}
    edit_yaml(folder / "params.yaml", tile={"mpp": 1.0, "tile_px": 64, "stride_px": 64} | {"labels": labels})
    for place in ("pipeline", "pipeline/histoloom", "stages", "histoloom", "studies", "data"):
        (folder / place).mkdir(exist_ok=True)
        for name in MODULES:
            (folder / place / f"{name}.py").write_text(BROKEN, encoding="utf-8")
    for name in ("tile", "resolve", "click", "numpy", "sitecustomize"):
        (folder / f"{name}.py").write_text(BROKEN, encoding="utf-8")
    return folder


def test_python_files_in_a_study_s_folder_are_not_loaded(study):
    edit_yaml(study / "cluster.yaml", workers=2)
    assert stage(study, "resolve").returncode == 0
    assert "2 slide(s) cut" in stage(study, "tile").stderr
