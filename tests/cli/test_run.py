"""`histoloom run`: one stage of a study, whatever else lies in the study's folder; its errors are words."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from histoloom.cli.main import cli
from tests.tiny_study import add_slide, edit_yaml, environment, run, stage

pytestmark = pytest.mark.long

BROKEN = "def broken(:\n"
MODULES = ("__init__", "data", "tile", "resolve", "work", "config", "histoloom", "torch", "cli")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study of two slides in whose folder lie Python files of the user's, none of which can be read."""
    folder = tmp_path_factory.mktemp("own") / "study"
    run(folder.parent, str(Path(sys.executable).with_name("histoloom")), "init", str(folder))
    for seed, split in enumerate(("train", "val")):
        add_slide(folder, f"slide-{split}", split, seed)
    labels = {"source": "polygons", "classes": ["left", "right"]}
    edit_yaml(folder / "params.yaml", tile={"mpp": 1.0, "tile_px": 64, "stride_px": 64} | {"labels": labels})
    for place in ("pipeline", "pipeline/histoloom", "stages", "histoloom", "studies", "data"):
        (folder / place).mkdir(exist_ok=True)
        for name in MODULES:
            (folder / place / f"{name}.py").write_text(BROKEN, encoding="utf-8")
    for name in ("tile", "resolve", "click", "numpy", "sitecustomize"):
        (folder / f"{name}.py").write_text(BROKEN, encoding="utf-8")
    return folder


def test_python_files_in_a_study_s_folder_are_not_loaded(study):
    edit_yaml(study / "cluster.yaml", workers=2)
    assert stage(study, "resolve").returncode == 0
    assert "2 slide(s) cut" in stage(study, "tile").stderr


def test_a_stage_that_is_stopped_says_how_to_go_on(study):
    """The test holds the stage's lock, so that it waits until Ctrl-C."""
    lock = study / ".work/encode/lock"
    lock.parent.mkdir(parents=True)
    for place in ("data/tiles", "models/encoders", "models/autoencoder"):
        (study / place).mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with subprocess.Popen(
            ["histoloom", "run", "encode"],
            cwd=study,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # ignored where the tests run behind a shell's &
        ) as process:
            try:
                assert "is still being run" in process.stderr.readline()
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == 130 and "Stopped. What was committed is kept" in said, said


@pytest.mark.parametrize("command", [["run", "tile"], ["plan"], ["status"], ["review", "make", "page"]])
def test_outside_of_a_study_it_is_said_and_nothing_is_written(folder, command):
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 1 and "run this in a study's folder, or make one: histoloom init DIR" in done.output
    assert list(folder.iterdir()) == []


def test_a_stage_that_there_is_not_is_said_with_those_that_there_are():
    done = CliRunner().invoke(cli, ["run", "tiles"])
    assert done.exit_code == 2 and "'tiles' is not one of" in done.output and "'train_filters'" in done.output


def test_commands_are_listed_in_the_order_in_which_a_study_needs_them():
    listed = [
        line.split()[0]
        for line in CliRunner().invoke(cli, ["--help"]).output.split("Commands:")[1].splitlines()
        if line
    ]
    assert listed[:4] == ["init", "validate", "params", "run"] and listed[-1] == "doctor"
