"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("histoloom", deadline=None, max_examples=50)
settings.load_profile("histoloom")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in; the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
