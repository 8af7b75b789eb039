"""A package that tests may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from histoloom.config.package import root
from tests.config.packages import BASE


@pytest.fixture
def package(folder) -> Path:
    """A copy of the packaged model, to be changed: `mine`."""
    shutil.copytree(root() / BASE, "mine")
    return Path("mine")
