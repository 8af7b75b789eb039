"""A plan takes conditions from whom it may, and packs them into fixed batches."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from histoloom.config import Params, Plan, check_params
from histoloom.data.plan import condition_sources, deficits, make_plan
from histoloom.data.schema import PLAN_ROW
from histoloom.data.tables import with_conditions
from histoloom.errors import HistoloomError
from tests.build import tile_rows

CLASSES = ("tumour", "stroma", "fat")


@st.composite
def tables(draw) -> pd.DataFrame:
    """Rows of a store in which each group has one split, with labels missing here and there; of train one at least has a
    label, and one at least is held out."""
    groups = ["train", "val", *draw(st.lists(st.sampled_from(["train", "val", "test"]), max_size=4))]
    some, any_label = st.sampled_from(CLASSES), st.sampled_from([*CLASSES, None])
    picks = draw(st.lists(st.tuples(st.integers(0, len(groups) - 1), any_label), max_size=38))
    picks = draw(st.permutations([(0, draw(some)), (1, draw(any_label)), *picks]))
    return tile_rows(
        len(picks),
        split_group=[f"g{group}" for group, _ in picks],
        split=[groups[group] for group, _ in picks],
        label=[label for _, label in picks],
    )


plans = st.builds(
    Plan,
    target=st.sampled_from(["largest", "median", 3, 17]),
    max_per_class=st.integers(1, 30),
    overdraw=st.sampled_from([1.0, 1.3, 2.5]),
    evaluation_tiles=st.integers(0, 9),
    batch_size=st.integers(1, 8),
    batches_per_part=st.integers(1, 3),
)


def _params(config: Plan, seed: int = 0) -> Params:
    tile = {"mpp": 1.0, "labels": {"classes": CLASSES}}
    return Params(seed=seed, tile=tile, plan=config)


def _make(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    return make_plan(with_conditions(rows, params), params, lambda _: None)


def _plan(rows: pd.DataFrame, config: Plan, seed: int = 0) -> pd.DataFrame:
    """The plan; tables of which none can be made are passed over."""
    made = sum(d.made for d in deficits(rows, config, CLASSES))
    assume(made or config.evaluation_tiles)
    return _make(rows, _params(config, seed))


@given(tables(), plans)
def test_conditions_come_from_whom_the_purpose_allows(rows, config):
    plan = _plan(rows, config)
    real = rows.set_index("tile_id")
    split = {"augment": {"train"}, "evaluate": {"test"} if (rows["split"] == "test").any() else {"val"}}
    for purpose, part in plan.groupby("purpose"):
        assert set(part["split"]) == set(real.loc[part["condition_ref"], "split"]) == split[purpose]
    for column in ("split_group", "caption"):
        assert plan[column].tolist() == real.loc[plan["condition_ref"], column].tolist()
    made = plan[plan["purpose"] == "augment"]
    assert made["label"].tolist() == real.loc[made["condition_ref"], "label"].tolist()


@given(tables())
def test_a_tile_is_like_one_of_train_even_one_without_a_label(rows):
    real = rows.set_index("tile_id")
    asked = {"name": "alike", "tiles": 7, "like": {}}
    params = Params(
        tile={"mpp": 1.0, "labels": {"classes": CLASSES}},
        plan=Plan(target="none", requests=[asked]),
        train_denoiser={"conditions": ["image"]},
    )
    plan = _make(rows, params)
    train = real[real["split"] == "train"]
    assert {*plan["like_ref"]} <= {*train.index} and len({*plan["like_ref"]}) == min(7, len(train))
    assert plan["like_group"].tolist() == real.loc[plan["like_ref"], "split_group"].tolist()


def test_a_tile_of_unknown_mask_is_no_source_of_masks():
    rows = tile_rows(8, label="tumour", split=["train"] * 6 + ["test"] * 2, masked=[True, False] * 4)
    masks = {
        "train_denoiser": {"conditions": ["mask"]},
        "tile": {"masks": {"source": "raster", "classes": ["nucleus"]}},
    }
    whole, sources = _params(Plan(target=12, overdraw=1, evaluation_tiles=4)), {}
    for name, change in (("label", {}), ("mask", masks)):
        dumped = whole.model_dump(exclude_unset=True)
        params = Params.model_validate(dumped | change | {"tile": dumped["tile"] | change.get("tile", {})})
        sources[name] = set(_make(rows, params)["condition_ref"])
    assert sources == {"label": set(rows["tile_id"]), "mask": set(rows["tile_id"][rows["masked"]])}


def test_what_is_predicted_may_be_of_one_split():
    rows = tile_rows(9, label="tumour", split=["train"] * 5 + ["val"] * 2 + ["test"] * 2)
    asked = {"name": "held-out", "tiles": "all", "where": {"split": "val"}, "purpose": "predict"}
    plan = _make(rows, _params(Plan(target="none", requests=[asked])))
    assert plan["condition_ref"].tolist() == rows["tile_id"][5:7].tolist()
    with pytest.raises(ValidationError, match="reads train tiles alone"):
        Plan(target="none", requests=[asked | {"purpose": "augment", "tiles": 2}])


def test_deficits_count_the_tiles_that_are_sources():
    rows = tile_rows(12, label=["a"] * 8 + ["b"] * 4, split="train", masked=[True] * 4 + [False] * 4 + [True] * 4)
    whole = _params(Plan(target="largest", overdraw=1, evaluation_tiles=0)).model_dump(exclude_unset=True)
    whole["tile"] |= {"masks": {"source": "raster", "classes": ["nucleus"]}}
    params = Params.model_validate(whole | {"train_denoiser": {"conditions": ["mask"]}})
    assert condition_sources(rows, params)["label"].value_counts().to_dict() == {"a": 4, "b": 4}


def test_a_class_without_train_tiles_is_in_the_plan_s_table_with_the_reason():
    rows = tile_rows(9, label=["a"] * 5 + ["b"] * 3 + ["rare"], split=["train"] * 8 + ["test"])
    found = {d.label: d for d in deficits(rows, Plan(target="largest", overdraw=1), ("a", "b", "rare", "misspelt"))}
    for name in ("rare", "misspelt"):
        assert (found[name].train, found[name].wanted, found[name].made) == (0, 5, 0)
        assert found[name].reason == "no train tile can be a source of its conditions"
    assert (found["b"].made, found["b"].reason) == (2, "")


@given(tables(), plans)
def test_microbatches_are_full_but_for_the_last(rows, config):
    plan = _plan(rows, config)
    assert plan.columns.tolist() == PLAN_ROW.names
    assert plan["tile_id"].is_unique and plan["seed"].is_unique
    assert not plan.duplicated(["part", "batch", "slot"]).any()
    assert plan.groupby("part")["purpose"].nunique().max() == 1
    for _, part in plan.groupby("purpose"):
        sizes = part.groupby(["part", "batch"]).size()
        assert (sizes.iloc[:-1] == config.batch_size).all() and sizes.iloc[-1] <= config.batch_size
        batches = part.groupby("part")["batch"].nunique()
        assert (batches.iloc[:-1] == config.batches_per_part).all() and batches.max() <= config.batches_per_part
        for _, slots in part.groupby(["part", "batch"])["slot"]:
            assert slots.tolist() == list(range(len(slots)))


@given(tables(), plans)
def test_each_class_gets_what_its_deficit_says_and_spreads_its_conditions(rows, config):
    plan = _plan(rows, config)
    made = plan[plan["purpose"] == "augment"]
    expected = {d.label: d.made for d in deficits(rows, config, CLASSES) if d.made}
    assert made["label"].value_counts().to_dict() == expected
    for _, of_class in made.groupby("label"):
        drawn = of_class["condition_ref"].value_counts()
        have = (rows["label"] == of_class["label"].iloc[0]) & (rows["split"] == "train")
        assert drawn.max() - (drawn.min() if len(drawn) == have.sum() else 0) <= 1
    assert (plan["purpose"] == "evaluate").sum() == config.evaluation_tiles


@given(tables(), plans)
def test_a_larger_plan_keeps_a_smaller_one_s_tiles(rows, config):
    """A tile's seed and conditions don't depend on how many more are made."""
    few = _plan(rows, config).set_index("tile_id")
    more = _plan(rows, config.model_copy(update={"overdraw": config.overdraw * 2, "batch_size": 3})).set_index(
        "tile_id"
    )
    columns = ["seed", "purpose", "label", "condition_ref"]
    pd.testing.assert_frame_equal(few[columns].sort_index(), more.loc[few.index, columns].sort_index())


ROWS = tile_rows(9, label=["tumour"] * 6 + ["stroma"] * 2 + ["fat"], split=["train"] * 8 + ["test"])


@pytest.mark.parametrize(
    "config, expected",
    [
        (Plan(overdraw=1), {"stroma": 4}),
        (Plan(overdraw=1.3), {"stroma": 6}),
        (Plan(overdraw=1, target="median"), {"stroma": 2}),
        (Plan(overdraw=1, target=10), {"tumour": 4, "stroma": 8}),
        (Plan(overdraw=1, target=10, max_per_class=5), {"tumour": 4, "stroma": 5}),
        (Plan(overdraw=1, target=10, classes=("stroma",)), {"stroma": 8}),
    ],
)
def test_deficits_fill_up_to_the_target(config, expected):
    assert {d.label: d.made for d in deficits(ROWS, config, CLASSES) if d.made} == expected


@pytest.mark.parametrize(
    "rows, config, message",
    [
        (ROWS.assign(split="test"), Plan(), "no labelled tile"),
        (ROWS, Plan(classes=("fat",)), "'fat', of which the train split has no tile"),
        (ROWS.assign(label="tumour"), Plan(classes=("fat", "stroma")), "'fat', 'stroma', of which the train split"),
        (ROWS, Plan(target=1), "nothing to make"),
        (ROWS.assign(split="train"), Plan(evaluation_tiles=2), "needs held-out conditions"),
    ],
)
def test_what_cannot_be_planned_says_why(rows, config, message):
    with pytest.raises(HistoloomError, match=message):
        _make(rows, _params(config))


def test_the_error_of_a_key_that_was_renamed_names_the_new_one(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "tile: {mpp: 1.0, labels: {classes: [a, b]}}\n"
        "plan: {requests: [{name: r, tiles: 1, change: {label: a}, pairs: true}]}\n"
    )
    (fault,) = check_params(path)[1]
    assert fault.where.endswith("plan.requests.0.pairs") and "'counterfactual'" in fault.remedy
