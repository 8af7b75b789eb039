"""The benchmarks still fit the code that they measure. What they find is no test's business."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.tiny_study import run

ROOT = Path(__file__).parents[1]
NAMES = sorted(
    p.stem for p in (ROOT / "benchmarks").glob("*.py") if 'if __name__ == "__main__"' in p.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name):
    assert importlib.import_module(f"benchmarks.{name}").main


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_at_small_sizes(name, tmp_path):
    run(ROOT, sys.executable, "-m", f"benchmarks.{name}", "--smoke", "--json", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())["keys"]
