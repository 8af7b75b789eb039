"""Work that was broken off, killed, or is asked for again with more in it: what was committed is kept, to the byte."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from histoloom.data.commit import hash_tree
from tests.tiny_study import add_slide, dvc, edit_yaml, environment, stage, woven_files

pytestmark = pytest.mark.long


def check_a_broken_weave(study: Path, copy: Path, moments: int) -> None:
    """Kill `sample_slides` with -9 in mid-canvas; resumed, it ends with the same bytes and uses what was committed."""
    draw, caught = random.Random(moments), 0
    for _ in range(moments):
        shutil.rmtree(copy / ".work/sample_slides", ignore_errors=True)
        caught += kill(copy, "sample_slides", "canvases/*/steps/*/*", draw.uniform(0, 0.4))
        shutil.rmtree(copy / "data/woven", ignore_errors=True)
        stage(copy, "sample_slides")
        assert woven_files(copy / "data/woven") == woven_files(study / "data/woven")
    assert caught


def test_one_woven_slide_more_weaves_one_slide(copy):
    stage(copy, "sample_slides")
    before = json.loads((copy / "reports/sample_slides/metrics.json").read_text())["slides"]
    (stated,) = YAML(typ="safe").load((copy / "params.yaml").read_text())["sample_slides"]["slides"]
    edit_yaml(copy / "params.yaml", sample_slides={"slides": [stated, stated | {"name": "other"}]})
    stage(copy, "sample_slides")
    after = json.loads((copy / "reports/sample_slides/metrics.json").read_text())["slides"]
    assert after["woven"] == before["woven"] and set(after) == {"woven", "other"}  # with the seconds that it took then


def test_kill_9_in_mid_canvas_changes_no_byte(study, copy):
    check_a_broken_weave(study, copy, moments=1)


@pytest.mark.slow
def test_kill_9_in_mid_canvas_at_five_moments(study, copy):
    check_a_broken_weave(study, copy, moments=5)


def start(folder: Path, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(folder: Path, name: str, parts: str, seconds: float) -> bool:
    """Kill a stage with -9, so many seconds after it has committed one more of its parts; whether it was caught at work."""

    def committed() -> int:
        return len(list((folder / ".work" / name).glob(f"*/{parts}/commit.json")))

    before, deadline = committed(), time.monotonic() + 90
    running = start(folder, "histoloom", "run", name)
    while running.poll() is None and time.monotonic() < deadline and committed() <= before:
        time.sleep(0.01)
    time.sleep(seconds)
    caught = running.poll() is None
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return caught


def check_broken_runs(study: Path, copy: Path, moments: int) -> None:
    edit_yaml(copy / "cluster.yaml", workers=2)
    draw = random.Random(moments)
    assert sum(kill(copy, "sample", "parts/*", draw.uniform(0, 0.3)) for _ in range(moments))
    committed = {p.parent.name: p.stat().st_mtime_ns for p in copy.glob(".work/sample/*/parts/*/commit.json")}
    assert committed
    stage(copy, "sample")
    after = {p.parent.name: p.stat().st_mtime_ns for p in copy.glob(".work/sample/*/parts/*/commit.json")}
    assert committed.items() <= after.items(), "a committed part was made again"
    assert hash_tree(copy / "data/synthetic") == hash_tree(study / "data/synthetic")


def test_kill_9_of_sample_costs_no_committed_part(study, copy):
    check_broken_runs(study, copy, moments=1)


@pytest.mark.slow
def test_kill_9_of_sample_at_ten_moments(study, copy):
    check_broken_runs(study, copy, moments=10)


def test_kill_9_of_dvc_leaves_an_orphan_that_the_next_repro_waits_for(study, copy):
    running = start(copy, sys.executable, "-m", "dvc", "repro", "--single-item", "--force", "--no-run-cache", "sample")
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
    running = start(copy, "histoloom", "run", "train_denoiser")
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
