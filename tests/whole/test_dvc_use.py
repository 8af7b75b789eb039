"""What docs/how-to/use-dvc.md says of experiments, queues, remotes and artifacts, done on a tiny study."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from pathlib import Path

import pytest

from histoloom.data.commit import hash_tree
from tests.tiny_study import copy_study, dvc, edit_yaml, run

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parents[2] / "docs/how-to/use-dvc.md").read_text(encoding="utf-8")


def _commit(study: Path, message: str) -> None:
    run(study, "git", "add", "--all")
    run(study, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", message)


@pytest.fixture(scope="module")
def own(study, tmp_path_factory) -> Path:
    """A committed copy of the study whose slides lie at an absolute path."""
    folder = copy_study(study, tmp_path_factory.mktemp("dvc") / "study")
    edit_yaml(folder / "params.yaml", tile={"slides_root": str(folder / "data/slides")})
    for key, value in (("user.name", "t"), ("user.email", "t@localhost")):
        run(folder, "git", "config", key, value)
    dvc(folder, "repro", "--quiet", "plan")
    _commit(folder, "slides at an absolute path")
    assert run(folder, "git", "status", "--porcelain").stdout == ""
    return folder


def _augment(study: Path) -> int:
    return json.loads((study / "reports/plan/metrics.json").read_text())["augment"]


def _shown(study: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """The columns of `dvc exp show --only-changed`, and its rows by experiment."""
    out = dvc(study, "exp", "show", "--only-changed", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(out)))
    return list(rows[0]), {row["Experiment"] or row["rev"]: row for row in rows}


def test_experiments_are_run_shown_and_applied(own):
    before = _augment(own)
    for name, most in (("little", 4), ("much", 10)):
        dvc(own, "exp", "run", "-n", name, "-S", f"plan.max_per_class={most}", "plan")
    columns, rows = _shown(own)
    assert rows["little"]["augment"] < rows["much"]["augment"] < str(before)
    changed = {name for name in columns if name.endswith("yaml:plan.max_per_class")}
    assert changed == {"params.yaml:plan.max_per_class", ".histoloom/resolved.yaml:plan.max_per_class"}
    assert not [name for name in columns if "tile." in name], "params that are the same in all are shown"
    assert "plan.max_per_class" in dvc(own, "exp", "diff", "little", "much", "--md").stdout
    dvc(own, "exp", "apply", "little")
    assert _augment(own) == int(rows["little"]["augment"])
    assert "params.yaml" in run(own, "git", "status", "--porcelain").stdout
    run(own, "git", "checkout", "--quiet", ".")
    dvc(own, "checkout", "--quiet")
    assert _augment(own) == before
    dvc(own, "exp", "remove", "--all-commits")


def test_a_queue_runs_in_folders_of_its_own(own):
    for name, most in (("five", 5), ("six", 6)):
        dvc(own, "exp", "run", "--queue", "-n", name, "-S", f"plan.max_per_class={most}", "plan")
    dvc(own, "queue", "start")
    for _ in range(120):
        status = dvc(own, "queue", "status").stdout
        if not re.search("Queued|Running", status):
            break
        time.sleep(1)
    assert status.count("Success") == 2, status
    _, rows = _shown(own)
    assert {"five", "six"} <= rows.keys() and rows["five"]["augment"] != rows["six"]["augment"]
    assert run(own, "git", "status", "--porcelain").stdout == ""
    dvc(own, "exp", "remove", "--all-commits")


def test_a_clone_pulls_from_a_remote_and_has_nothing_to_do(own, tmp_path):
    dvc(own, "remote", "add", "--default", "--force", "store", str(tmp_path / "store"))
    dvc(own, "push", "--quiet")
    _commit(own, "a remote")
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(own), str(clone))
    assert "its output data/tiles is missing" in run(clone, "histoloom", "status").stdout
    dvc(clone, "pull")
    said = run(clone, "histoloom", "status").stdout
    for stage in ("tile", "plan", "train_denoiser"):
        assert re.search(rf"^{stage} +done$", said, re.MULTILINE), said
    assert not (clone / ".histoloom/salt").exists()


def test_another_project_gets_the_dataset_and_the_packaged_model_by_name(own, tmp_path):
    words = tmp_path / "words.md"
    words.write_text("Slides of Somebody et al.", encoding="utf-8")
    run(own, "histoloom", "package", "package", "--attribution", str(words))
    dvc(own, "add", "package")
    _commit(own, "a package")
    for name in ("dataset", "model"):
        run(own, "git", "tag", "-a", f"{name}@v1.0.0", "-m", "the first")
        dvc(tmp_path, "artifacts", "get", str(own), name, "-o", name)
    assert hash_tree(tmp_path / "dataset") == hash_tree(own / "data/dataset")
    assert hash_tree(tmp_path / "model") == hash_tree(own / "package")


def test_plots_show_every_training_and_both_pictures_of_intervals(own):
    found = json.loads(dvc(own, "plots", "show", "--json").stdout)
    assert not found.get("errors"), found["errors"]
    kinds = {place: entries[0]["type"] for place, entries in found["data"].items()}
    for place in ("train_autoencoder/curves/plots/metrics/loss.tsv", "train_denoiser/curves/plots/metrics/loss.tsv"):
        assert kinds[f"reports/{place}"] == "vega"
    for place in ("evaluate/kid.png", "uplift/uplift.png", "train_filters/calibration.png"):
        assert kinds[f"reports/{place}"] == "image"


def test_the_page_s_commands_are_ones_that_there_are():
    """Each begins with a command that answers, and options of `dvc exp` and `dvc queue` are known."""
    lines = [
        line.partition("#")[0].strip()
        for block in re.findall(r"```\n(.*?)```", PAGE, re.S)
        for line in block.splitlines()
    ]
    commands = {tuple(line.split()[:2]) for line in lines if line.startswith(("dvc ", "histoloom "))}
    assert len(commands) > 10
    for first, second in sorted(commands):
        if first == "dvc":
            assert run(Path(), "dvc", second, "--help").returncode == 0
        else:
            assert run(Path(), first, second, "--help").returncode == 0
