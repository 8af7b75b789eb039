"""params.yaml as people write it: what is read is exact, and what isn't read is a fault with its key and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.config import Params, check_cluster, check_params, load_params
from histoloom.config.yaml_reader import check_section
from histoloom.errors import HistoloomError

GOOD = "tile: {mpp: 1.0, labels: {classes: [a, b]}}\n"
PATH = Path("params.yaml")


def faults_of(text: str | bytes) -> list[tuple[str, str]]:
    """Each fault's key and what it says."""
    PATH.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    faults = check_params(PATH)[1]
    return [
        (fault.where.removeprefix("params.yaml").lstrip(", "), f"{fault.problem} {fault.remedy}") for fault in faults
    ]


def test_a_scale_and_classes_are_all_that_must_be_stated(folder):
    PATH.write_text(GOOD, encoding="utf-8")
    params = load_params(PATH)
    assert params == Params(tile={"mpp": 1.0, "labels": {"classes": ["a", "b"]}})
    PATH.write_text("tile: {mpp: 1.0, labels: {source: none, classes: []}}\n", encoding="utf-8")
    unlabelled = load_params(PATH)
    assert unlabelled.train_denoiser.conditions == ("text",) and unlabelled.uplift.seeds == 0


def _keys(model=Params, before=()):
    """Every key that has a default, as its path, but for those whose null means something; and every section."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if not field.is_required() and name not in getattr(model, "nullable", ()):
            yield (*before, name)
        if hasattr(kind, "model_fields"):
            yield from _keys(kind, (*before, name))


def test_a_study_without_labels_names_no_classes(folder):
    PATH.write_text("tile: {mpp: 1.0, labels: {source: none}}\n", encoding="utf-8")
    params = load_params(PATH)
    assert params.tile.labels.classes == () and params.train_denoiser.conditions == ("text",)


@given(st.sets(st.sampled_from(sorted(_keys()))))
def test_a_key_that_is_null_is_as_one_that_is_not_there(keys):
    stated = {"tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}}
    for path in sorted(keys):
        place = stated
        for name in path[:-1]:
            place = place.setdefault(name, {}) if place.get(name, {}) is not None else {}
        place.setdefault(path[-1], None)
    params, faults = check_section(stated, Params, PATH)
    assert faults == [] and params == Params(tile={"mpp": 1.0, "labels": {"classes": ["a", "b"]}})


def test_a_section_whose_keys_are_all_comments_is_the_defaults(folder):
    PATH.write_text(GOOD + "sample:\n  # steps: 50\nplan:\nfilter: ~\n", encoding="utf-8")
    assert load_params(PATH) == Params(tile={"mpp": 1.0, "labels": {"classes": ["a", "b"]}})


@pytest.mark.parametrize("text, value", [("'0.25'", 0.25), ("1e-4", 1e-4), ("'1e-4'", 1e-4), ("1", 1.0)])
def test_a_number_is_read_exactly_however_it_is_quoted(folder, text, value):
    PATH.write_text(f"tile: {{mpp: 1.0, labels: {{classes: [a, b]}}}}\ntrain_denoiser: {{learning_rate: {text}}}\n")
    assert load_params(PATH).train_denoiser.learning_rate == value


@pytest.mark.parametrize("text, value", [("yes", True), ("no", False), ("true", True), ("off", False)])
def test_a_switch_is_read_in_the_words_that_yaml_has_had(folder, text, value):
    PATH.write_text(f"tile: {{mpp: 1.0, upsample: {text}, labels: {{classes: [yes, no]}}}}\n")
    params = load_params(PATH)
    assert params.tile.upsample is value and params.tile.labels.classes == ("yes", "no")


@pytest.mark.parametrize(
    "text, key, said",
    [
        ("seed: true\n", "(top)", "seed is true"),
        ("train_denoiser: {steps: true}\n", "train_denoiser", "steps is true"),
        ("train_denoiser: {learning_rate: .inf}\n", "train_denoiser.learning_rate", "finite"),
        ("train_denoiser: {learning_rate: '0,001'}\n", "train_denoiser.learning_rate", "0.001"),
        ("train_denoiser: {steps: 1.5}\n", "train_denoiser.steps", "1.5"),
        ("train_denoiser: {stepps: 3}\n", "train_denoiser.stepps", "'steps'"),
        ("sampel: {}\n", "sampel", "'sample'"),
        ("sample: {tile_px: 3}\n", "sample.tile_px", "of tile and of sample_slides"),
        ("stepps: ~\n", "stepps", "no such key"),
        ("plan: {requests: [{name: a, tiles: 3, were: {}}]}\n", "plan.requests.0.were", "'where'"),
        ("sample: {guidance: much}\n", "sample.guidance", "'much'"),
        ("plan: {classes: a}\n", "plan.classes", "[a]"),
        ("plan: 3\n", "plan", "3"),
        ("train_encoders: {rna: {table: 3}}\n", "train_encoders.rna.table", "'3'"),
    ],
)
def test_a_value_that_means_nothing_is_a_fault_of_its_key(folder, text, key, said):
    [(found, words)] = faults_of(GOOD + text)
    assert found == key and said in words


@pytest.mark.parametrize(
    "text, row, said",
    [
        (GOOD + "a: 1\na: 2\n", 3, "each key once"),
        ("tile:\n\tmpp: 1\n", 2, "tabs"),
        ("tile: {mpp: 1\n", 1, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
    ],
)
def test_what_is_no_yaml_is_a_fault_of_its_line(folder, text, row, said):
    PATH.write_text(text)
    [fault] = check_params(PATH)[1]
    assert fault.row >= row and said in str(fault)


def test_other_encodings_and_folders_are_said(folder):
    assert "UTF-8" in faults_of("tile: {caption: 'Färbung'}".encode("latin-1"))[0][1]
    assert faults_of(GOOD.encode("utf-8-sig")) == []
    Path("cluster.yaml").mkdir()
    assert "can't be read" in check_cluster()[1][0].problem


def test_all_faults_are_in_one_error(folder):
    PATH.write_text("tile: {mpp: -1, lables: {}}\nsample: {stepps: 3}\n")
    with pytest.raises(HistoloomError, match="4 fault") as error:
        load_params(PATH)
    for key in ("tile.mpp", "tile.labels", "tile.lables", "sample.stepps"):
        assert f"params.yaml, {key}: " in str(error.value)
