"""What a model tells that params begin from is taken from it; what contradicts it, or is damaged, is said with its key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from histoloom.config import load_params
from histoloom.config.channels import mask_channels, read_channels
from histoloom.data.commit import write_json
from histoloom.errors import Fault, HistoloomError, Note
from tests.config.packages import BASE, FEWEST, USABLE, found, load, refused, write


def change(path: Path, **values) -> None:
    facts = json.loads(path.read_text(encoding="utf-8"))
    for keys, value in values.items():
        *above, last = keys.split("__")
        place = facts
        for key in above:
            place = place[key]
        place[last] = value
    path.write_text(json.dumps(facts), encoding="utf-8")


def test_a_package_s_name_is_params_enough(folder):
    params = load(FEWEST)
    autoencoder, denoiser = params.train_autoencoder, params.train_denoiser
    assert (autoencoder.init, autoencoder.down_factor, autoencoder.latent_channels) == (BASE, 4, 4)
    assert denoiser.channels == (64, 64, 128, 160) and denoiser.attention_head_dim == 2
    assert (denoiser.prediction, denoiser.schedule, denoiser.train_timesteps) == ("v_prediction", "cosine", 1000)
    assert params.tile.mpp == 0.69 and params.tile.labels.classes == ("cancer", "immune", "other")
    assert denoiser.conditions == USABLE and params.train_encoders.text.source == BASE


def test_what_params_state_stands(folder):
    tile = {"mpp": 0.5, "labels": {"classes": ["a", "b"]}}
    params = load(FEWEST | {"tile": tile, "train_encoders": {"text": {"source": "train"}}})
    assert params.tile.mpp == 0.5 and params.tile.labels.classes == ("a", "b")
    assert params.train_encoders.text.source == "train"


def test_conditions_are_those_that_the_study_has_sources_for(folder):
    rna = {"train_encoders": {"rna": {"table": "genes.parquet"}}, "tile": {"masks": {"source": "stain"}}}
    params = load(FEWEST | rna)
    assert params.train_denoiser.conditions == ("magnification", "mask", "image", "text", "label", "rna")
    assert params.tile.masks.classes == ("nucleus", "clear") and params.encode.mask_detail == 2
    assert not params.encode.edges and params.train_encoders.rna.code == 32 and params.train_encoders.rna.init == BASE


def test_a_cohort_is_told_where_the_study_names_its_columns(folder):
    assert load(FEWEST).train_denoiser.conditions == USABLE
    named = FEWEST | {"train_encoders": {"cohort": {"columns": ["site"]}}}
    assert set(load(named).train_denoiser.conditions) == {*USABLE, "cohort"}


def test_a_study_without_labels_takes_none_of_the_package_s(folder):
    params = load(FEWEST | {"tile": {"labels": {"source": "none"}, "masks": {"source": "stain"}}})
    assert params.tile.labels.classes == ()
    assert params.train_denoiser.conditions == ("magnification", "mask", "image", "text")


@pytest.mark.parametrize(
    "init", [{"init": BASE}, {"init": BASE, "down_factor": 4}, {"init": BASE, "down_factor": None}]
)
def test_an_autoencoder_s_factor_is_its_own(folder, init):
    params = load({"tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}, "train_autoencoder": init})
    assert params.train_autoencoder.down_factor == 4 and params.train_denoiser.init == "scratch"


@pytest.mark.parametrize(
    "section, key, stated, told",
    [
        ("train_autoencoder", "down_factor", 8, "4"),
        ("train_autoencoder", "latent_channels", 8, "4"),
        ("train_denoiser", "prediction", "epsilon", "'v_prediction'"),
        ("train_denoiser", "schedule", "linear", "'cosine'"),
        ("train_denoiser", "train_timesteps", 500, "1000"),
    ],
)
def test_a_contradiction_names_both_values_and_the_key(folder, section, key, stated, told):
    both = {"train_denoiser": {"init": BASE}, "train_autoencoder": {"init": BASE}}
    both[section] = both[section] | {key: stated}
    faults = {fault.where: fault.problem for fault in found(both)}
    assert f"it is {stated!r}, and '{BASE}' has {told}" in faults[f"params.yaml, {section}.{key}"]
    with pytest.raises(HistoloomError, match=f"{section}.{key}"):
        load(both)


def test_latents_of_another_autoencoder_are_refused(folder):
    other = {"train_autoencoder": {"init": "scratch", "latent_channels": 8}}
    refused(FEWEST | other, "train_denoiser.init", "4 channels", "have 8")


def test_a_model_with_text_is_adapted_with_text(folder):
    refused({"train_denoiser": {"init": BASE, "conditions": ["label"]}}, "train_denoiser.conditions", "with text")


def test_a_package_is_told_by_its_folder_and_by_what_it_holds(package):
    change(package / "autoencoder/config.json", block_out_channels=[64, 64, 64, 64])
    (package / "params.yaml").write_text("tile: {mpp: 1.5}\n", encoding="utf-8")
    written = json.loads((package / "denoiser/conditions.json").read_text(encoding="utf-8"))
    next(each for each in written["conditions"] if each["name"] == "label")["channels"] = ["this", "that"]
    (package / "denoiser/conditions.json").write_text(json.dumps(written), encoding="utf-8")
    params = load({"train_denoiser": {"init": str(package.absolute()), "adapt": "lora"}})
    assert params.tile.mpp == 1.5 and params.tile.labels.classes == ("this", "that")
    assert params.train_autoencoder.down_factor == 8


def test_conditions_that_a_model_does_not_know_may_be_added_where_it_is_trained(folder):
    added = {"init": BASE, "conditions": ["label", "text", "genotype"], "adapt": "lora"}
    table = {"train_encoders": {"genotype": {"table": "genes.csv"}}}
    assert load({"train_denoiser": added} | table).train_denoiser.conditions[-1] == "genotype"
    as_it_is = {"train_denoiser": added | {"adapt": "full", "steps": 0}}
    refused(as_it_is | table, "train_denoiser.conditions", "genotype")


@pytest.mark.parametrize(
    "stated, key, word",
    [
        ({"tile": {"labels": {"classes": ["cancer", "fat"]}}}, "tile.labels.classes", "fat"),
        ({"tile": {"mpp": 0.5}}, "tile.mpp", "0.69"),
        ({"train_encoders": {"text": {"source": "train"}}}, "train_encoders.text.source", "is not trained"),
    ],
)
def test_a_model_that_is_not_trained_is_asked_for_what_it_knows_alone(folder, stated, key, word):
    as_it_is = {"train_denoiser": {"init": BASE, "steps": 0, "conditions": ["label", "text"]}}
    assert load(as_it_is).train_denoiser.steps == 0
    refused(as_it_is | stated, key, word)
    load(FEWEST | stated)


@pytest.mark.parametrize("steps, guidance", [(0, 1), (200, 2)])
def test_few_steps_are_sampled_as_the_package_says(package, steps, guidance):
    write_json(package / "denoiser/few_steps/few_steps.json", {"steps": 4})
    few = {"train_denoiser": {"init": "mine", "few_steps": True, "steps": steps}}
    sample = load(few).sample
    assert (sample.scheduler, sample.steps) == ("ddim", 4) and (sample.guidance == 1) == (steps == 0)
    load(few | {"sample": {"guidance": guidance}})
    refused(few | {"sample": {"steps": 20}}, "sample.steps", "20", "4 steps")
    canvas = {"slides": [{"name": "a", "width_px": 4096, "height_px": 4096}], "scheduler": "euler"}
    refused(few | {"sample_slides": canvas}, "sample_slides.scheduler", "euler", "ddim")


def test_a_student_is_sampled_as_it_is_distilled_to(folder):
    student = {"train_denoiser": {"init": BASE, "distil": {"steps": 8, "teacher_steps": 16}}}
    sample = load(student).sample
    assert (sample.scheduler, sample.steps, sample.guidance) == ("ddim", 8, 1)
    refused(student | {"sample": {"guidance": 1.5}}, "sample.guidance", "1.5", "guidance inside")


def test_few_steps_that_a_package_has_not_are_refused(package):
    shutil.rmtree(package / "denoiser/few_steps", ignore_errors=True)
    refused({"train_denoiser": {"init": "mine", "few_steps": True}}, "train_denoiser.few_steps", "mine")


def test_few_steps_and_a_scale_are_not_to_be_had_from_a_hub(folder):
    hub = {"tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}}
    refused(hub | {"train_denoiser": {"init": "org/unet", "few_steps": True}}, "train_denoiser.few_steps", "org/unet")
    kept = {"train_autoencoder": {"init": "org/vae", "scale": "kept"}}
    refused(hub | kept, "train_autoencoder.scale", "latents.json")


def test_a_kept_scale_is_read_beside_the_autoencoder(package):
    kept = {"train_denoiser": {"init": "mine"}, "train_autoencoder": {"scale": "kept"}}
    load(kept)
    (package / "autoencoder/latents.json").unlink()
    refused(kept, "train_autoencoder.scale", "mine")


def test_a_distilled_model_is_taken_as_it_is(package):
    change(package / "denoiser/conditions.json", training__distilled=4)
    assert load({"train_denoiser": {"init": "mine", "steps": 0}}).sample.steps == 4
    refused({"train_denoiser": {"init": "mine"}}, "train_denoiser.steps", "distilled to 4")


def test_windows_are_of_the_loaded_model_s_levels(folder):
    refused({"train_denoiser": {"init": BASE, "windows_latent_px": [18]}}, "train_denoiser.windows_latent_px", "4")
    load({"train_denoiser": {"init": BASE, "windows_latent_px": [16, 32]}})


def test_a_hub_s_model_tells_nothing_before_it_is_fetched(folder):
    tile = {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}
    hub = {"tile": tile, "train_autoencoder": {"init": "org/vae"}, "train_denoiser": {"init": "org/unet"}}
    params = load(hub)
    assert params.train_autoencoder.down_factor == 4 and params.train_denoiser.prediction == "v_prediction"
    load(hub | {"train_autoencoder": {"init": "org/vae", "down_factor": 16}})


@pytest.mark.parametrize(
    "section, key", [("train_denoiser", "init"), ("train_autoencoder", "init"), ("train_encoders.text", "source")]
)
def test_a_misspelt_name_is_said_before_any_stage_works(folder, section, key):
    stated = {"tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}}
    place = stated
    for name in section.split("."):
        place = place.setdefault(name, {})
    place[key] = "histoloom-bas"
    refused(stated, f"{section}.{key}", "histoloom-bas")
    assert BASE in found(stated)[0].remedy


@pytest.mark.parametrize("section", ["train_denoiser", "train_autoencoder"])
def test_a_misspelt_name_is_said_where_params_leave_out_what_it_was_to_tell(folder, section):
    unknown, missing = found({section: {"init": "histoloom-bas"}})
    assert unknown.where == f"params.yaml, {section}.init" and BASE in unknown.remedy and "tile" in missing.where


def test_a_misspelt_encoder_of_tiles_is_told_which_packages_have_one(folder):
    tile = {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}
    [fault] = found({"tile": tile, "train_encoders": {"image": {"source": "histoloom-bas"}}})
    assert "'histoloom-bas' is no feature extractor: train, histoloom-base, efficientnet-lite0" in fault.problem


@pytest.mark.parametrize(
    "name, how",
    [
        ("autoencoder/config.json", "missing"),
        ("autoencoder/config.json", "{"),
        ("autoencoder/config.json", "[]"),
        ("denoiser/conditions.json", "{}"),
        ("denoiser/config.json", "{}"),
        ("denoiser/diffusion_pytorch_model-00002-of-00002.safetensors", "missing"),
        ("denoiser/diffusion_pytorch_model.safetensors", "version https://git-lfs.github.com/spec/v1"),
        ("denoiser/diffusion_pytorch_model-00001-of-00002.safetensors", "broken off"),
        ("autoencoder/diffusion_pytorch_model.safetensors", "missing"),
        ("autoencoder/diffusion_pytorch_model.safetensors", "broken off"),
        ("encoders/text/open_clip_model.safetensors", ""),
        ("encoders/rna/config.json", "{}"),
    ],
)
def test_a_damaged_package_is_said_by_the_file(package, name, how):
    path = package / name
    if how == "missing":
        path.unlink()
    elif how == "broken off":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.write_text(how, encoding="utf-8")
    faults = found({"train_denoiser": {"init": "mine"}, "tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}})
    assert any("is damaged" in f.problem and Path(name).parent.as_posix() in f.problem for f in faults)


def test_sizes_that_have_no_effect_are_noted(folder):
    notes = found({"train_denoiser": {"init": BASE, "channels": [128, 256]}, "tile": {"mpp": 2.0}})
    assert all(isinstance(note, Note) for note in notes)
    said = {note.where.removeprefix("params.yaml, "): note.fact for note in notes}
    assert "[128, 256]" in said["train_denoiser.channels"] and "[64, 64, 128, 160]" in said["train_denoiser.channels"]
    assert "0.69" in said["tile.mpp"] and set(said) == {"train_denoiser.channels", "tile.mpp"}


def test_params_in_a_package_need_not_have_what_it_was_begun_from(package):
    stated = {"tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}, "train_denoiser": {"init": "folder/"}}
    assert load_params(write(stated, package / "params.yaml")).train_denoiser.init == "folder/"


@pytest.mark.parametrize(
    "recipes", [["study"], ["study", "adapt"], ["study", "another-hospital"], ["study", "adapt", "../mine"]]
)
def test_recipes_and_the_demo_agree_with_their_models(package, recipes):
    from histoloom.cli.init import merge

    write_json(package / "denoiser/few_steps/few_steps.json", {"steps": 4})
    Path("mine.yaml").write_text(
        "train_denoiser: {init: mine, few_steps: true}\nsample: {scheduler: ddim, steps: 4, guidance: 2}\n"
    )
    yaml, here = YAML(typ="safe"), Path(__file__).parents[2]
    params = yaml.load((here / "params.yaml").read_text(encoding="utf-8"))
    assert not [f for f in found(params) if isinstance(f, Fault)]
    for name in recipes:
        path = Path("mine.yaml") if name == "../mine" else here / "recipes" / f"{name}.yaml"
        merge(params, yaml.load(path.read_text(encoding="utf-8")))
    assert not [f for f in found(params) if isinstance(f, Fault)]


@given(st.lists(st.text("abc de", min_size=1), unique=True, max_size=4), st.booleans(), st.sampled_from([1, 2, 4]))
def test_a_mask_s_channels_tell_what_they_were_made_of(classes, edges, detail):
    names = [name for name in classes if name.strip() == name]
    channels = mask_channels(tuple(names), edges=edges, detail=detail)
    assert read_channels(channels) == (("background", *names, *["edge"] * edges), detail)
