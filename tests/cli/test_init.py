"""An `init` that fails is as if it had never begun; where it succeeds, the study is whole wherever it lies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from histoloom.cli.fresh_repository import made_whole
from histoloom.cli.main import cli
from histoloom.errors import HistoloomError


@pytest.fixture
def git_config(tmp_path, monkeypatch):
    """Write the user's own git configuration."""
    path = tmp_path / "gitconfig"

    def write(text: str) -> None:
        path.write_text("[user]\nname = A\nemail = a@example.org\n" + text)

    write("")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(path))
    return write


def _init(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["init", *map(str, arguments)])
    return done.exit_code, " ".join(done.output.split())


def _whole(study: Path) -> None:
    log = subprocess.run(["git", "log", "--format=%s"], cwd=study, capture_output=True, text=True, check=True)
    assert log.stdout.split("\n") == ["A histoloom study", ""]
    status = subprocess.run(["git", "status", "--porcelain"], cwd=study, capture_output=True, text=True, check=True)
    assert status.stdout == "" and (study / "manifests/slides.csv").is_file()


@pytest.mark.parametrize("config", ["[init]\ndefaultBranch = 'a..b'\n", "[init]\ntemplateDir = {}/template\n"])
def test_an_init_that_git_refuses_leaves_nothing_and_runs_again(tmp_path, git_config, config):
    (tmp_path / "template").mkdir()
    (tmp_path / "template/config").write_text("[broken")
    git_config(config.format(tmp_path))
    code, said = _init(tmp_path / "new/deep/study")
    assert code == 1 and "git init" in said and not (tmp_path / "new").exists()
    git_config("")
    assert _init(tmp_path / "new/deep/study")[0] == 0
    _whole(tmp_path / "new/deep/study")


def test_a_new_study_is_reported_to_nobody(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_NO_ANALYTICS")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))  # dvc writes there what it is about to send
    (tmp_path / "temporary").mkdir()
    assert _init(tmp_path / "study")[0] == 0
    assert not list((tmp_path / "temporary").iterdir())


def test_a_folder_of_another_owner_leaves_nothing(tmp_path, git_config, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    (tmp_path / "study").mkdir()
    code, said = _init(tmp_path / "study")
    assert code == 1 and "ownership" in said and list((tmp_path / "study").iterdir()) == []


def test_a_signature_that_fails_is_said_and_the_commit_made(tmp_path, git_config):
    git_config("signingkey = none\n[commit]\ngpgsign = true\n[gpg]\nprogram = /bin/false\n")
    code, said = _init(tmp_path / "study")
    assert code == 0 and "The first commit is unsigned" in said
    _whole(tmp_path / "study")


@pytest.mark.parametrize("hook", ["pre-commit", "commit-msg", "prepare-commit-msg", "post-commit"])
def test_hooks_of_the_user_do_not_judge_the_first_commit(tmp_path, git_config, hook):
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / hook).write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "hooks" / hook).chmod(0o755)
    git_config(f"[core]\nhooksPath = {tmp_path / 'hooks'}\n")
    code, said = _init(tmp_path / "study")
    assert code == 0, said
    _whole(tmp_path / "study")


def test_what_the_user_ignores_everywhere_is_committed_too(tmp_path, git_config):
    (tmp_path / "ignore").write_text("*.csv\ncluster.yaml\n")
    git_config(f"[core]\nexcludesFile = {tmp_path / 'ignore'}\n")
    assert _init(tmp_path / "study")[0] == 0
    listed = subprocess.run(["git", "ls-files"], cwd=tmp_path / "study", capture_output=True, text=True, check=True)
    assert {"manifests/slides.csv", "cluster.yaml"} <= {*listed.stdout.split()}


def test_another_repository_that_a_hook_names_is_left_alone(tmp_path, git_config, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other/.git/index"))
    code, said = _init(tmp_path / "study")
    assert code == 0, said
    for name in ("GIT_DIR", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    _whole(tmp_path / "study")


def test_a_study_inside_another_repository_is_said(tmp_path, git_config):
    subprocess.run(["git", "init", "-q", str(tmp_path / "outer")], check=True)
    (tmp_path / "outer/.gitignore").write_text("/ignored/\n")
    code, said = _init(tmp_path / "outer/study")
    assert code == 0 and "git repository inside another" in said and ".gitignore" in said
    _whole(tmp_path / "outer/study")
    code, said = _init(tmp_path / "outer/ignored")
    assert code == 0 and "inside another" not in said


@pytest.mark.parametrize("name", ["a study", "étude ünïcode"])
def test_an_empty_folder_of_any_name_is_filled(tmp_path, git_config, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / ".histoloom-init-0").mkdir()  # of a process that was killed
    before = (tmp_path / name).stat().st_ino
    code, said = _init(tmp_path / name)
    assert code == 0 and f"cd '{tmp_path / name}'" in said
    assert (tmp_path / name).stat().st_ino == before and not list((tmp_path / name).glob(".histoloom-init-*"))
    _whole(tmp_path / name)


@pytest.mark.parametrize("error, raised", [(KeyboardInterrupt, KeyboardInterrupt), (OSError, HistoloomError)])
@pytest.mark.parametrize("there", [False, True])
def test_what_is_broken_off_leaves_nothing(tmp_path, error, raised, there):
    place = tmp_path / "deep/study"
    if there:
        place.mkdir(parents=True)
    with pytest.raises(raised), made_whole(place) as staged:
        (staged / "params.yaml").write_text("x")
        raise error("no space left on device")
    assert list(place.iterdir()) == [] if there else not (tmp_path / "deep").exists()


def test_a_folder_without_slides_is_said(tmp_path, git_config):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/notes.txt").write_text("x")
    code, said = _init(tmp_path / "study", "--slides", tmp_path / "slides")
    assert code == 0 and "No slide found in" in said and "Left out: 1 file(s) that are no slide by their suffix" in said


def test_a_file_in_the_folder_s_place_is_said(tmp_path):
    (tmp_path / "study").write_text("mine")
    code, said = _init(tmp_path / "study")
    assert code == 1 and "is a file" in said and (tmp_path / "study").read_text() == "mine"


def test_git_leaves_alone_whatever_a_stage_writes_though_a_run_fails(tmp_path):
    """DVC names outputs to git as they are made, and takes that back where a later stage fails. The resolved params are git's to keep."""
    code, _ = _init(tmp_path / "study")
    assert code == 0
    stages = YAML(typ="safe").load((tmp_path / "study/dvc.yaml").read_text())["stages"]
    for stage in stages.values():
        for entry in (entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, ())):
            for place in [entry] if isinstance(entry, str) else entry:
                (tmp_path / "study" / place).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "study" / place).write_text("of a patient")
    done = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path / "study", capture_output=True, text=True)
    assert done.stdout == "?? .histoloom/\n"
    done = subprocess.run(["git", "add", "--all", "--dry-run"], cwd=tmp_path / "study", capture_output=True, text=True)
    assert done.stdout == "add '.histoloom/resolved.yaml'\n"


def test_status_of_a_new_study_says_that_nothing_ran(tmp_path, monkeypatch):
    assert _init(tmp_path / "study")[0] == 0
    monkeypatch.chdir(tmp_path / "study")
    done = CliRunner().invoke(cli, ["status"])
    assert done.exit_code == 0 and "out of date" not in done.stdout
    assert done.stdout.count("  never run\n") == len(YAML(typ="safe").load(Path("dvc.yaml").read_text())["stages"]) - 1


def test_names_that_can_be_no_folder_are_said(tmp_path, git_config):
    (tmp_path / "link").symlink_to("gone")
    code, said = _init(tmp_path / "link")
    assert code == 1 and "a link to gone, which is not there" in said
    code, said = _init(tmp_path / ("x" * 300))
    assert code == 1 and "too long" in said


def test_a_name_like_an_option_is_a_place_to_go_to(tmp_path, git_config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = _init("--", "-rf")
    assert code == 0 and "cd ./-rf," in said
