"""What a pipeline of Stable Diffusion's form tells is taken from it; one that can't be used is refused in plain words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from ruamel.yaml import YAML

from histoloom.config import check_params, load_params
from histoloom.config.package import packaged
from histoloom.data.lineage import lineage_of
from histoloom.errors import Fault
from tests.pipelines import TEXT_WIDTH, make_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
FEWEST = {"train_denoiser": {"init": "sd"}, "tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("made") / "sd")


@pytest.fixture
def sd(folder, made) -> Path:
    shutil.copytree(made, "sd")
    return Path("sd")


def write(**sections) -> Path:
    stated = {name: FEWEST.get(name, {}) | sections.get(name, {}) for name in FEWEST | sections}
    with Path("params.yaml").open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(stated, stream)
    return Path("params.yaml")


def faults(**sections) -> dict[str, str]:
    found = check_params(write(**sections))[1]
    return {f.where.removeprefix("params.yaml, "): f.problem for f in found if isinstance(f, Fault)}


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_pipeline_s_folder_is_params_enough(sd):
    params = load_params(write())
    denoiser, autoencoder, text = params.train_denoiser, params.train_autoencoder, params.train_encoders.text
    assert (denoiser.prediction, denoiser.schedule, denoiser.train_timesteps) == ("epsilon", "scaled_linear", 1000)
    assert denoiser.betas == (0.0009, 0.0125) and denoiser.conditions == ("text",) and denoiser.channels == (32, 64)
    assert (autoencoder.init, autoencoder.arch, autoencoder.latent_channels) == ("sd", "kl", 4)
    assert (autoencoder.down_factor, autoencoder.scale, autoencoder.steps) == (2, "kept", 0)
    assert (text.source, text.padding) == ("sd", "read")


def test_a_prediction_that_is_not_stated_is_epsilon_and_heads_of_each_level_are_left(sd):
    path = sd / "scheduler/scheduler_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["prediction_type"]
    path.write_text(json.dumps(config), encoding="utf-8")
    change(sd / "unet/config.json", attention_head_dim=[4, 8])
    params = load_params(write())
    assert params.train_denoiser.prediction == "epsilon"
    assert params.train_denoiser.attention_head_dim == 8  # the default, which has no effect


@pytest.mark.parametrize("map_input", ["concat", "spade", "controlnet"])
def test_maps_may_enter_in_any_way(sd, map_input):
    assert load_params(write(train_denoiser={"init": "sd", "map_input": map_input}))


def test_adapting_by_a_controlnet_gives_it_the_maps(sd):
    config = load_params(write(train_denoiser={"init": "sd", "adapt": "controlnet"})).train_denoiser
    assert config.map_input == "controlnet"
    stated = {"init": "sd", "adapt": "controlnet", "map_input": "spade"}
    assert "leave it out" in faults(train_denoiser=stated)["params.yaml, train_denoiser".removeprefix("params.yaml, ")]


@pytest.mark.parametrize(
    "place, values, words",
    [
        ("unet/config.json", {"in_channels": 9}, "reads 9 channels and makes 4"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "as the UNet of SDXL does"),
        ("unet/config.json", {"_class_name": "UNet2DModel"}, "is a UNet2DModel"),
        ("unet/config.json", {"num_class_embeds": 7}, "a class of its own"),
        ("unet/config.json", {"cross_attention_dim": [32, 32]}, "several widths"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}, "squaredcos_cap_v2"),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1]}, "betas of its own"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "an end without signal"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "flow_prediction"),
    ],
)
def test_a_denoiser_that_cannot_be_used_is_refused(sd, place, values, words):
    change(sd / place, **values)
    assert words in faults()["train_denoiser.init"]


def test_a_pipeline_without_a_unet_says_what_it_has(sd):
    shutil.move(sd / "unet", sd / "transformer")
    said = faults()["train_denoiser.init"]
    assert "without a folder unet" in said and "transformer" in said


def test_weights_of_a_variant_alone_are_refused(sd):
    weights = sd / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert "a variant alone" in faults()["train_denoiser.init"]


def test_a_text_tower_of_another_kind_is_refused(sd):
    change(sd / "text_encoder/config.json", model_type="t5")
    assert "must be a CLIPTextModel" in faults()["train_encoders.text.source"]


def test_an_untrained_denoiser_must_read_what_it_knows(sd):
    as_it_is = {"train_denoiser": {"init": "sd", "steps": 0}}
    assert faults(**as_it_is) == {}
    shutil.copytree(sd / "text_encoder", "tower")
    change(Path("tower/config.json"), hidden_size=48)
    said = faults(**as_it_is, train_encoders={"text": {"source": "tower"}})
    assert (
        f"48 channels, and 'sd', which is not trained (steps: 0), reads {TEXT_WIDTH}"
        in said["train_encoders.text.source"]
    )
    assert "masked" in faults(**as_it_is, train_encoders={"text": {"padding": "masked"}})["train_encoders.text.padding"]
    said = faults(**as_it_is, train_autoencoder={"scale": "measured", "steps": 10})
    assert said.keys() == {"train_autoencoder.scale", "train_autoencoder.steps"}
    assert faults(train_autoencoder={"scale": "measured", "steps": 10}) == {}


@pytest.mark.parametrize("stated", [{"betas": [0.0001, 0.02]}, {"prediction": "sample"}, {"train_timesteps": 500}])
def test_what_the_pipeline_decided_can_not_be_stated_otherwise(sd, stated):
    assert faults(train_denoiser={"init": "sd"} | stated).keys() == {f"train_denoiser.{next(iter(stated))}"}


@pytest.mark.parametrize(
    "stated, words",
    [({"betas": [0.02, 0.01]}, "must grow"), ({"betas": [0.001, 0.01]}, "schedule is cosine")],
)
def test_betas_that_no_schedule_has_are_refused(folder, stated, words):
    said = faults(train_denoiser={"init": "scratch"} | stated)
    assert any(words in problem for problem in said.values())


def test_a_hub_s_pipeline_is_known_once_it_was_fetched(folder, made, monkeypatch):
    assert packaged("org/sd", "denoiser") == "org/sd"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "cache"))
    of_model = folder / "cache/models--org--sd"
    for revision in ("abc", "def"):
        shutil.copytree(made, of_model / "snapshots" / revision)
    change(of_model / "snapshots/def/scheduler/scheduler_config.json", prediction_type="v_prediction")
    (of_model / "refs").mkdir()
    (of_model / "refs/main").write_text("abc", encoding="utf-8")
    assert packaged("org/sd", "denoiser") == str(of_model / "snapshots/abc/unet")
    params = load_params(write(train_denoiser={"init": "org/sd"}))
    assert params.train_denoiser.prediction == "epsilon" and params.train_encoders.text.source == "org/sd"
    params = load_params(write(train_denoiser={"init": "org/sd", "revision": "def"}))
    assert params.train_denoiser.prediction == "v_prediction" and params.train_autoencoder.revision == "def"
    assert params.train_encoders.text.revision == "def"
    assert lineage_of("org/sd", "denoiser").unknown == ("org/sd",)
