"""The benchmarks still fit the code that they measure. What they find is no test's business."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.packaged import from_history
from benchmarks.planted import _over_unfiltered
from histoloom.errors import HistoloomError
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


def test_a_made_study_passes_through_the_stages_that_are_measured_on_it(tmp_path):
    tables.make_study(tmp_path, 1_200)
    for stage in ("plan", "train_filters", "filter", "emit"):
        tables.run_one(tmp_path, stage, 1_200, 0)
    assert list((tmp_path / "data/dataset").rglob("*.parquet"))


def test_accepted_tiles_that_are_nearer_to_real_ones_have_a_ratio_below_one():
    rng = np.random.default_rng(0)
    real, groups = rng.normal(size=(200, 20)), (np.arange(200) % 20).astype(str)
    features = np.concatenate([rng.normal(size=(150, 20)), rng.normal(size=(150, 20)) + 0.5])
    labels = np.full(300, "a")
    nearer = _over_unfiltered(features, labels, np.arange(300) < 180, real, groups)
    alike = _over_unfiltered(features, labels, np.arange(300) % 2 == 0, real, groups)
    assert nearer["interval"][1] < 1 and nearer["accepted_over_unfiltered"] < 0.5
    assert alike["interval"][0] < 1 < alike["interval"][1]


def test_a_model_that_left_the_tree_is_read_from_the_last_commit_that_held_it(tmp_path):
    checkout, facts = tmp_path / "checkout", tmp_path / "checkout/pretrained/gone/denoiser/facts.json"
    facts.parent.mkdir(parents=True)

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=checkout, check=True)

    def commit() -> None:
        git("add", "-A")
        git("commit", "-qm", "a step", "--no-gpg-sign", "--no-verify", "--allow-empty")

    with pytest.raises(HistoloomError, match="No commit of the git checkout"):
        from_history("gone", tmp_path / "work", tmp_path)
    git("init", "-q")
    for text in ("first", "last"):
        facts.write_text(text, encoding="utf-8")
        commit()
    facts.unlink()
    commit()
    (checkout / "other").touch()
    commit()
    found = from_history("gone", tmp_path / "work", checkout)
    assert (found / "denoiser/facts.json").read_text(encoding="utf-8") == "last"
    subprocess.run(["git", "clone", "-q", "--depth", "1", checkout.as_uri(), str(tmp_path / "shallow")], check=True)
    with pytest.raises(HistoloomError, match=r"whole history \(git fetch --unshallow\)"):
        from_history("gone", tmp_path / "work", tmp_path / "shallow")
