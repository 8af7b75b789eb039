"""The page of the command line is that of the commands; shells complete them; exit codes and JSON are what the page says."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from histoloom.cli.command_line import page
from histoloom.cli.main import cli
from histoloom.errors import HistoloomError
from histoloom.exit_codes import EXIT_CODES, ends_in_words
from tests.build import make_study
from tests.tiny_study import dvc, edit_yaml, environment, run

PAGE = Path(__file__).parents[2] / "docs/reference/command-line.md"


def test_the_page_is_up_to_date():
    wanted = "run: python -m histoloom.cli.command_line > docs/reference/command-line.md"
    assert PAGE.read_text(encoding="utf-8") == page(), wanted


def test_the_page_names_every_command_and_exit_code():
    text = PAGE.read_text(encoding="utf-8")
    for name in cli.commands:
        assert f"### histoloom {name}" in text
    assert all(f"| {code} | " in text for code in EXIT_CODES)


def _completed(shell: str, *words: str) -> str:
    """What the shell is answered for the last, begun word."""
    asked = {"_HISTOLOOM_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words)}
    asked["COMP_CWORD"] = words[-1] if shell == "fish" else str(len(words) - 1)
    done = subprocess.run(["histoloom"], env=environment(asked), capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_stages_and_systems(shell):
    source = subprocess.run(
        ["histoloom"],
        env=environment({"_HISTOLOOM_COMPLETE": f"{shell}_source"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"_HISTOLOOM_COMPLETE={shell}_complete" in source.stdout
    assert f"_HISTOLOOM_COMPLETE={shell}_source histoloom" in PAGE.read_text(encoding="utf-8")
    assert {"stages", "status"} <= set(_completed(shell, "histoloom", "sta").replace(",", "\n").split())
    assert "train_encoders" in _completed(shell, "histoloom", "run", "train_e")
    assert "ddib" in _completed(shell, "histoloom", "init", "x", "--system", "ddi")
    assert "adapt" in _completed(shell, "histoloom", "init", "x", "--recipe", "ad")


@pytest.mark.parametrize(
    "error, code, words",
    [
        (HistoloomError("mend [this]"), 1, "error: mend [this]"),
        (
            OSError(errno.ENOSPC, "No space left on device", "big.tif"),
            1,
            "error: The disk is full (big.tif). Make room",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "error: x can't be used: Permission denied."),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 70, "This error was not foreseen."),
        (KeyboardInterrupt(), 130, "Stopped. What was committed is kept."),
        (click.Abort(), 130, "Stopped. What was committed is kept."),
        (ZeroDivisionError("a bug"), 70, "This error was not foreseen. Please report it"),
        (click.UsageError("no such option"), 2, "no such option"),
    ],
)
def test_what_is_raised_ends_in_words_and_a_code(error, code, words):
    @click.command()
    def failing():
        with ends_in_words():
            raise error

    done = CliRunner().invoke(failing)
    assert done.exit_code == code and words in done.output
    assert ("Traceback" in done.output) == (code == 70)


def test_every_command_goes_through_these_codes(folder):
    assert CliRunner().invoke(cli, ["params"]).exit_code == 0
    assert CliRunner().invoke(cli, ["status"]).exit_code == 1
    assert CliRunner().invoke(cli, ["status", "--jsn"]).exit_code == 2
    assert CliRunner().invoke(cli, ["init"]).exit_code == 2
    Path("params.yaml").write_text("tile: {mpp: 1.0, labels: {source: none}}\n")
    for text in ("stages: [1]\n", "stages: {\n", "[]\n\n- a"):
        Path("dvc.yaml").write_text(text)
        done = CliRunner().invoke(cli, ["status"])
        assert done.exit_code == 1 and "dvc.yaml can't be read" in done.output, text


@pytest.mark.long
def test_a_command_that_is_interrupted_has_its_code():
    code = (
        "import os, signal, click\n"
        "from histoloom.cli.main import cli\n"
        "@cli.command()\ndef wait(): os.kill(os.getpid(), signal.SIGINT); signal.pause()\n"
        "cli(['wait'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert done.returncode == 130 and "Stopped." in done.stderr


def _json(*arguments: str) -> tuple[int, dict]:
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_faults_and_findings_are_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_study(".", [{"slide_id": "a", "path": "a.svs", "patient_id": "", "label": "tumour"}])
    code, found = _json("validate")
    assert code == 1
    (fault,) = [fault for fault in found["faults"] if fault["column"] == "patient_id"]
    assert fault["row"] == 2 and fault["remedy"] and found["notes"] == []
    code, found = _json("doctor")
    assert code == (0 if found["is_whole"] else 1)
    assert {"git", "torch", "device"} <= {each["what"] for each in found["findings"]} and found["extractors"]


@pytest.mark.long
def test_a_plan_and_a_difference_are_json(study, monkeypatch):
    monkeypatch.chdir(study)
    run(study, "git", "add", "-A")
    run(study, "git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "first")
    edit_yaml(study / "params.yaml", tile={"stride_px": 16})
    dvc(study, "repro", "tile")
    found = json.loads(run(study, "histoloom", "plan", "--json").stdout)
    assert [each["label"] for each in found["classes"]] == ["left", "right"] and found["seconds"] is None
    assert found["notes"] == []
    assert found["tiles"]["augment"] == sum(each["made"] for each in found["classes"])
    found = json.loads(run(study, "histoloom", "diff", "HEAD", "--json").stdout)
    assert found["params"] == {"tile.stride_px": {"before": 32, "after": 16}}
    (tiles,) = [each for each in found["outputs"] if each["path"] == "data/tiles"]
    before, after = tiles["tiles"]
    assert tiles["change"] == "changed" and before < after and tiles["added"] + tiles["rewritten"] == 3


@pytest.mark.long
def test_dvc_s_code_of_a_stage_that_fails_is_what_the_page_says(study):
    edit_yaml(study / "params.yaml", tile={"stride_px": -1})
    done = dvc(study, "repro", "tile", check=False)
    assert done.returncode == 255 and "tile.stride_px" in done.stderr + done.stdout
