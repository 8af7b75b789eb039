"""A held-out slide that a model saw is found under whatever name its record has for it."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from histoloom.config import Split
from histoloom.data.lineage import Lineage, check_generators, read_lineage
from histoloom.data.lineage_match import Recognised, all_in_train, coded, grid_of, recognise
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from tests.build import make_part, tile_rows, tiles

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
    assert "In slides.csv, write `dataset` camelyon16 and the id Normal_003 if" in found.complaint("g")


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


REGIONS = _rows(("s/r0c0", "s", "p", "train", None), ("s/r1c0", "s", "p", "test", None))


def _saw_region(name: str, coding: bool) -> dict:
    return _record(coded("g", name, SALT), slides=(coded("s", "s", SALT),)) if coding else _record(name, slides=("s",))


@pytest.mark.parametrize("coding", [False, True])
def test_a_study_split_by_region_goes_on_from_its_own_package(coding):
    for name, held_out in (("s/r0c0@2x1", ()), ("s/r1c0@2x1", ("s/r1c0",))):
        found = recognise(_saw_region(name, coding), REGIONS, SALT, "2x1")
        assert found.held_out == held_out and not found.unknown, name
    lost_its_tiles = recognise(_record("s/r0c0@3x1", "s/r2c0@3x1"), REGIONS, SALT, "3x1")
    assert lost_its_tiles == Recognised((), {}, (), seen=("s/r0c0",))


@pytest.mark.parametrize("coding", [False, True])
@pytest.mark.parametrize("name", ["s/r0c0@1x2", "s/r0c0", "s/r7c3@9x9", "s/r0c0@12x1"])
def test_a_region_of_another_grid_or_of_none_that_is_stated_is_the_whole_slide(name, coding):
    found = recognise(_saw_region(name, coding), REGIONS, SALT, "2x1")
    assert found.held_out == ("s",) and not found.unknown
    both = recognise(_record(name, "s/r0c0@2x1"), REGIONS, SALT, "2x1")
    assert both.held_out == ("s",), "what was trained under two grids"
    train = REGIONS.assign(split="train")
    both_regions = Recognised((), {}, (), seen=("s/r0c0", "s/r1c0"), is_all_seen=True)
    assert recognise(_saw_region(name, coding), train, SALT, "2x1") == both_regions
    by_patient = recognise(_saw_region(name, coding), _rows(("p", "s", "p", "test", None)), SALT)
    assert by_patient.held_out == ("s",), "a study that is split by patient now"


def test_what_a_study_split_by_region_saw_states_its_grid():
    split = Split(group="region", region={"rows": 2, "cols": 1})
    train = REGIONS[REGIONS["split"] == "train"]
    assert Lineage.trained_on(train, grid_of(split)).groups == ("s/r0c0@2x1",)
    assert Lineage.trained_on(STATED, grid_of(Split())).groups == ("p1", "p2", "p3", "p4")


@pytest.mark.parametrize(
    "name",
    [
        "camelyon-16:Tumor_002",
        "Camelyon_16:tumor_002",
        "camelyon16:tumor-2",
        "camelyon16:Tumor 002",
        "camelyon16:tumor002",
    ],
)
def test_a_public_name_in_another_spelling_is_asked_for(name):
    found = recognise(_record(name), STATED)
    assert found.unstated == {"Tumor_002": name} and found.complaint("g")


def test_numbers_that_spreadsheets_made_of_ids_are_asked_for():
    rows = _rows(("007", "a", "007", "test", "set"), ("s-1-1", "s-1-1", "q", "test", "set"))
    assert recognise(_record("set:7"), rows).unstated == {"a": "set:7"}
    assert recognise(_record("set:s-11", "other:7"), rows).complaint("g") is None


def test_a_patient_and_a_slide_of_one_name_are_two():
    rows = _rows(("1", "a", "1", "train", None), ("2", "1", "2", "test", None))
    assert recognise(_record("1", slides=("a",)), rows).complaint("g") is None


def test_rows_of_a_store_of_before_have_no_data_set():
    rows = STATED.drop(columns="dataset")
    assert set(recognise(_record("camelyon16:p2"), rows).unstated) == {"Tumor_002"}


def test_all_groups_that_a_model_saw_are_listed_to_be_pasted_whatever_their_split():
    found = recognise(_record("camelyon16:p2", "p1", "elsewhere"), STATED)
    assert found.held_out == ("Tumor_002",) and found.seen == ("p1", "p2") and not found.is_all_seen
    block = found.complaint("g").partition("params.yaml:\n")[2]
    assert YAML(typ="safe").load(block) == {"tile": {"split": {"assign": {"p1": "train", "p2": "train"}}}}


def test_ids_that_look_like_numbers_stay_text_in_the_block_and_what_is_stated_stays():
    block = all_in_train({"01", "1e5", "no"}, {"q": "test", "no": "val"}, is_all=False).partition("params.yaml:\n")[2]
    assert YAML(typ="safe").load(block)["tile"]["split"]["assign"] == {
        "q": "test", "no": "train", "01": "train", "1e5": "train",
    }  # fmt: skip


def test_where_all_groups_were_seen_no_split_mends_it():
    rows = _rows(("a", "a", "a", "train", None), ("b", "b", "b", "test", None))
    said = recognise(_record("a", "b"), rows).complaint("g")
    assert "it saw all groups of this study" in said and "assign" not in said


def _made(folder, lineage: str) -> list[TileStore]:
    """A store of one tile of the generator g, with this record."""
    make_part(folder, "part", tile_rows(1), tiles(1))
    tile_rows(1).assign(generator_sha256="g").to_parquet(folder / "part/rows.parquet")
    if lineage:
        (folder / "lineage.json").write_text(lineage)
    return [TileStore(folder)]


def test_what_can_not_be_measured_is_refused_by_any_name(tmp_path):
    made = _made(tmp_path, '{"g": {"groups": ["camelyon16:p2"], "slides": [], "unknown": []}}')
    with pytest.raises(HistoloomError, match="held-out groups or slides: Tumor_002"):
        check_generators(made, STATED)
    check_generators(made, STATED[STATED["split"] != "test"])


@pytest.mark.parametrize("lineage", ["", "{}"])
def test_tiles_of_a_generator_without_a_record_are_not_measured(tmp_path, lineage):
    with pytest.raises(HistoloomError, match=f"Generator g of {tmp_path} left no record"):
        check_generators(_made(tmp_path, lineage), STATED)


DAMAGED = [
    "", "[]", "{", "{}", "null", "3", "[" * 100_000, '{"groups": null, "slides": [], "unknown": []}',
    '{"groups": [1], "slides": [], "unknown": []}', '{"groups": "p2", "slides": [], "unknown": []}', "\xff",
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_record_is_said_and_does_not_pass_as_one_of_nothing(tmp_path, text):
    (tmp_path / "lineage.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(HistoloomError, match=r"lineage\.json is no lineage record"):
        read_lineage(tmp_path)


def test_a_record_that_was_saved_is_read(tmp_path):
    for lineage in (Lineage(), Lineage(("a",), ("b",), ("c",), ("d",))):
        lineage.save(tmp_path)
        assert read_lineage(tmp_path) == lineage


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
