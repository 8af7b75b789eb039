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


LONGEST = (
    "test_study.py", "test_broken_generator.py", "test_conditions_study.py", "test_resuming.py", "test_real_data.py",
    "test_uplift.py", "test_canvas.py", "test_duplicates.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that two workers end at about the same time.

    Of the two that share a study, one makes it and the other comes when it is made.
    """
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
