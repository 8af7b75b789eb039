"""An experiment that tells good tiles from bad ones, and its protocol."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from histoloom.config import Params, Uplift
from histoloom.config.yaml_reader import check_section
from histoloom.data.lineage import Lineage
from histoloom.errors import HistoloomError
from histoloom.studies.uplift import ATTEMPTS, PREDICTIONS
from histoloom.uplift.protocol import Trial, choose, protocol_of, trials_of
from histoloom.uplift.tasks import label_task
from tests.build import tile_rows
from tests.uplift.studies import CLASSES, params_of, run_uplift, write_study

pytestmark = pytest.mark.long


def test_trials_are_arms_by_ratios_by_seeds():
    trials = trials_of(Uplift(arms=("real", "real+synthetic", "synthetic"), ratios=(0.5, 2.0), seeds=3))
    assert len(trials) == 3 + 2 * 3 + 3 and len({trial.name for trial in trials}) == len(trials)
    assert Trial("real+synthetic+classical", 1, 0).classical and not Trial("real+synthetic", 1, 0).classical


@given(ratio=st.floats(0.1, 3), real=st.integers(1, 40), generated=st.integers(1, 60), seed=st.integers(0, 5))
@settings(max_examples=40)
def test_what_a_trial_is_trained_on(ratio, real, generated, seed):
    rows, synthetic = pd.DataFrame({"tile_id": range(real)}), pd.DataFrame({"tile_id": range(generated)})
    synthetic = synthetic.assign(accepted=synthetic["tile_id"] % 3 > 0)
    accepted = int(synthetic["accepted"].sum())
    own, drawn = choose(Trial("real+synthetic", ratio, seed), rows, synthetic, 0)
    assert len(own) == real and len(drawn) == min(accepted, round(ratio * real)) and drawn["tile_id"].is_unique
    assert drawn["accepted"].all()
    own, unfiltered = choose(Trial("real+unfiltered", ratio, seed), rows, synthetic, 0)
    assert len(own) == real and len(unfiltered) == len(drawn) and unfiltered["tile_id"].is_unique
    assert choose(Trial("real+synthetic", ratio, seed), rows, synthetic, 0)[1].equals(drawn)
    own, drawn = choose(Trial("synthetic", 1, seed), rows, synthetic, 0)
    assert len(own) == 0 and len(drawn) == accepted
    own, drawn = choose(Trial("real", 1, seed), rows, synthetic, 0)
    assert len(own) == real and len(drawn) == 0


def test_the_protocol_names_the_test_tiles_and_changes_with_them():
    test = tile_rows(12, split="test", label="pink")
    config = Uplift(seeds=1)
    first, second = (
        protocol_of(config, trials_of(config), part, label_task(part, CLASSES), {"fraction": 0.1})
        for part in (test, test.head(11))
    )
    assert first["test_tiles"] == 12 and first["test_tiles_sha256"] != second["test_tiles_sha256"]
    assert first["compared_with"] == "real" and len(first["trials"]) == 5


@pytest.mark.parametrize("bad", [
    {"arms": []}, {"arms": ["real", "real"]}, {"arms": ["synthetic"]}, {"learner": "command"}, {"command": "x"},
    {"learner": "command", "command": "python mine.py {dataset}"}, {"ratios": [0]}, {"learner": "timm:"}, {"learner": "vgg"},
])  # fmt: skip
def test_params_that_compare_nothing_are_refused(bad):
    with pytest.raises(ValidationError):
        Uplift.model_validate(bad)


def test_the_error_of_the_key_that_was_renamed_names_the_new_one():
    found = check_section({"uplift": {"classifier": "timm:resnet18"}}, Params, Path("params.yaml"))[1]
    assert [f.remedy for f in found if f.where.endswith("uplift.classifier")] == ["it is called 'learner' now."]


def test_a_learner_that_does_not_learn_the_task_is_refused_before_anything_is_trained(folder):
    write_study(folder, list(CLASSES) * 4, list(CLASSES) * 4)
    with pytest.raises(HistoloomError, match="'unet' learns mask, and the task is label"):
        run_uplift(params_of(arms=["real"], learner="unet"))
    assert not Path("reports/uplift/protocol.json").exists()


def test_the_protocol_states_the_learner_and_the_rate_that_params_leave_out():
    test = tile_rows(12, split="test", label="pink")
    stated = [
        protocol_of(Uplift(**given), [], test, label_task(test, CLASSES), {})["params"]
        for given in ({}, {"task": "mask"}, {"learner": "timm:resnet18", "learning_rate": 0.1})
    ]
    assert [(p["learner"], p["learning_rate"]) for p in stated] == [
        ("efficientnet-lite0", 3e-4),
        ("unet", 2e-3),
        ("timm:resnet18", 0.1),
    ]


def test_good_tiles_do_no_harm_and_wrong_labels_do(folder):
    labels = list(CLASSES) * 20
    write_study(folder, labels, labels[::-1])
    arms = ["real", "real+synthetic", "synthetic", "synthetic-then-real"]
    found = run_uplift(params_of(arms=arms, ratios=[2.0], steps=30))
    by_arm = {arm["arm"]: arm for arm in found["arms"]}
    assert by_arm["real"]["balanced_accuracy"] > 0.9
    assert by_arm["synthetic"]["balanced_accuracy"] < 0.1 and "did worse" in by_arm["synthetic"]["verdict"]
    assert by_arm["real+synthetic"]["trained_on"] == {"real": 24, "synthetic": 40}
    in_turn = by_arm["synthetic-then-real"]
    assert in_turn["trained_on"] == {"real": 24, "synthetic": 40}
    assert in_turn["balanced_accuracy"] > 0.5, "what is learnt last stays"
    assert found["protocols_tried"] == 1 and found["test_groups"] == 1
    protocol = json.loads(Path("reports/uplift/protocol.json").read_text())
    assert len(protocol["trials"]) == 8 and protocol["test_tiles"] == 24


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
    assert len((Path(".histoloom") / ATTEMPTS).read_text().splitlines()) == 5


def test_a_generator_that_saw_what_is_tested_on_is_refused(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    record = {"groups": ["test", "train"], "slides": [], "unknown": []}
    Path("data/synthetic/lineage.json").write_text(json.dumps({"g": record}))
    with pytest.raises(HistoloomError, match="trained on held-out groups or slides: test"):
        run_uplift(params_of(arms=["real"], seeds=1, steps=2))


def test_a_denoiser_that_saw_what_is_tested_on_may_not_be_the_learner(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    asked = params_of(arms=["real"], seeds=1, steps=2, learner="denoiser")
    with pytest.raises(HistoloomError, match="needs models/encoders, models/autoencoder, models/denoiser"):
        run_uplift(asked)
    for name in ("autoencoder", "denoiser", "encoders"):
        (folder / "models" / name).mkdir(parents=True)
        Lineage(groups=("test",) if name == "denoiser" else ()).save(folder / "models" / name)
    with pytest.raises(HistoloomError, match=r"The learner 'denoiser' .*test"):
        run_uplift(asked)
    assert run_uplift(params_of(arms=["real"], seeds=1, steps=2))["test_tiles"] == 24


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
    assert run_uplift(params_of(seeds=0)) == {"left_out": "uplift.seeds is 0"}


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
