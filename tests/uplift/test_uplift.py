"""An experiment that tells good tiles from bad ones, and its protocol."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from histoloom.config import Params, Uplift
from histoloom.config.yaml_reader import check_section
from histoloom.data.lineage import Lineage
from histoloom.errors import HistoloomError
from histoloom.studies.uplift import ATTEMPTS
from histoloom.uplift.protocol import Trial, choose, protocol_of, trials_of
from histoloom.uplift.tasks import label_task
from histoloom.uplift.trial import PREDICTIONS
from tests.build import make_part, tile_rows
from tests.uplift.studies import CLASSES, params_of, pictures, run_uplift, write_study

pytestmark = pytest.mark.long


def test_trials_are_arms_by_ratios_by_seeds():
    trials = trials_of(Uplift(arms=("real", "real+synthetic", "synthetic"), ratios=(0.5, 2.0), seeds=3))
    assert len(trials) == 3 + 2 * 3 + 3 and len({trial.name for trial in trials}) == len(trials)
    tuned = trials_of(Uplift(arms=("real", "strong+retrieval"), ratios=(0.5, 2.0), seeds=3, learning_rate=(1e-3, 1e-4)))
    assert len(tuned) == 2 * (3 + 2 * 3) and len({trial.name for trial in tuned}) == len(tuned), "each arm as often"


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
        protocol_of(config, trials_of(config), part.head(0), part, label_task(part, CLASSES), {"fraction": 0.1})
        for part in (test, test.head(11))
    )
    assert first["test_tiles"] == 12 and first["test_tiles_sha256"] != second["test_tiles_sha256"]
    assert first["compared_with"] == "real" and len(first["trials"]) == 5
    best_of = ["strong", "strong+retrieval", "strong+ssl"]
    assert first["asked"] == {"arm": "strong+synthetic", "best_of": best_of, "chosen_on": "test"}


@pytest.mark.parametrize("bad", [
    {"arms": []}, {"arms": ["real", "real"]}, {"arms": ["synthetic"]}, {"learner": "command"}, {"command": "x"},
    {"learner": "command", "command": "python mine.py {dataset}"}, {"ratios": [0]}, {"learner": "timm:"}, {"learner": "vgg"},
    {"learning_rate": []}, {"learning_rate": [1e-3, 1e-3]}, {"learning_rate": [1e-3, 0]}, {"learning_rate": 0}, {"asked": "strong"},
    {"asked": "real+synthetic"}, {"arms": ["real", "real+made"]},
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
        protocol_of(Uplift(**given), [], test.head(0), test, label_task(test, CLASSES), {})["params"]
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
    assert by_arm["synthetic"]["balanced_accuracy"] < 0.1 and "was worse" in by_arm["synthetic"]["verdict"]
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
    arms = ["real", "strong+retrieval", "strong+synthetic", "real+synthetic-of-variations", "synthetic"]
    found = run_uplift(params_of(arms=arms, steps=2, seeds=1))
    assert found["left_out"] == {
        "synthetic": "no synthetic tile shows blue",
        "strong+retrieval": "no real train tile is without a label",
        "real+synthetic-of-variations": "no synthetic tile was accepted of variations",
    }
    assert {arm["arm"] for arm in found["arms"]} == {"real", "strong+synthetic"}
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


def test_the_bar_is_the_best_of_augmentation_pretraining_and_retrieval_and_val_chooses_it(folder):
    labels = list(CLASSES) * 10
    write_study(folder, labels, labels)
    unlabelled = np.array(["blue", "pink"] * 8)
    rows = tile_rows(16, split="train", split_group="more", label=None).assign(tile_id=[f"more-{n}" for n in range(16)])
    make_part(folder / "data/tiles", "more", rows, pictures(list(unlabelled), 5))
    rates, told = [1e-3, 1e-6], {"steps": 2, "batch_size": 8}
    found = run_uplift(params_of(learning_rate=rates, pretraining=told, seeds=1, steps=8))
    by_arm = {arm["arm"]: arm for arm in found["arms"]}
    assert [*by_arm] == ["real", "strong", "strong+ssl", "strong+retrieval", "strong+synthetic"] and not found[
        "left_out"
    ]
    assert by_arm["strong+retrieval"]["trained_on"] == {"real": 24, "synthetic": 0, "retrieved": 16}
    choice = json.loads(Path("reports/uplift/choice.json").read_text())
    assert choice == found["choice"] and choice["chosen_on"] == "val"
    assert {rate for _, _, rate in choice["rates"]} <= {1e-3, 1e-6} and len(choice["rates"]) == 5
    rivals = {arm: value for arm, value in choice["val"].items() if "strong" in arm and "synthetic" not in arm}
    assert rivals[f"{choice['best_other']}, ratio 1"] == max(rivals.values())
    (gain,) = found["gain"]
    assert gain["arm"] == found["asked"] == "strong+synthetic" and gain["against"] == choice["best_other"]
    assert found["comparisons"] == 5
    assert len([*Path(".work/uplift").rglob("val.parquet")]) == 10


def test_several_learning_rates_need_val_tiles(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    shutil.rmtree("data/tiles/val")
    assert run_uplift(params_of(arms=["real", "strong"], seeds=1, steps=2))["choice"]["chosen_on"] == "test"
    with pytest.raises(HistoloomError, match="no tile of val"):
        run_uplift(params_of(arms=["real"], seeds=1, steps=2, learning_rate=[1e-3, 1e-4]))
