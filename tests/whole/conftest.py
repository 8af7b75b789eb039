"""One study that all of these tests begin from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tests.tiny_study import copy_study, dvc, make_tiny_study, run

OPENED = Path(__file__).parents[1] / "opened"
"""On PYTHONPATH, it writes down which files each stage opens."""


def opened_file(study: Path) -> Path:
    """Where it is written what the stages of a study opened."""
    return study.parent / "opened.tsv"


@pytest.fixture(scope="session")
def study(tmp_path_factory, worker_id) -> Path:
    """A study on which `dvc repro` has run once, whichever worker came first. Tests that change it work on a copy."""
    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent
    folder, done = root / "whole" / "study", root / "whole" / "done"
    with FileLock(root / "whole.lock"):
        if not done.exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            folder.parent.mkdir()
            make_tiny_study(folder)
            watched = {
                "PYTHONPATH": os.pathsep.join(filter(None, (str(OPENED), os.environ.get("PYTHONPATH")))),
                "HISTOLOOM_OPENED": str(opened_file(folder)),
            }
            dvc(folder, "repro", "--quiet", more=watched)
            run(folder, "git", "add", "--all")
            run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first version")
            run(folder, "git", "tag", "v1")
            done.touch()
    return folder


@pytest.fixture
def copy(study, tmp_path) -> Path:
    return copy_study(study, tmp_path / "copy")
