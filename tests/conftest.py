"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A process a core does the tests. With a thread a core in each of them, threads that wait for each other take most of
# the time. A stage that trains sets its own number. It must stand before torch and numpy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test fetches anything; without a network each try takes a minute

# The same examples in every run, so that a change is red for what it changed. For others: --hypothesis-profile search
settings.register_profile("histoloom", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=500)
settings.load_profile("histoloom")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in; the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


LONGEST = (
    "test_study.py", "test_broken_generator.py", "test_conditions_study.py", "test_resuming.py", "test_real_data.py",
    "test_uplift.py", "test_canvas.py", "test_shared_tissue.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that two workers end at about the same time.

    Of the two that share a study, one makes it and the other comes when it is made.
    """
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
