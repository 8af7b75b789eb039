"""A package's encoder of tiles: found, taken where params leave it out, and refused where it is damaged or not to be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from histoloom.config import load_params
from histoloom.config.file_keys import placed
from histoloom.config.package import TILE_ENCODER, tile_encoder_of
from histoloom.config.pretrained import named_models
from tests.config.packages import load, refused, write


def encoder_of_tiles(folder: Path) -> None:
    """As `train_encoders` writes one; its weights are whole, and of nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"_class_name": TILE_ENCODER, "image_px": 64, "width": 16, "size": 128}
    (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    save_file({"mean": np.zeros(128, np.float32)}, folder / "model.safetensors")


def test_a_package_s_encoder_of_tiles_is_taken_where_params_leave_it_out(package):
    shutil.rmtree(package / "encoders/image")
    assert load({"train_denoiser": {"init": "mine"}}).train_encoders.image.source == "efficientnet-lite0"
    encoder_of_tiles(package / "encoders/image")
    begun = {"train_denoiser": {"init": "mine", "conditions": ["text", "image"]}}
    assert load(begun).train_encoders.image.source == "./mine"
    assert (
        load(begun | {"train_encoders": {"image": {"source": "inception-v3"}}}).train_encoders.image.source
        == "inception-v3"
    )
    assert named_models(load(begun))["train_encoders.image.source"][:2] == ("./mine", "encoders/image")


def test_an_encoder_of_tiles_is_found_from_another_folder_than_the_study_s(package, monkeypatch, tmp_path_factory):
    encoder_of_tiles(package / "encoders/image")
    study = Path.cwd()
    write({"train_denoiser": {"init": "mine", "conditions": ["text", "image"]}})
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    params = load_params(study / "params.yaml")
    source = placed(params, study).train_encoders.image.source
    assert tile_encoder_of(source) == study / "mine/encoders/image"


@pytest.mark.parametrize("source", ["train", "./mine/encoders/image", "./mine"])
def test_sources_of_an_encoder_of_tiles(package, source):
    encoder_of_tiles(package / "encoders/image")
    tile = {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}
    stated = {
        "tile": tile,
        "train_denoiser": {"conditions": ["image"]},
        "train_encoders": {"image": {"source": source}},
    }
    named = named_models(load(stated))
    assert ("train_encoders.image.source" in named) == (source != "train")


@pytest.mark.parametrize("name, how", [("config.json", "{"), ("config.json", "{}"), ("model.safetensors", "cut")])
def test_a_damaged_encoder_of_tiles_is_said_by_its_key(package, name, how):
    encoder_of_tiles(package / "encoders/image")
    (package / "encoders/image" / name).write_text(how, encoding="utf-8")
    stated = {"train_denoiser": {"init": "mine", "conditions": ["text", "image"]}}
    refused(stated, "train_encoders.image.source", "encoders/image", "is damaged")


def test_an_encoder_that_is_to_be_trained_is_unknown_to_a_denoiser_that_is_not(package):
    stated = {"train_denoiser": {"init": "mine", "steps": 0, "conditions": ["image", "text"]}}
    refused(
        stated | {"train_encoders": {"image": {"source": "train"}}}, "train_encoders.image.source", "is not trained"
    )
    assert load(stated).train_encoders.image.source == "./mine"
