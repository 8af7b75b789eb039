"""A held-out slide that a model saw is found under whatever name its record has for it."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.ancestry import coded, recognise
from pipeline.errors import HistoloomError
from pipeline.models.lineage import check_generators

SALT = b"a salt for tests"
COLUMNS = ["split_group", "slide_id", "patient_id", "split", "dataset"]


def _rows(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def _record(*groups: str, slides: tuple[str, ...] = (), unknown: tuple[str, ...] = ()) -> dict:
    return {"groups": list(groups), "slides": list(slides), "unknown": list(unknown)}


STATED = _rows(
    ("p1", "tumor_001", "p1", "train", "camelyon16"),
    ("p2", "Tumor_002", "p2", "test", "camelyon16"),
    ("p3", "normal_003", "p3", "val", None),
    ("p4", "normal_004", "p4", "val", "own"),
)


@pytest.mark.parametrize(
    "name", ["camelyon16:Tumor_002", "CAMELYON16:tumor_002", "camelyon16:tumor_002/r0c1", "camelyon16:P2"]
)
def test_a_public_slide_or_patient_is_known_whatever_its_case_and_region(name):
    assert recognise(_record(name), STATED).held_out == ("Tumor_002",)
    assert recognise(_record(slides=(name,)), STATED).held_out == ("Tumor_002",)


def test_a_bare_name_that_may_be_a_public_slide_is_asked_for():
    found = recognise(_record("camelyon16:Normal_003"), STATED)
    assert found.held_out == () and found.unstated == {"normal_003": "camelyon16:Normal_003"}
    assert "`dataset` of slides.csv for it: camelyon16 if" in found.complaint("g")


def test_another_set_s_name_of_the_same_sound_is_unknown_and_no_more():
    found = recognise(_record("camelyon16:normal_004", "elsewhere:tumor_002"), STATED)
    assert found.complaint("g") is None
    assert found.unknown == ("camelyon16:normal_004", "elsewhere:tumor_002")


def test_what_train_and_a_public_model_share_is_known():
    found = recognise(_record("camelyon16:tumor_001", "p1"), STATED)
    assert found.complaint("g") is None and found.unknown == ()


def test_codes_of_this_study_s_salt_are_read_and_others_are_unknown():
    own, other = coded("g", "p2", SALT), coded("g", "p2", b"another long salt")
    assert recognise(_record(own), STATED, SALT).held_out == ("p2",)
    assert recognise(_record(f"anything:{own}"), STATED, SALT).held_out == ("p2",)
    assert recognise(_record(slides=(coded("s", "Tumor_002", SALT),)), STATED, SALT).held_out == ("Tumor_002",)
    assert recognise(_record(own, other), STATED).unknown == tuple(sorted((own, other)))
    train = recognise(_record(coded("g", "p1", SALT)), STATED, SALT)
    assert train.complaint("g") is None and train.unknown == ()


def test_a_study_split_by_region_goes_on_from_its_own_package():
    rows = _rows(("s/r0c0", "s", "p", "train", None), ("s/r1c0", "s", "p", "test", None))
    names = (coded("g", "s/r0c0", SALT),), (coded("s", "s", SALT),)
    assert (
        names[0][0].endswith("/r0c0")
        and recognise(_record(*names[0], slides=names[1]), rows, SALT).complaint("g") is None
    )
    assert recognise(_record(coded("g", "s/r1c0", SALT)), rows, SALT).held_out == ("s/r1c0",)
    other_grid = recognise(_record(coded("g", "s/r0c0", SALT), coded("g", "s/r7c3", SALT)), rows, SALT)
    assert other_grid.held_out == ("s",)


def test_a_patient_and_a_slide_of_one_name_are_two():
    rows = _rows(("1", "a", "1", "train", None), ("2", "1", "2", "test", None))
    assert recognise(_record("1", slides=("a",)), rows).complaint("g") is None


def test_rows_of_a_store_of_before_have_no_data_set():
    rows = STATED.drop(columns="dataset")
    assert set(recognise(_record("camelyon16:p2"), rows).unstated) == {"Tumor_002"}


def test_what_can_not_be_measured_is_refused_by_any_name(tmp_path):
    (tmp_path / "lineage.json").write_text('{"g": {"groups": ["camelyon16:p2"], "slides": [], "unknown": []}}')
    with pytest.raises(HistoloomError, match="held-out groups or slides: Tumor_002"):
        check_generators([tmp_path], STATED)
    check_generators([tmp_path], STATED[STATED["split"] != "test"])


ids = st.sampled_from(["a", "A", "b", "c", "d", "a:b", "Ä"])


@st.composite
def manifests(draw) -> pd.DataFrame:
    """Rows of any study: split by patient, slide or region; data sets stated or not."""
    by, rows = draw(st.sampled_from(["patient", "slide", "region"])), []
    for slide in draw(st.lists(ids, min_size=1, max_size=5, unique=True)):
        patient = draw(st.sampled_from(["p", "q", "a", "d"]))
        dataset = draw(st.sampled_from([None, "", "set", "SET", "own"]))
        groups = {"patient": [patient], "slide": [slide], "region": [f"{slide}/r0c0", f"{slide}/r1c0"]}[by]
        rows += [(group, slide, patient, dataset) for group in groups]
    splits = {group: draw(st.sampled_from(["train", "val", "test"])) for group in sorted({row[0] for row in rows})}
    return _rows(*((group, slide, patient, splits[group], dataset) for group, slide, patient, dataset in rows))


@given(manifests(), st.data())
def test_no_held_out_slide_passes_that_a_model_saw_under_any_of_its_names(rows, data):
    held_out = rows[rows["split"] != "train"]
    if held_out.empty:
        return
    row = held_out.iloc[data.draw(st.integers(0, len(held_out) - 1))]
    name = row[data.draw(st.sampled_from(["split_group", "slide_id", "patient_id"]))]
    dataset = row["dataset"] or "set"
    public = [f"{dataset}:{name}", f"{dataset.upper()}:{name.upper()}", f"{dataset}:{row['slide_id']}/r9c9"]
    saw = data.draw(st.sampled_from([row["split_group"], coded("g", row["split_group"], SALT), *public]))
    others = data.draw(st.lists(st.sampled_from(["a", "set:c", "x:y", coded("g", "a", SALT)]), max_size=3))
    found = recognise(_record(saw, *others), rows, SALT)
    assert found.complaint("it")
    if row["dataset"] and saw in public:
        assert row["slide_id"] in found.held_out or name in found.held_out
