"""Did it help: measures by hand, intervals that mean what they say, and an experiment that tells good tiles from bad ones."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from histoloom.uplift.answers import LabelAnswers
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from histoloom.config import Uplift
from histoloom.data.commit import command_files
from histoloom.errors import HistoloomError
from histoloom.learners.classifier import augmented, prepared
from histoloom.learners.command import probabilities_by_command
from histoloom.studies.uplift import ATTEMPTS, PREDICTIONS
from histoloom.uplift.analysis import analyse, paired_difference, verdict
from histoloom.uplift.protocol import Run, choose, protocol_of, runs_of
from tests.build import tile_rows
from tests.uplift.studies import CLASSES, params_of, run_uplift, write_study


def test_measures_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    found = LabelAnswers(CLASSES, np.array([0, 0, 1, 1])).measures(probabilities)
    assert found["recall"] == {"pink": 1.0, "blue": 0.5} and found["balanced_accuracy"] == 0.75
    assert found["auroc"] == pytest.approx(3 / 4)
    lacking = LabelAnswers(CLASSES, np.array([0, 0, 0, 0])).measures(probabilities)
    assert lacking["recall"] == {"pink": 0.75} and lacking["auroc"] is None


def _right(share: float, seeds: int, n: int, rng) -> np.ndarray:
    return rng.random((seeds, n)) < share


@pytest.mark.parametrize(("groups", "covers"), [(20, "patients"), (3, "too few patients")])
def test_the_interval_holds_nought_where_arms_are_alike_and_not_where_they_differ(groups, covers):
    rng, n = np.random.default_rng(0), 400
    truth, names = rng.integers(0, 2, n), rng.integers(0, groups, n).astype(str)
    answers = LabelAnswers(CLASSES, truth)
    same = paired_difference(answers, _right(0.7, 5, n, rng), _right(0.7, 5, n, rng), names, np.random.default_rng(1))
    assert same["interval"][0] < 0 < same["interval"][1] and covers in same["covers"]
    better = paired_difference(answers, _right(0.6, 5, n, rng), _right(0.8, 5, n, rng), names, np.random.default_rng(1))
    assert better["interval"][0] > 0.1 and better["difference"] == pytest.approx(0.2, abs=0.05)


class _Mean:
    """Answers whose score is what the tiles have on average."""

    def score(self, evidence: np.ndarray, weight: np.ndarray) -> float:
        return float(np.average(evidence, weights=weight))


@pytest.mark.parametrize(("seeds", "of_seeds", "least"), [(2, 0.0, 0.9), (2, 1.0, 0.8), (5, 1.0, 0.9)])
def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch, seeds, of_seeds, least):
    """20 patients who differ with variance 1, seeds that differ with `of_seeds`, and no true difference."""
    monkeypatch.setattr("histoloom.uplift.analysis._ROUNDS", 100)
    rng, names, held = np.random.default_rng(0), np.arange(20).astype(str), []
    for _ in range(120):
        drawn = rng.normal(size=(1, 20)) + rng.normal(0, of_seeds**0.5, (seeds, 1)) + rng.normal(size=(seeds, 20))
        low, high = paired_difference(_Mean(), 0 * drawn, drawn, names, rng)["interval"]
        held.append(low <= 0 <= high)
    assert np.mean(held) >= least


def test_seeds_of_different_folds_are_different_seeds(monkeypatch):
    """Three folds whose seeds differ, each with seeds of its own: paired across folds, two seeds would be far too few."""
    monkeypatch.setattr("histoloom.uplift.analysis._ROUNDS", 100)
    rng, names, folds = np.random.default_rng(0), np.arange(30).astype(str), np.repeat(np.arange(3), 10)
    held, widths = [], []
    for _ in range(60):
        drawn = rng.normal(size=(1, 30)) + np.repeat(rng.normal(0, 1, (2, 3)), 10, 1) + rng.normal(size=(2, 30))
        found = [paired_difference(_Mean(), 0 * drawn, drawn, names, rng, f)["interval"] for f in (folds, None)]
        held.append(found[0][0] <= 0 <= found[0][1])
        widths.append([high - low for low, high in found])
    assert np.mean(held) >= 0.85 and np.median(widths, 0)[0] < 0.7 * np.mean(widths, 0)[1]


def test_one_seed_is_said_to_be_one():
    first, second = np.random.default_rng(0).random((2, 1, 20))
    found = paired_difference(_Mean(), first, second, np.arange(20).astype(str), np.random.default_rng(0))
    assert found["covers"] == "patients (split groups), of one seed: another may give something else"


def test_a_class_of_one_patient_is_named_and_no_draw_lacks_it():
    """Twelve patients, one of whom has all of the rare class, which is never found in the second arm."""
    truth = np.array([0] * 22 + [1] * 2)
    groups = np.repeat(np.arange(12), 2).astype(str)
    right = np.eye(2)[truth]
    predictions = {("real", 1.0): [right] * 2, ("synthetic", 1.0): [np.eye(2)[np.zeros(24, int)]] * 2}
    found = analyse(predictions, LabelAnswers(CLASSES, truth), groups, "real", 0)
    assert found["thin_classes"] == {"blue": 1}
    assert found["arms"][1]["interval"] == [-0.5, -0.5] and "did worse" in found["arms"][1]["verdict"]


def test_where_there_is_no_interval_nothing_is_said():
    said = verdict({"difference": np.nan, "interval": [np.nan, np.nan]}, "real+synthetic", "real", 20, "Dice")
    assert said.startswith("Nothing can be said")


@given(low=st.floats(-1, 1), width=st.floats(0, 1), groups=st.integers(1, 30))
@settings(max_examples=50)
def test_the_verdict_says_help_only_where_the_interval_lies_above_nought(low, width, groups):
    said = verdict(
        {"difference": low + width / 2, "interval": [low, low + width]}, "real+synthetic", "real", groups, "Dice"
    )
    assert ("helped over" in said) == (low > 0) and ("did worse" in said) == (low + width < 0 and not low > 0)
    assert ("No measurable help" in said) == (low <= 0 <= low + width)
    assert ("nothing follows for other patients" in said) == (groups < 10)


def test_of_many_arms_that_do_nothing_none_is_said_to_help_without_a_word_on_chance(monkeypatch):
    """Forty arms of the same truth: some intervals exclude nought, and hardly ever do those of all comparisons."""
    monkeypatch.setattr("histoloom.uplift.analysis._ROUNDS", 100)
    truth, groups = np.arange(240) % 2, (np.arange(240) // 12).astype(str)
    rng = np.random.default_rng(0)

    def predicted() -> np.ndarray:
        return np.eye(2)[np.where(rng.random(240) < 0.7, truth, 1 - truth)]

    predictions = {("real", 1.0): [predicted() for _ in range(2)]}
    predictions |= {("synthetic", float(n)): [predicted() for _ in range(2)] for n in range(2, 42)}
    found = analyse(predictions, LabelAnswers(CLASSES, truth), groups, "real", 0)
    assert found["comparisons"] == 40
    claims = [arm["verdict"] for arm in found["arms"][1:] if "No measurable" not in arm["verdict"]]
    assert claims and all("may be chance" in said for said in claims)
    for arm in found["arms"][1:]:
        (low, high), (least, most) = arm["interval"], arm["interval_of_all"]
        assert least <= low <= high <= most


def test_runs_are_arms_by_ratios_by_seeds():
    runs = runs_of(Uplift(arms=("real", "real+synthetic", "synthetic"), ratios=(0.5, 2.0), seeds=3))
    assert len(runs) == 3 + 2 * 3 + 3 and len({run.name for run in runs}) == len(runs)
    assert Run("real+synthetic+classical", 1, 0).classical and not Run("real+synthetic", 1, 0).classical


@given(ratio=st.floats(0.1, 3), real=st.integers(1, 40), made=st.integers(1, 60), seed=st.integers(0, 5))
@settings(max_examples=40)
def test_what_a_run_is_trained_on(ratio, real, made, seed):
    rows, synthetic = pd.DataFrame({"tile_id": range(real)}), pd.DataFrame({"tile_id": range(made)})
    synthetic = synthetic.assign(accepted=synthetic["tile_id"] % 3 > 0)
    accepted = int(synthetic["accepted"].sum())
    own, drawn = choose(Run("real+synthetic", ratio, seed), rows, synthetic, 0)
    assert len(own) == real and len(drawn) == min(accepted, round(ratio * real)) and drawn["tile_id"].is_unique
    assert drawn["accepted"].all()
    own, unfiltered = choose(Run("real+unfiltered", ratio, seed), rows, synthetic, 0)
    assert len(own) == real and len(unfiltered) == len(drawn) and unfiltered["tile_id"].is_unique
    assert choose(Run("real+synthetic", ratio, seed), rows, synthetic, 0)[1].equals(drawn)
    own, drawn = choose(Run("synthetic", 1, seed), rows, synthetic, 0)
    assert len(own) == 0 and len(drawn) == accepted
    own, drawn = choose(Run("real", 1, seed), rows, synthetic, 0)
    assert len(own) == real and len(drawn) == 0


def test_the_protocol_names_the_test_tiles_and_changes_with_them():
    test = tile_rows(12, split="test")
    config = Uplift(seeds=1)
    first, second = (
        protocol_of(config, runs_of(config), part, CLASSES, "dice", {"fraction": 0.1}) for part in (test, test.head(11))
    )
    assert first["test_tiles"] == 12 and first["test_tiles_sha256"] != second["test_tiles_sha256"]
    assert first["compared_with"] == "real" and len(first["runs"]) == 5


@pytest.mark.parametrize("bad", [
    {"arms": []}, {"arms": ["real", "real"]}, {"arms": ["synthetic"]}, {"classifier": "command"}, {"command": "x"},
    {"classifier": "command", "command": "python mine.py {dataset}"}, {"ratios": [0]},
    {"task": "mask", "classifier": "timm:resnet18"},
])  # fmt: skip
def test_params_that_compare_nothing_are_refused(bad):
    with pytest.raises(ValidationError):
        Uplift.model_validate(bad)


def test_augmentation_keeps_range_and_shape_and_repeats():
    import torch

    batch = prepared(np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8), 16, "cpu")
    first, second = (augmented(batch, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (4, 3, 16, 16) and torch.equal(first, second) and not torch.equal(first, batch)
    assert first.min() >= 0 and first.max() <= 1


def test_good_tiles_do_no_harm_and_wrong_labels_do(folder):
    labels = list(CLASSES) * 20
    write_study(folder, labels, labels[::-1])
    arms = ["real", "real+synthetic", "synthetic"]
    found = run_uplift(params_of(arms=arms, ratios=[2.0], steps=30))
    by_arm = {arm["arm"]: arm for arm in found["arms"]}
    assert by_arm["real"]["balanced_accuracy"] > 0.9
    assert by_arm["synthetic"]["balanced_accuracy"] < 0.1 and "did worse" in by_arm["synthetic"]["verdict"]
    assert by_arm["real+synthetic"]["trained_on"] == {"real": 24, "synthetic": 40}
    assert found["protocols_tried"] == 1 and found["test_groups"] == 1
    protocol = json.loads(Path("reports/uplift/protocol.json").read_text())
    assert len(protocol["runs"]) == 6 and protocol["test_tiles"] == 24


def test_a_broken_run_takes_up_what_was_trained_and_another_protocol_is_counted(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    params = params_of(arms=["real"], seeds=2, steps=2)
    run_uplift(params)
    before = {p: p.stat().st_mtime_ns for p in Path(".work/uplift").rglob(PREDICTIONS)}
    assert len(before) == 2 and run_uplift(params)["protocols_tried"] == 1
    assert {p: p.stat().st_mtime_ns for p in Path(".work/uplift").rglob(PREDICTIONS)} == before
    assert run_uplift(params_of(arms=["real"], seeds=3, steps=2))["protocols_tried"] == 2
    now = {p: p.stat().st_mtime_ns for p in Path(".work/uplift").rglob(PREDICTIONS)}
    assert len(now) == 3 and before.items() <= now.items(), "a third seed trains a third model"
    assert run_uplift(params.model_copy(update={"seed": 7}))["protocols_tried"] == 3
    write_study(folder / "other", labels, labels[::-1])
    for name in ("synthetic", "verdicts"):
        shutil.rmtree(folder / "data" / name)
        shutil.move(folder / "other/data" / name, folder / "data" / name)
    assert run_uplift(params)["protocols_tried"] == 4, "other synthetic tiles are another try at the same test"
    assert len(ATTEMPTS.read_text().splitlines()) == 5


def test_a_generator_that_saw_what_is_tested_on_is_refused(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    record = {"groups": ["test", "train"], "slides": [], "unknown": []}
    Path("data/synthetic/lineage.json").write_text(json.dumps({"g": record}))
    with pytest.raises(HistoloomError, match="trained on held-out groups or slides: test"):
        run_uplift(params_of(arms=["real"], seeds=1, steps=2))


def test_test_tiles_of_what_train_does_not_show_are_counted(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    rows = pd.read_parquet("data/tiles/test/rows.parquet")
    rows.loc[:4, "label"] = "green"
    rows.to_parquet("data/tiles/test/rows.parquet")
    found = run_uplift(params_of(arms=["real"], seeds=1, steps=2))
    assert found["classes_not_in_train"] == {"green": 5} and found["test_tiles"] == 19


def test_arms_that_there_are_no_tiles_for_are_left_out_and_named(folder):
    write_study(folder, ["pink"] * 6, ["pink"] * 6)
    found = run_uplift(params_of(steps=2, seeds=1))
    assert found["left_out"] == {"synthetic": "no synthetic tile shows blue"}
    assert {arm["arm"] for arm in found["arms"]} >= {"real", "real+synthetic+classical"}
    assert run_uplift(params_of(seeds=0)) == {}
    assert json.loads(Path("reports/uplift/metrics.json").read_text()) == {"left_out": "uplift.seeds is 0"}


MINE = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from PIL import Image
dataset, output = Path(sys.argv[1]), sys.argv[2]
def mean(paths): return np.array([np.asarray(Image.open(p)).mean((0, 1)) for p in paths])
classes = sorted(p.name for p in (dataset / "train").iterdir())
centres = np.stack([mean((dataset / "train" / c).glob("*.png")).mean(0) for c in classes])
tests = sorted((dataset / "test").glob("*.png"))
near = np.exp(-np.linalg.norm(mean(tests)[:, None] - centres, axis=2))
table = pd.DataFrame(near / near.sum(1, keepdims=True), columns=classes)
table.assign(tile_id=[p.stem for p in tests]).to_parquet(output)
"""


def test_a_command_of_ones_own_trains_and_predicts(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    Path("mine.py").write_text(MINE)
    command = f"{sys.executable} mine.py {{dataset}} {{predictions}}"
    found = run_uplift(params_of(arms=["real", "synthetic"], seeds=1, classifier="command", command=command))
    assert all(arm["balanced_accuracy"] == 1 for arm in found["arms"])
    before = command_files(command)
    assert list(before) == ["mine.py"] or set(before) == {"mine.py", sys.executable}
    Path("mine.py").write_text(MINE + "# changed")
    assert command_files(command)["mine.py"] != before["mine.py"]
    params = params_of(arms=["real", "synthetic"], seeds=1, classifier="command", command=command)
    assert run_uplift(params)["protocols_tried"] == 2, "another script is another try at the same test"


def test_a_command_s_folders_stay_in_its_dataset_whatever_classes_are_called(folder):
    """And those whose names can be folders are: a command of before finds them."""
    look = "import json, pathlib, sys; d = pathlib.Path(sys.argv[1]); "
    look += "said = json.loads((d / 'classes.json').read_text()); "
    look += "said['found'] = [len(list((d / 'train' / f).glob('*.png'))) for f in said['folders']]; sys.exit(json.dumps(said))"
    Path("look.py").write_text(look)
    config = Uplift(classifier="command", command=f"{sys.executable} look.py {{dataset}} {{predictions}}")
    images = np.zeros((3, 8, 8, 3), np.uint8)
    for names, folders in ((("z", "a"), ["a", "z"]), (("../../up", "b"), ["0_.._.._up", "1_b"])):
        with pytest.raises(HistoloomError) as error:
            labels = [names[0], names[1], names[0]]
            probabilities_by_command(config, images, labels, images[:1], ["t"], names, 0, Path("work"))
        said = json.loads(str(error.value).split(": ", 1)[1])
        assert said["classes"] == sorted(names) and said["folders"] == folders
        assert dict(zip(said["classes"], said["found"])) == {names[0]: 2, names[1]: 1}
    assert sorted(p.name for p in folder.iterdir()) == ["look.py", "work"]


@pytest.mark.parametrize(("script", "said"), [
    ("raise SystemExit('no such net')", "ended with 1: no such net"),
    (MINE.replace("tests = sorted(", "tests = 2 * sorted("), "wrote two rows for test-0"),
    ("import sys; open(sys.argv[2], 'w').write('no table')", "wrote no Parquet"),
    ("pass", "wrote no Parquet"),
    (MINE.replace("near / near.sum(1, keepdims=True)", "near * 0 + 2"), "are no probabilities"),
])  # fmt: skip
def test_a_command_that_fails_is_told_how(script, said, folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    Path("mine.py").write_text(script)
    command = f"{sys.executable} mine.py {{dataset}} {{predictions}}"
    with pytest.raises(HistoloomError, match=said):
        run_uplift(params_of(arms=["real"], seeds=1, classifier="command", command=command))


def test_too_little_to_say_anything_is_an_error(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    one = params_of(arms=["real"])
    one = one.model_copy(
        update={
            "tile": one.tile.model_copy(update={"labels": one.tile.labels.model_copy(update={"classes": ("pink",)})})
        }
    )
    with pytest.raises(HistoloomError, match="needs two classes"):
        run_uplift(one)


def test_synthetic_tiles_beside_classical_augmentation_are_compared_with_it_alone():
    test = tile_rows(20, split="test", label=list(CLASSES) * 10, split_group=[f"p{n}" for n in range(20)])
    good = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
    truth = test["label"].map({"pink": 0, "blue": 1}).to_numpy()
    predictions = {("real", 1.0): [1 - good] * 2, ("real+classical", 1.0): [good] * 2}
    predictions |= {("real+synthetic+classical", 1.0): [good] * 2, ("real+synthetic+classical", 4.0): [1 - good] * 2}
    answers, groups = LabelAnswers(CLASSES, truth), test["split_group"].to_numpy(str)
    found = analyse(predictions, answers, groups, "real", 0)["beside_classical"]
    assert [(change["ratio"], change["against"], change["difference"]) for change in found] == [
        (1, "real+classical", 0),
        (4, "real+classical", -1),
    ]
    assert "beside_classical" not in analyse(predictions, answers, groups, "real+classical", 0)


def test_analysis_compares_each_arm_with_the_first():
    test = tile_rows(20, split="test", label=list(CLASSES) * 10, split_group=[f"p{n}" for n in range(20)])
    good = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
    predictions = {("real", 1.0): [1 - good] * 2, ("real+synthetic", 2.0): [good] * 2}
    predictions[("real+unfiltered", 2.0)] = [good] * 2
    truth = test["label"].map({"pink": 0, "blue": 1}).to_numpy()
    found = analyse(predictions, LabelAnswers(CLASSES, truth), test["split_group"].to_numpy(str), "real", 0)
    assert found["filtering"][0]["difference"] == 0 and "No measurable help" in found["filtering"][0]["verdict"]
    assert "beside_classical" not in found
    real, both, _ = found["arms"]
    assert "verdict" not in real and both["difference"] == 1 and both["interval"] == [1, 1]
    assert "'real+synthetic, ratio 2' helped over 'real'" in both["verdict"] and "other patients" not in both["verdict"]
