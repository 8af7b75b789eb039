"""Files that params name are found from the study's root, wherever the process works."""

from __future__ import annotations

from pathlib import Path

import pytest

from histoloom.config import Params
from histoloom.config.file_keys import model_place, placed

ROOT = Path("elsewhere/study")
LABELS = {"labels": {"classes": ["a", "b"]}}


@pytest.fixture
def study(folder) -> Path:
    (folder / ROOT / "models/mine").mkdir(parents=True)
    (folder / ROOT / "train").mkdir()
    (folder / ROOT / "inception-v3").mkdir()
    (folder / ROOT / "shorten.py").touch()
    return ROOT


def params(tile: dict | None = None, **sections) -> Params:
    return Params(tile={"mpp": 1.0} | LABELS | (tile or {}), **sections)


def test_from_the_study_s_own_folder_nothing_changes(study):
    stated = params()
    assert placed(stated, Path()) is stated


def test_files_are_placed_under_the_root_and_absolute_ones_stay(study):
    found = placed(params({"spots": "/data/spots.csv"}, train_encoders={"rna": {"table": "rna.csv"}}), study)
    assert found.tile.manifest == "elsewhere/study/manifests/slides.csv" and found.tile.spots == "/data/spots.csv"
    assert found.train_encoders.rna.table == "elsewhere/study/rna.csv"
    assert found.train_encoders.genotype.table is None and found.train_denoiser.resume_from is None
    slide = {"name": "s", "width_px": 256, "height_px": 256, "mask": "m.png", "outside": "glass"}
    masked = params({"masks": {"source": "raster", "classes": ["a"]}}, sample_slides={"slides": [slide]})
    assert placed(masked, study).sample_slides.slides[0].mask == "elsewhere/study/m.png"


def test_the_files_of_each_of_several_models_are_placed(study):
    models = {"one": {"train_encoders": {"genotype": {"table": "g.csv"}}}, "two": {}}
    found = placed(params(models=models, sample={"chain": ["one"]}), study)
    assert found.of("one").train_encoders.genotype.table == "elsewhere/study/g.csv"


def test_sets_of_tiles_are_placed_and_no_manifest_stays_none(study):
    stated = {"path": "cut/*.tar", "masks": "masks", "root": "/data/tiles", "columns": {"label": "class"}}
    found = placed(params({"manifest": None, "labels": {"source": "none"}, "sets": [stated]}), study).tile
    assert found.manifest is None and found.sets[0].path == "elsewhere/study/cut/*.tar"
    assert (found.sets[0].masks, found.sets[0].root) == ("elsewhere/study/masks", "/data/tiles")
    assert found.sets[0].columns == {"label": "class"} and found.sets[0].table is None


@pytest.mark.parametrize(
    "source, place",
    [
        ("models/mine", "elsewhere/study/models/mine"),
        ("histoloom-base", "histoloom-base"),
        ("org/name", "org/name"),
        ("", ""),
    ],
)
def test_a_model_s_folder_is_placed_and_its_name_is_not(study, source, place):
    assert model_place(source, study) == place


def test_words_that_name_no_folder_stay(study):
    sections = {"evaluate": {"features": "inception-v3"}, "train_filters": {"features": "models/mine"}}
    found = placed(params(train_encoders={"text": {"source": "hf-hub:org/name"}}, **sections), study)
    assert found.evaluate.features == "inception-v3" and found.train_filters.features == "elsewhere/study/models/mine"
    assert found.train_denoiser.init == "scratch" and found.train_encoders.rna.init == "train"
    assert found.train_encoders.text.source == "hf-hub:org/name"


@pytest.mark.parametrize(
    "command, place",
    [
        ("python shorten.py --fast", "python elsewhere/study/shorten.py --fast"),
        ("./shorten.py", "elsewhere/study/shorten.py"),
        ("train {dataset}", "train {dataset}"),
        ("python 'shorten.py", "python 'shorten.py"),
    ],
)
def test_words_of_a_command_that_are_files_are_placed(study, command, place):
    assert placed(params({"summarise": command}), study).tile.summarise == place
