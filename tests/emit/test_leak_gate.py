"""Nothing that a held-out group taught leaves, and codes hide who is who."""

from __future__ import annotations

import stat
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.data.codes import code, read_salt
from histoloom.data.lineage_match import coded
from histoloom.data.study_folder import Study
from histoloom.emit.leak_gate import check_ancestors
from histoloom.errors import HistoloomError

SPLITS = {"a": "train", "b": "train", "v": "val", "t": "test"}


def _real(splits: dict[str, str]) -> pd.DataFrame:
    """A slide for each group."""
    rows = [(group, f"slide-{group}", split) for group, split in splits.items()]
    return pd.DataFrame(rows, columns=["split_group", "slide_id", "split"])


def _tiles(group: str = "a", generator: str = "g1", purpose: str = "augment") -> pd.DataFrame:
    columns = {"tile_id": ["x-000000"], "generator_sha256": generator, "ancestors": [[group]], "purpose": purpose}
    return pd.DataFrame(columns)


def _saw(*groups: str, unknown: tuple[str, ...] = ()) -> dict:
    return {"g1": {"groups": list(groups), "slides": [], "unknown": list(unknown)}}


@pytest.mark.parametrize(
    "tiles, lineage, message",
    [
        (_tiles(purpose="evaluate"), _saw("a"), r"made to evaluate \(first: x-000000\)"),
        (_tiles(purpose="evaluate", group="t"), _saw("a"), "never be emitted"),
        (_tiles(), _saw("a", "v"), "held-out groups or slides: v"),
        (_tiles(), _saw("t", "a", "v"), "held-out groups or slides: t, v"),
        (_tiles(generator="g2"), _saw("a"), "Generator g2 left no record"),
        (_tiles(group="t"), _saw("a"), "'t', whose split is test"),
        (_tiles(group="v"), _saw("a"), "'v', whose split is val"),
        (_tiles(group="nobody"), _saw("a"), "'nobody', whose split is None"),
        (_tiles(), _saw("a", unknown=("hub/model",)), "what these ancestors saw: hub/model.*allow_unknown_ancestors"),
        (_tiles(), _saw("a", "stranger"), "what these ancestors saw: stranger"),
    ],
)
def test_the_gate_refuses(tiles, lineage, message):
    with pytest.raises(HistoloomError, match=message):
        check_ancestors(pd.concat([_tiles(), tiles]), _saw("a", "b") | lineage, _real(SPLITS), allow_unknown=False)


def test_all_that_is_wrong_is_said_at_once():
    both = pd.concat([_tiles("t"), _tiles("v"), _tiles("a")])
    with pytest.raises(HistoloomError, match="'t', whose split is test; 'v', whose split is val"):
        check_ancestors(both, _saw("a"), _real(SPLITS), allow_unknown=False)
    two = pd.concat([_tiles(), _tiles(generator="g2"), _tiles(generator="g3")])
    with pytest.raises(HistoloomError, match="Generator g2, g3 left no record"):
        check_ancestors(two, _saw("a"), _real(SPLITS), allow_unknown=False)
    lineage = {name: _saw(group)["g1"] for name, group in (("g1", "v"), ("g2", "t"), ("g3", "a"))}
    with pytest.raises(HistoloomError, match=r"(?s)g1 was trained.*slides: v.*g2 was trained.*slides: t") as caught:
        check_ancestors(two, lineage, _real(SPLITS), allow_unknown=False)
    assert "g3" not in str(caught.value)


def test_unknown_ancestors_pass_where_they_are_allowed_and_are_named():
    lineage = _saw("a", "stranger", unknown=("hub/model",))
    assert check_ancestors(_tiles(), lineage, _real(SPLITS), allow_unknown=True) == ["hub/model", "stranger"]
    assert check_ancestors(_tiles(), _saw("a", "b"), _real(SPLITS), allow_unknown=False) == []


def test_a_slide_that_was_seen_under_another_group_s_name_is_held_out_all_the_same():
    seen = {"g1": {"groups": ["a", "patient-9"], "slides": ["slide-a", "slide-t"], "unknown": []}}
    with pytest.raises(HistoloomError, match="held-out groups or slides: slide-t"):
        check_ancestors(_tiles(), seen, _real(SPLITS), allow_unknown=True)
    of_regions = _real({"a": "train"}).assign(split_group="s/1", slide_id="s")
    of_regions = pd.concat([of_regions, of_regions.assign(split_group="s/2", split="test")])
    record = {"groups": ["s/1"], "slides": ["s"], "unknown": []}
    assert check_ancestors(_tiles("s/1"), {"g1": record}, of_regions, allow_unknown=False) == []


def test_a_held_out_slide_is_known_by_a_public_name_and_by_this_study_s_code():
    real, salt = _real(SPLITS).assign(dataset=["own", "own", "set", None], patient_id="x"), b"a salt for tests"
    for record, message in (
        (_saw("SET:slide-V"), "held-out groups or slides: slide-v"),
        (_saw(coded("g", "t", salt)), "held-out groups or slides: t"),
        (_saw("set:slide-t"), "has that name or one like it: slide-t.*In slides.csv"),
    ):
        with pytest.raises(HistoloomError, match=message):
            check_ancestors(_tiles(), record, real, allow_unknown=True, salt=salt)
    known = _saw(coded("g", "a", salt), "own:slide-b", "other:slide-v")
    assert check_ancestors(_tiles(), known, real, allow_unknown=True, salt=salt) == ["other:slide-v"]


names = st.sampled_from("abcdefg")


@given(
    splits=st.dictionaries(names, st.sampled_from(["train", "val", "test"])),
    saw=st.lists(
        st.tuples(st.lists(names, max_size=3), st.lists(st.just("hub/x"), max_size=1)), min_size=1, max_size=3
    ),
    synthetic=st.lists(
        st.tuples(names, st.integers(0, 3), st.sampled_from(["augment"] * 5 + ["evaluate"])), max_size=6
    ),
    allow=st.booleans(),
)
def test_whatever_was_trained_on_whatever_no_held_out_group_passes(splits, saw, synthetic, allow):
    lineage = {f"g{n}": {"groups": groups, "slides": [], "unknown": hub} for n, (groups, hub) in enumerate(saw)}
    tiles = pd.DataFrame(
        [
            {"tile_id": str(n), "ancestors": [g], "generator_sha256": f"g{m}", "purpose": p}
            for n, (g, m, p) in enumerate(synthetic)
        ],
        columns=["tile_id", "ancestors", "generator_sha256", "purpose"],
    )
    used = [lineage.get(g, {"groups": ["?"], "unknown": ["?"]}) for g in set(tiles["generator_sha256"])]
    touched = {g for record in used for g in record["groups"]} | set(tiles["ancestors"].explode().dropna())
    held_out = any(splits.get(g) in ("val", "test") for g in touched)
    lent_by_train = all(splits.get(g) == "train" for g in tiles["ancestors"].explode().dropna())
    recorded = set(tiles["generator_sha256"]) <= set(lineage)
    unknown = any(record["unknown"] or set(record["groups"]) - set(splits) for record in used)
    may_pass = (
        not held_out
        and lent_by_train
        and recorded
        and not (tiles["purpose"] == "evaluate").any()
        and (allow or not unknown)
    )
    try:
        let_through = check_ancestors(tiles, lineage, _real(splits), allow_unknown=allow)
    except HistoloomError:
        assert not may_pass
    else:
        assert may_pass and bool(let_through) == unknown


salts = st.binary(min_size=16, max_size=64)


@given(st.text(max_size=20), st.text(max_size=20), salts, salts)
def test_codes_are_stable_for_a_salt_and_tell_nothing_across_salts(one, other, salt, other_salt):
    assert code("p", one, salt) == code("p", one, bytes(salt))
    assert len(code("p", one, salt)) == 14 and set(code("p", one, salt)[2:]) <= set("0123456789abcdef")
    if one != other:
        assert code("p", one, salt) != code("p", other, salt)
    assert code("p", one, salt)[2:] != code("s", one, salt)[2:]
    if salt.rstrip(b"\0") != other_salt.rstrip(b"\0"):  # HMAC pads its key with zeros
        assert code("p", one, salt) != code("p", one, other_salt)


def test_a_salt_is_made_once_for_the_owner_alone(folder, monkeypatch):
    monkeypatch.delenv("HISTOLOOM_SALT", raising=False)
    salt = read_salt(Study().salt)
    assert len(salt) >= 32 and read_salt(Study().salt) == salt
    assert stat.S_IMODE(Path(".histoloom/salt").stat().st_mode) == 0o600
    assert read_salt(folder / "another") != salt
    (folder / "short").write_text("abc\n")
    with pytest.raises(HistoloomError, match="shorter than 16 characters"):
        read_salt(folder / "short")


def test_the_environment_s_salt_wins_and_writes_nothing(folder, monkeypatch):
    monkeypatch.setenv("HISTOLOOM_SALT", "a salt of more than sixteen characters")
    assert read_salt(Study().salt) == b"a salt of more than sixteen characters"
    assert list(folder.iterdir()) == []


def test_a_short_salt_in_the_environment_is_refused_too(folder, monkeypatch):
    monkeypatch.setenv("HISTOLOOM_SALT", "abc")
    with pytest.raises(HistoloomError, match="HISTOLOOM_SALT is shorter than 16 characters"):
        read_salt(Study().salt)
