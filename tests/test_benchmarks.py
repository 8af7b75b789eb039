"""The benchmarks still fit the code that they measure. What they find is no test's business."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.planted import _over_unfiltered
from tests.tiny_study import run

ROOT = Path(__file__).parents[1]
SOURCES = {p.stem: p.read_text(encoding="utf-8") for p in sorted((ROOT / "benchmarks").glob("*.py"))}
NAMES = [name for name, source in SOURCES.items() if 'if __name__ == "__main__"' in source]
SMALL = [name for name in NAMES if " = arguments(" in SOURCES[name]]  # the others ask for real data, or for a study


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name):
    assert importlib.import_module(f"benchmarks.{name}").main


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs_at_small_sizes(name, tmp_path):
    run(ROOT, sys.executable, "-m", f"benchmarks.{name}", "--smoke", "--json", str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())["keys"]


def test_accepted_tiles_that_are_nearer_to_real_ones_have_a_ratio_below_one():
    rng = np.random.default_rng(0)
    real, groups = rng.normal(size=(200, 20)), (np.arange(200) % 20).astype(str)
    features = np.concatenate([rng.normal(size=(150, 20)), rng.normal(size=(150, 20)) + 0.5])
    nearer = _over_unfiltered(features, np.arange(300) < 180, real, groups)
    alike = _over_unfiltered(features, np.arange(300) % 2 == 0, real, groups)
    assert nearer["interval"][1] < 1 and nearer["accepted_over_unfiltered"] < 0.5
    assert alike["interval"][0] < 1 < alike["interval"][1]
