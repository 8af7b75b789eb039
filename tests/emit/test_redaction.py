"""What a package may tell: names as codes, params by an allow-list, sources without places."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.config import Params, load_params
from histoloom.data.lineage import Lineage
from histoloom.data.lineage_match import coded, is_code
from histoloom.data.study_folder import Study
from histoloom.emit.redaction import FOLDER, Names, names_outside, told_params, told_source
from histoloom.errors import HistoloomError
from tests.build import make_part, make_study, tile_rows, tiles

SALT = b"a salt for tests"
PRETRAINED = Path(__file__).parents[2] / "pretrained/histoloom-base"


@pytest.mark.parametrize(
    "source",
    [
        "scratch",
        "train",
        "histoloom-base",
        "hf-hub:org/model",
        "hf-hub:org/model@0123abc",
        "transformers:vinid/plip",
        "timm:resnet50",
        "timm:vit_base_patch16_224.augreg_in1k",
        "timm:hf-hub:MahmoodLab/UNI",
    ],
)
def test_models_that_anyone_can_have_are_named(source):
    assert told_source(source) == source


@pytest.mark.parametrize(
    "source",
    [
        "/srv/p7/model",
        "../p7/models",
        "./p7",
        "~/p7",
        "C:\\\\p7",
        "p7",
        "studies/p7/models",
        "mine/p7",
        "hf-hub:/srv/p7",
        "patients/p7",  # a folder that was
        "transformers:mine/p7",
        "timm:p7",
        "timm:local-dir/p7",
        "timm:local-dir:mine/p7",
        "timm:mine/p7",
        "org/model@/srv/p7",
        "a folder",
    ],
)
def test_of_a_folder_nothing_is_told_but_that_it_is_one(source, folder):
    Path("mine/p7").mkdir(parents=True)
    assert told_source(source) == FOLDER == told_source(FOLDER)


def test_a_bare_hub_s_id_is_told_where_this_machine_has_fetched_it(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    (folder / "cache/models--org--asked-for").mkdir(parents=True)
    assert told_source("org/model") == FOLDER == told_source("org/asked-for")
    (folder / "cache/models--org--model/snapshots/0123").mkdir(parents=True)
    assert told_source("org/model") == "org/model"
    (folder / "org/model").mkdir(parents=True)
    assert told_source("org/model") == FOLDER


def test_params_that_leave_describe_the_making_alone(folder):
    for name in ("autoencoder", "denoiser"):
        shutil.copytree(PRETRAINED / name, Path("p7") / name)
    secret = {
        "tile": {"split": {"assign": {"p7": "val"}}, "spots": "p7.csv", "summarise": "p7.sh", "caption": "p7 {label}"},
        "train_encoders": {"rna": {"table": "p7.h5ad", "init": "p7/rna"}, "image": {"source": "p7/tower"}},
        "train_denoiser": {"init": "./p7", "resume_from": "p7", "conditions": ["label", "text"]},
        "train_autoencoder": {"init": "histoloom-base", "resume_from": "p7"},
        "plan": {"requests": [{"name": "p7", "tiles": 1, "where": {"patient_id": "p7"}}]},
        "sample_slides": {"slides": [{"name": "p7", "width_px": 64, "height_px": 64, "source_groups": ["p7"]}]},
        "emit": {"name": "p7", "licence": "CC-BY-4.0"},
        "report": {"title": "p7"},
        "uplift": {"learner": "command", "command": "p7 {dataset} {predictions}"},
        "evaluate": {"weights": "p7"},
    }
    params = make_study(".", [], **secret)
    told = told_params(params.model_dump(mode="json"))
    assert "p7" not in str(told) and "manifests" not in str(told) and "data/" not in str(told)
    read = Params.model_validate(told)
    kept = {"init": FOLDER, "resume_from": None}
    assert read.train_denoiser == params.train_denoiser.model_copy(update=kept)
    assert read.train_autoencoder.init == "histoloom-base" and read.emit.licence == "CC-BY-4.0"
    assert read.tile.labels == params.tile.labels and read.encode == params.encode
    assert told_params(told) == told


@given(st.sets(st.text("abc:/-_ 012", min_size=1, max_size=8), max_size=5), st.sampled_from(["", "set"]))
def test_no_name_leaves_but_as_a_code_and_codes_stay(names, dataset):
    outside = Names(dataset, SALT)
    once = outside.outside(Lineage(tuple(names), tuple(names)))
    assert all(map(is_code, (*once.groups, *once.slides))) and not once.public
    assert len(once.groups) == len(names)
    assert Names("other", b"another long salt").outside(once) == once


def test_names_of_earlier_packages_stay_as_they_are():
    lineage = Lineage(("her2st:C2", "p1", "x:y"), (), ("/srv/p7/models", "hf-hub:org/model"), ("her2st",))
    told = Names("mine", SALT).outside(lineage)
    assert told.groups == tuple(sorted(("her2st:C2", *(f"mine:{coded('g', name, SALT)}" for name in ("p1", "x:y")))))
    assert told.unknown == ("a folder", "hf-hub:org/model") and told.public == ("her2st",)


def test_public_ids_stay_clear_but_for_slides_of_another_set(folder, monkeypatch, capsys):
    monkeypatch.setenv("HISTOLOOM_SALT", SALT.decode())
    with pytest.raises(HistoloomError, match="dvc repro tile"):
        names_outside(Study(), "her2st", public=True)
    for slide, dataset in (("C2", "HER2ST"), ("C3", None), ("H1", "own")):
        _slide(slide, dataset)
    told = names_outside(Study(), "her2st", public=True).outside(
        Lineage(("C2", "C3", "H1", "of-another-study"), ("C2",))
    )
    codes = [f"her2st:{coded('g', name, SALT)}" for name in ("C3", "H1", "of-another-study")]
    assert told.groups == tuple(sorted(("her2st:C2", *codes)))
    assert told.slides == ("her2st:C2",) and told.public == ("her2st",)
    assert "state no `dataset`, and leave as codes: C3" in " ".join(capsys.readouterr().err.split())


def test_several_public_sets_keep_their_ids(folder, monkeypatch):
    monkeypatch.setenv("HISTOLOOM_SALT", SALT.decode())
    for slide, dataset in (("C2", "her2st"), ("N1", "camelyon16"), ("H1", "own")):
        _slide(slide, dataset)
    told = names_outside(Study(), "her2st", "camelyon16", public=True).outside(Lineage(("C2", "N1", "H1"), ("N1",)))
    assert told.groups == tuple(sorted(("her2st:C2", "camelyon16:N1", coded("g", "H1", SALT))))
    assert told.slides == ("camelyon16:N1",) and told.public == ("camelyon16", "her2st")
    with pytest.raises(HistoloomError, match="states the data set 'other'"):
        names_outside(Study(), "her2st", "other", public=True)
    with pytest.raises(HistoloomError, match="need --public"):
        names_outside(Study(), "her2st", "camelyon16")


def _slide(slide: str, dataset: str | None = None, **columns) -> None:
    rows = tile_rows(1, **{"slide_id": slide, "split_group": slide, "patient_id": slide, "dataset": dataset} | columns)
    make_part("data/tiles", slide, rows, tiles(1))


def test_where_no_slide_states_a_data_set_all_are_of_the_public_one_regions_too(folder, monkeypatch):
    monkeypatch.setenv("HISTOLOOM_SALT", SALT.decode())
    _slide("C2", split_group="C2/r0c1")
    told = names_outside(Study(), "her2st", public=True).outside(Lineage(("C2/r0c1@6x3",), ("C2",)))
    assert told == Lineage(("her2st:C2/r0c1@6x3",), ("her2st:C2",), (), ("her2st",))
    (group,) = names_outside(Study()).outside(Lineage(("C2/r0c1@6x3",))).groups
    assert is_code(group) and group.endswith("/r0c1@6x3") and "C2" not in group


def test_an_id_of_this_study_that_looks_like_a_code_or_a_public_name_leaves_as_a_code(folder, monkeypatch):
    monkeypatch.setenv("HISTOLOOM_SALT", SALT.decode())
    own = ("WardB:g-123456789012", "her2st:Moe", "s-202301154521")
    for number, patient in enumerate(own):
        _slide(f"s{number}", split_group=patient)
    of_package = ("g-3f2a90c1d2e4", "her2st:C2")
    told = names_outside(Study()).outside(Lineage((*own, *of_package), (), (), ("her2st",)))
    assert told.groups == tuple(sorted((*of_package, *(coded("g", name, SALT) for name in own))))


def test_a_data_set_has_a_name_and_a_public_one_is_named():
    with pytest.raises(HistoloomError, match="'her2:st' can't name a data set"):
        names_outside(Study(), "her2:st")
    with pytest.raises(HistoloomError, match="--public needs --dataset NAME"):
        names_outside(Study(), public=True)


def test_the_packaged_model_s_params_are_told_by_the_same_rule():
    for path in (Path(__file__).parents[2] / "pretrained").glob("*/params*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert load_params(path) and not [
            word for word in ("manifest", "root", "caption", "assign", "table") if word in text
        ]
