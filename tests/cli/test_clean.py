"""`histoloom clean` frees what no stage needs, and nothing that a stage, DVC or the user does."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tests.tiny_study import dvc, edit_yaml, environment, run

pytestmark = pytest.mark.long


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _outside(study: Path) -> dict[str, bytes]:
    """All files but those of .work, DVC's own temporary ones, and the hashes that each look at the study renews."""
    own = (".work/", ".dvc/tmp/", ".histoloom/hashes.json")
    return {name: held for name, held in _files(study).items() if not name.startswith(own)}


def test_it_frees_the_work_of_stages_that_are_done_and_touches_nothing_else(study):
    (study / "data/.old-mine").write_text("mine")
    left = study / "data/.new-tiles-0123abcd"
    left.mkdir()
    (left / "part").write_bytes(bytes(10_000))
    gone = study / ".work/train_denoiser@gone"
    gone.mkdir()
    (gone / "checkpoint").write_bytes(bytes(10_000))
    before, work = _outside(study), _files(study / ".work")
    listed = run(study, "histoloom", "clean", "--dry-run").stdout
    assert (
        "train_encoders: parts and checkpoints, which a finished stage no longer needs" in listed and "in all" in listed
    )
    assert (
        "train_denoiser@gone: work of a stage or model that dvc.yaml no longer names" in listed
        and "tiles: unfinished output of a stage that was killed" in listed
    )
    assert "tile: " not in listed  # its parts let it cut a new slide alone
    assert _outside(study) == before and _files(study / ".work") == work

    done = run(study, "histoloom", "clean", check=False)
    assert done.returncode == 1 and "add --yes" in " ".join(done.stderr.split()).lower()
    assert _files(study / ".work") == work

    said = run(study, "histoloom", "clean", "--yes").stdout
    assert " freed." in said
    assert not left.exists() and not gone.exists() and (study / ".work/tile/shared").is_dir()
    assert not list((study / ".work/train_encoders").glob("*/checkpoints"))
    after = _outside(study)
    assert {name for name in before if name not in after} == {"data/.new-tiles-0123abcd/part"}
    assert all(after[name] == held for name, held in before.items() if name in after)
    assert "train_encoders     done" in run(study, "histoloom", "status").stdout
    assert "didn't change" in dvc(study, "repro", "train_encoders").stdout
    assert "Nothing to clean. With --parts, more may go" in run(study, "histoloom", "clean", "--dry-run").stdout
    assert (
        "tile: parts. Without them, a change makes the stage redo everything"
        in run(study, "histoloom", "clean", "--dry-run", "--parts").stdout
    )


def test_a_stage_that_runs_or_is_to_go_on_keeps_its_work(study):
    lock = study / ".work/train_encoders/lock"
    with lock.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert "train_encoders" not in run(study, "histoloom", "clean", "--dry-run").stdout
    edit_yaml(
        study / "params.yaml",
        train_encoders={"text": {"image_px": 32, "width": 32, "layers": 1, "steps": 8, "batch_size": 16}},
    )
    leftover = next((study / ".work/train_encoders").glob("*/parts")) / ".tmp-part-0"
    leftover.write_bytes(bytes(10_000))
    listed = run(study, "histoloom", "clean", "--dry-run").stdout
    assert "train_encoders: unfinished files of a run that was killed" in listed and "a finished stage" not in listed


def test_a_checkpoint_that_params_resume_from_stays(study):
    checkpoint = next((study / ".work/train_encoders").glob("*/checkpoints"))
    place = os.path.relpath(checkpoint, study)
    edit_yaml(study / "params.yaml", train_denoiser={"resume_from": place})
    assert "train_encoders" not in run(study, "histoloom", "clean", "--dry-run").stdout


def test_at_a_terminal_it_asks(study):
    """`script` gives it a terminal; the answer is no."""
    done = subprocess.run(
        ["script", "-qec", "histoloom clean", "/dev/null"], cwd=study, env=environment(), input="n\n", text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert "Delete this?" in done.stdout and "freed" not in done.stdout
    assert list((study / ".work/train_encoders").glob("*/checkpoints"))
