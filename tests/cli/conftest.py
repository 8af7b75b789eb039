"""A study whose first stages DVC ran, which tests of commands may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny_study import dvc, make_tiny_study


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny study of which `tile` and `train_encoders` ran, and a copy of it."""
    study = make_tiny_study(tmp_path_factory.mktemp("status") / "study")
    dvc(study, "repro", "train_encoders")
    return study, Path(shutil.copytree(study, study.with_name("kept"), symlinks=True))


@pytest.fixture
def study(made) -> Path:
    """The study as it was made, where it was made."""
    study, kept = made
    shutil.rmtree(study)
    return Path(shutil.copytree(kept, study, symlinks=True))
