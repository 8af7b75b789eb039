"""The whole way through on a tiny study: real DVC, real dask, real slides."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.commit import hash_tree
from pipeline.data.store import TileStore
from tests.study import add_slide, copy_study, dvc, edit_yaml, environment, make_tiny_study, run, stage

STAGES = [
    "tile",
    "train_encoders",
    "train_autoencoder",
    "encode",
    "train_denoiser",
    "plan",
    "sample",
    "sample_slides",
    "tile_slides",
    "train_filters",
    "filter",
    "emit",
    "evaluate",
    "report",
]
AFTER_SAMPLE = {"sample", "filter", "emit", "evaluate", "report"}
AFTER_WEAVING = {"sample_slides", "tile_slides", "filter", "emit", "evaluate", "report"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study on which `dvc repro` has run once. Tests that change it work on a copy."""
    folder = make_tiny_study(tmp_path_factory.mktemp("whole") / "study")
    dvc(folder, "repro", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first version")
    run(folder, "git", "tag", "v1")
    return folder


@pytest.fixture
def copy(study, tmp_path) -> Path:
    return copy_study(study, tmp_path / "copy")


def would_run(folder: Path) -> set[str]:
    return set(re.findall(r"Running stage '(\w+)'", dvc(folder, "repro", "--dry").stdout))


def test_a_second_repro_does_nothing(study):
    assert would_run(study) == set()
    assert "up to date" in dvc(study, "repro").stdout


def test_every_stage_left_what_dvc_yaml_promises(study):
    for output in ("data/tiles", "data/encoded", "data/plan", "data/synthetic", "data/verdicts", "data/dataset"):
        assert any((study / output).iterdir())
    for name in ("tile", "train_autoencoder", "filter", "emit", "evaluate"):
        assert json.loads((study / "reports" / name / "metrics.json").read_text())
    rows = TileStore(study / "data/synthetic", rows_from=study / "data/verdicts").rows()
    assert set(rows["purpose"]) == {"augment", "evaluate"}
    assert rows["tile_id"].is_unique
    assert rows.loc[~rows["accepted"], "reject_reasons"].str.len().gt(0).all()
    assert rows.loc[rows["accepted"], "reject_reasons"].eq("").all()


def test_only_the_train_split_was_seen(study):
    rows = TileStore(study / "data/tiles").rows()
    train = set(rows.loc[rows["split"] == "train", "split_group"])
    for model in ("encoders", "autoencoder", "denoiser", "filters"):
        seen = json.loads((study / "models" / model / "lineage.json").read_text())
        assert set(seen["groups"]) <= train and seen["groups"], model
    plan = pd.read_parquet(study / "data/plan/plan.parquet")
    assert set(plan.loc[plan["purpose"] == "augment", "split_group"]) <= train
    assert not set(plan.loc[plan["purpose"] == "evaluate", "split_group"]) & train


def test_changing_sample_reruns_from_sample(copy):
    edit_yaml(copy / "params.yaml", sample={"guidance": 3.0})
    ran = re.findall(r"Running stage '(\w+)'", dvc(copy, "repro").stdout)
    assert set(ran) == AFTER_SAMPLE


def test_changing_a_woven_slide_reruns_from_weaving(copy):
    edit_yaml(copy / "params.yaml", sample_slides={"steps": 3})
    assert would_run(copy) >= {"sample_slides", "tile_slides"}
    assert would_run(copy) <= AFTER_WEAVING


def test_changing_cluster_yaml_reruns_nothing(copy):
    edit_yaml(copy / "cluster.yaml", workers=1, device="cpu")
    assert would_run(copy) == set()


def test_the_report_asks_nothing_of_the_network(study):
    page = (study / "reports/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page
    assert page.count("<img") >= 6


def test_a_clone_pulls_a_tagged_dataset(study, tmp_path):
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    dvc(study, "remote", "add", "--local", "--force", "--default", "store", str(remote))
    dvc(study, "push", "--quiet")
    run(tmp_path, "git", "clone", "--quiet", "--branch", "v1", str(study), str(clone))
    dvc(clone, "remote", "add", "--local", "--default", "store", str(remote))
    dvc(clone, "pull", "--quiet", "data/dataset", "reports/index.html")
    assert hash_tree(clone / "data/dataset") == hash_tree(study / "data/dataset")
    assert (clone / "reports/index.html").is_file()


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_bytes_for_any_number_of_workers(study, copy, workers):
    edit_yaml(copy / "cluster.yaml", workers=workers)  # the study itself ran on one worker a core
    stage(copy, "sample")
    assert hash_tree(copy / "data/synthetic") == hash_tree(study / "data/synthetic")


def start(folder: Path, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def break_off_sample(folder: Path, moments: int, seed: int) -> int:
    """Kill `sample` with -9 at random moments after its first part; returns how often it was caught at work."""
    draw, caught = random.Random(seed), 0
    for _ in range(moments):
        running = start(folder, "stages.sample")
        parts = folder / ".work/sample"
        before = len(list(parts.glob("*/parts/*/commit.json")))
        deadline = time.monotonic() + 60
        while running.poll() is None and time.monotonic() < deadline:
            if len(list(parts.glob("*/parts/*/commit.json"))) > before:
                break
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        caught += running.poll() is None
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    return caught


def check_broken_runs(study: Path, copy: Path, moments: int) -> None:
    assert break_off_sample(copy, moments, seed=moments) > 0
    committed = {p.parent.name: p.stat().st_mtime_ns for p in copy.glob(".work/sample/*/parts/*/commit.json")}
    assert committed
    stage(copy, "sample")
    after = {p.parent.name: p.stat().st_mtime_ns for p in copy.glob(".work/sample/*/parts/*/commit.json")}
    assert committed.items() <= after.items(), "a committed part was made again"
    assert hash_tree(copy / "data/synthetic") == hash_tree(study / "data/synthetic")


def test_kill_9_of_sample_costs_no_committed_part(study, copy):
    check_broken_runs(study, copy, moments=2)


@pytest.mark.slow
def test_kill_9_of_sample_at_ten_moments(study, copy):
    check_broken_runs(study, copy, moments=10)


def test_kill_9_of_dvc_leaves_an_orphan_that_the_next_repro_waits_for(study, copy):
    running = start(copy, "dvc", "repro", "--single-item", "--force", "--no-run-cache", "sample")
    lock = copy / ".work/sample/lock"
    deadline = time.monotonic() + 60
    while not (lock.exists() and lock.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    orphan = int(lock.read_text())
    assert Path(f"/proc/{orphan}").exists() or sys.platform != "linux", "the stage should outlive dvc"
    dvc(copy, "repro", "--quiet", "--force", "--single-item", "sample")
    assert hash_tree(copy / "data/synthetic") == hash_tree(study / "data/synthetic")


def test_training_resumes_exactly(study, copy):
    """Broken after a checkpoint and resumed, training ends with the same weights."""
    running = start(copy, "stages.train_denoiser")
    deadline = time.monotonic() + 90
    while not list(copy.glob(".work/train_denoiser/*/checkpoints/step-0000004/commit.json")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    stage(copy, "train_denoiser")
    weights = "models/denoiser/diffusion_pytorch_model.safetensors"
    assert (copy / weights).read_bytes() == (study / weights).read_bytes()


def test_a_missing_checkpoint_to_resume_from_is_an_error(copy):
    edit_yaml(copy / "params.yaml", train_denoiser={"resume_from": "checkpoints/gone"})
    done = stage(copy, "train_denoiser", check=False)
    assert done.returncode == 1 and "resume_from" in done.stderr and "Traceback" not in done.stderr


def test_one_slide_more_cuts_one_slide(copy):
    before = {p: p.read_bytes() for p in copy.glob("data/tiles/*/commit.json")}
    stage(copy, "tile")
    add_slide(copy, "slide-more", "train", seed=9)
    done = stage(copy, "tile")
    assert "1 slide(s) cut, 3 taken as they were" in done.stderr
    assert all(path.read_bytes() == contents for path, contents in before.items())


def test_diff_and_status_say_what_changed(copy):
    edit_yaml(copy / "params.yaml", sample={"guidance": 1.0})
    assert (
        "sample.guidance" in run(copy, "histoloom", "diff", "v1").stdout + run(copy, "histoloom", "diff", "v1").stderr
    )
    assert "out of date" in run(copy, "histoloom", "status").stderr


def documented_snippets() -> dict[str, str]:
    page = Path(__file__).parents[1] / "docs" / "how-to" / "train-on-a-dataset.md"
    return dict(re.findall(r"## (\w+)\n.*?```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))


@pytest.mark.parametrize("name", ["ImageFolder", "WebDataset", "Parquet"])
def test_the_documented_lines_train_on_each_format(study, name):
    done = run(study, sys.executable, "-W", "ignore", "-c", documented_snippets()[name])
    assert re.search(r"loss \d", done.stdout)
