"""`histoloom status` of a study whose stages DVC ran: each change is named, a killed stage is not running, and every line fits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from histoloom.cli.init import make_study
from histoloom.cli.status import _duration, _fitting
from histoloom.data.study_folder import Study
from histoloom.progress import progress, recorded, track
from histoloom.studies.changes import Changed, Known, differences, reasons_of
from histoloom.studies.dvc_yaml import RESOLVED
from histoloom.studies.stage_state import _named, _progress
from histoloom.studies.stage_work import PROGRESS
from tests.build import make_slide
from tests.tiny_study import SIDE, dvc, edit_yaml, environment, run


def _said(study: Path) -> dict[str, str]:
    """Stage to its line and those below it."""
    lines = run(study, "histoloom", "status").stdout.splitlines()
    assert max(map(len, lines)) <= 80, lines
    out: dict[str, str] = {}
    for line in lines:
        if line.startswith(" "):
            out[[*out][-1]] += f"\n{line}"
        else:
            out[line.split()[0]] = line
    return out


@pytest.mark.long
def test_each_change_is_named_and_what_comes_after_it_waits(study):
    said = _said(study)
    assert said["tile"].endswith("  done") and said["encode"].endswith("  never run")

    edit_yaml(study / "params.yaml", tile={"mpp": 2.0, "stain": "macenko"})
    said = _said(study)
    assert "params: tile.mpp changed from 1.0 to 2.0" in said["tile"]
    assert "params: tile.stain changed from none to macenko" in said["tile"]
    assert "out of date  waits for tile" in said["train_encoders"]

    edit_yaml(study / "params.yaml", tile={"mpp": 1.0, "stain": "none"})
    make_slide(study / "data/slides/slide-val.tif", width=SIDE, height=SIDE, mpp=1.0, seed=9)
    (study / "data/slides/slide-test.tif").unlink()
    said = _said(study)
    assert "input data/slides/slide-val.tif changed" in said["tile"]
    assert "input data/slides/slide-test.tif is missing" in said["tile"] and "slide-train" not in said["tile"]


@pytest.mark.long
def test_code_outputs_commands_and_an_earlier_stage_s_run_are_reasons(study):
    version = study / "histoloom.version"
    version.write_text("histoloom 0.0.1\n")
    out = run(study, "histoloom", "status").stdout
    assert out.count("code of histoloom changed (histoloom.version)") == 2  # of the two that ran
    assert "histoloom.version says 'histoloom 0.0.1'" in out
    dvc(study, "repro", "tile")
    said = _said(study)
    assert "code of histoloom changed" in said["train_encoders"] and said["tile"].endswith("done")

    edit_yaml(study / "params.yaml", tile={"stride_px": 16})
    dvc(study, "repro", "tile")
    assert "an earlier stage ran again: tile" in _said(study)["train_encoders"]

    shutil.rmtree(study / "models/encoders")
    text = (study / "dvc.yaml").read_text()
    (study / "dvc.yaml").write_text(text.replace("histoloom run tile\n", "nice histoloom run tile\n"))
    said = _said(study)
    assert "its output models/encoders is missing" in said["train_encoders"]
    assert "its command in dvc.yaml changed" in said["tile"]


@pytest.mark.long
def test_a_stage_that_runs_says_how_far_it_is_and_one_that_was_killed_does_not_run(study):
    edit_yaml(study / "params.yaml", train_autoencoder={"steps": 100_000, "checkpoint_every": 50})
    with subprocess.Popen(
        ["dvc", "repro", "train_autoencoder"], cwd=study, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            _wait_for(study / ".work/train_autoencoder" / PROGRESS)
            said = _said(study)["train_autoencoder"]  # while DVC holds its locks
            listed = json.loads(run(study, "histoloom", "status", "--json").stdout)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert re.search(r"  running      \d+ %, .*process \d+$", said), said
    (found,) = [each for each in listed if each["name"] == "train_autoencoder"]
    assert found["state"] == "running" and 0 <= found["progress"]["fraction"] < 1
    assert {"name": "encode", "state": "never run"}.items() <= listed[3].items()
    said = _said(study)["train_autoencoder"]
    assert "never run" in said and re.search(r"stopped at \d+ %", said), said


def _wait_for(path: Path) -> None:
    for _ in range(600):
        if path.is_file():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} was not written")


def test_the_stage_that_is_not_listed_is_named(tmp_path):
    make_study(tmp_path / "study")
    out = run(tmp_path / "study", "histoloom", "status").stdout
    assert "\nresolve" not in out and "Not listed: resolve. It reads params.yaml before each run" in out


def test_progress_of_nothing_is_not_shown_and_the_last_count_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr("histoloom.progress._QUIET_LINE_EVERY_S", 0)
    with progress("nothing", 0) as advance:
        advance()
    assert [*track([], "nothing", 0)] == []
    assert [*track(iter("ab"), "two", 2)] == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["two: 1/2", "two: 2/2 done"]


def test_differences_go_down_to_the_keys_that_differ():
    before = {"a": 1, "b": {"c": [1, 2], "d": [{"n": 1}, {"n": 2}]}}
    after = {"a": 1, "b": {"c": [1, 3], "d": [{"n": 1}, {"n": 3}]}}
    assert list(differences(before, after, "k")) == [("k.b.c", [1, 2], [1, 3]), ("k.b.d[1].n", 2, 3)]
    assert list(differences(before, before, "k")) == []
    assert [key for key, *_ in differences({"a": 1}, {"b": 1}, "k")] == ["k.a", "k.b"]


def test_reasons_of_one_of_several_models_name_its_keys_and_its_files(tmp_path):
    of_denoiser, of_files = "models.a.train_denoiser", "models.a.files.train_denoiser"
    entry = {"deps": ["data/encoded/${item}"], "outs": ["models/${item}/denoiser"]}
    stages = dict(_named("train_denoiser", {"foreach": ["a", "b"], "do": entry}))
    assert stages["train_denoiser@b"] == {"deps": ["data/encoded/b"], "outs": ["models/b/denoiser"]}
    before = {of_denoiser: {"steps": 1, "init": "base"}, of_files: {"init": "old"}}
    after = {"train_denoiser": {"steps": 2, "init": "base"}, "files": {"train_denoiser": {"init": "new"}}}
    locked = {"train_denoiser@a": {"params": {RESOLVED: before}}}
    known = Known(Study(tmp_path), stages, locked, {"models": {"a": after}})
    changed = Changed({"models/b/denoiser": "modified"}, {}, {RESOLVED: (of_denoiser, of_files)}, command=False)
    assert [reason.text for reason in reasons_of("train_denoiser@a", changed, known)] == [
        "params: models.a.train_denoiser.steps changed from 1 to 2",
        "input base changed (models.a.train_denoiser.init)",
        "an earlier stage ran again: train_denoiser@b",
    ]


def test_progress_is_recorded_of_the_outermost_bar_and_forgotten_when_the_work_is_done(tmp_path):
    with recorded(tmp_path / PROGRESS), progress("outer", 4) as advance:
        advance(2)
        with progress("inner", 2) as inner:
            inner(1)
        found = _progress(tmp_path)
        assert found is not None and (found.title, found.fraction) == ("outer", 0.5)
        assert found.seconds_left is None  # what a run goes on from tells no speed
        time.sleep(1.1)
        advance()
        found = _progress(tmp_path)
        assert found is not None and found.fraction == 0.75 and 0.5 < found.seconds_left < 3
    assert _progress(tmp_path) is None


def test_progress_of_work_that_fails_stays(tmp_path):
    with pytest.raises(ValueError), recorded(tmp_path / PROGRESS), progress("work", 4) as advance:
        advance(1)
        raise ValueError
    assert _progress(tmp_path).fraction == 0.25


@pytest.mark.parametrize(
    "seconds, words",
    [(0.2, "1 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min"), (190_000, "2 days 4 h")],
)
def test_durations_are_in_words(seconds, words):
    assert _duration(seconds) == words


def test_what_is_too_long_loses_its_middle():
    assert _fitting("input data/slides/a/long/path.svs changed", 20) == "input dat…vs changed"
    assert _fitting("short", 20) == "short"
