"""The whole way through on a tiny study: real DVC, real dask, real slides."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

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
AFTER_SAMPLE = {"uplift", "sample", "filter", "emit", "evaluate", "report"}


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
    assert would_run(copy) == {"sample_slides"}  # and what reads its outputs, once they have changed


def test_changing_cluster_yaml_reruns_nothing(copy):
    edit_yaml(copy / "cluster.yaml", workers=1, device="cpu")
    assert would_run(copy) == set()


def test_the_report_asks_nothing_of_the_network(study):
    page = (study / "reports/index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#|slides/)""", page)
    assert "url(" not in page
    assert page.count("<img") >= 6
    assert "train alone has taught the generator" in page


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
    stage(copy, "sample_slides")
    assert hash_tree(copy / "data/synthetic") == hash_tree(study / "data/synthetic")
    assert contents(copy / "data/woven") == contents(study / "data/woven")


def contents(woven: Path) -> dict[str, bytes]:
    """The files of woven slides, but for the record of how long they took."""
    return {p.relative_to(woven).as_posix(): p.read_bytes() for p in woven.rglob("*.*") if p.name != "commit.json"}


def test_a_woven_slide_is_a_slide_and_comes_back_as_tiles(study):
    folder = study / "data/woven/woven"
    with openslide.open_slide(str(folder / "slide.tif")) as slide:
        assert slide.dimensions == (120, 88) and float(slide.properties["openslide.mpp-x"]) == 1.0
    with openslide.open_slide(str(folder / "condition.tif")) as condition:
        ids = np.asarray(condition.read_region((0, 0), 0, condition.dimensions))[..., 0]
    assert (ids[:, :44] == 1).all() and (ids[:, 44:88] == 2).all() and (ids[:, 90:] == 0).all()
    assert json.loads((folder / "polygons.geojson").read_text())["features"]
    facts = json.loads((folder / "canvas.json").read_text())
    assert len(facts["steps"]) == 4 and facts["ancestors"] == ["patient-slide-train"]
    assert not re.search(rb"patient|slide-train", b"".join(p.read_bytes() for p in folder.glob("*.tif")))
    rows = TileStore(study / "data/woven_tiles", rows_from=study / "data/verdicts").rows()
    assert set(rows["source"]) == {"synthetic"} and set(rows["label"]) <= {"left", "right", None}
    assert [list(groups) for groups in rows["ancestors"]] == [["patient-slide-train"]] * len(rows)
    assert {"woven"} == set(rows["request"]) and rows["accepted"].dtype == bool
    assert "woven" in json.loads((study / "reports/filter/metrics.json").read_text())


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium to open the page in")
def test_a_browser_opens_the_page_of_a_woven_slide(study, tmp_path):
    page, shots = study / "reports/slides/woven.html", []
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page.read_text(encoding="utf-8").split("<script>")[0])
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    browser += ["--virtual-time-budget=8000", "--window-size=600,500"]
    dom = run(study, *browser, "--dump-dom", f"file://{page}").stdout
    assert 'data-slide="open"' in dom and 'data-overlay="ready"' in dom and re.search(r'data-tiles="[1-9]', dom)
    for name in ("", "#mask"):
        shots.append(tmp_path / f"shot{len(shots)}.png")
        run(study, *browser, f"--screenshot={shots[-1]}", f"file://{page}{name}")
    plain, masked = (np.asarray(Image.open(shot).convert("RGB")).astype(int) for shot in shots)
    assert plain[60:-60].std() > 5, "the page is blank"
    assert np.abs(plain - masked)[60:-60].mean() > 5, "the mask does not show"


def check_a_broken_weave(study: Path, copy: Path, moments: int) -> None:
    """Kill `sample_slides` with -9 in mid-canvas; resumed, it ends with the same bytes and uses what was committed."""
    edit_yaml(copy / "cluster.yaml", workers=0)
    draw, caught = random.Random(moments), 0
    for _ in range(moments):
        shutil.rmtree(copy / ".work/sample_slides", ignore_errors=True)
        running = start(copy, "stages.sample_slides")
        deadline = time.monotonic() + 90
        while running.poll() is None and time.monotonic() < deadline:
            if list(copy.glob(".work/sample_slides/*/canvases/*/steps/*/*/commit.json")):
                break
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.4))
        caught += running.poll() is None
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        shutil.rmtree(copy / "data/woven", ignore_errors=True)
        stage(copy, "sample_slides")
        assert contents(copy / "data/woven") == contents(study / "data/woven")
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
