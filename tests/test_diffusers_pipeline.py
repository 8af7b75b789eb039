"""A package as a folder of diffusers: opened with histoloom and without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import histoloom
from histoloom.config import Sample
from histoloom.config.package import autoencoder_facts, has_part, root
from histoloom.emit.model_index import write_model_index
from histoloom.errors import HistoloomError

pytestmark = pytest.mark.long

BASE = root() / "histoloom-base"
FEW = Sample(steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def pipeline():
    return DiffusionPipeline.from_pretrained(BASE)


def pixels(images) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_a_pipeline_makes_the_pixels_that_load_makes(pipeline):
    model = histoloom.load("histoloom-base", device="cpu")
    made = pipeline(num_images_per_prompt=2, seed=3, label="cancer", num_inference_steps=2, guidance_scale=1.0).images
    assert pixels(made) == pixels(model.sample(2, 3, label="cancer", settings=FEW).images)
    generator = torch.Generator().manual_seed(3)
    asked = pipeline(["breast", "fat"], generator=generator, num_inference_steps=2, guidance_scale=1.0)
    assert pixels(asked.images) == pixels(model.sample(2, 3, text=["breast", "fat"], settings=FEW).images)
    array = pipeline(["breast", "fat"], seed=3, num_inference_steps=2, guidance_scale=1.0, output_type="np").images
    assert array.shape == (2, 128, 128, 3) and 0 <= array.min() < array.max() <= 1


def test_its_few_steps_are_those_of_load():
    pipeline = DiffusionPipeline.from_pretrained(BASE)
    pipeline.use_few_steps()
    few = histoloom.load("histoloom-base", device="cpu", few_steps=True)
    assert pixels(pipeline(seed=1, label="immune").images) == pixels(few.sample(1, 1, label="immune").images)


def test_a_changed_part_changes_what_is_made(pipeline):
    changed = DiffusionPipeline.from_pretrained(BASE)
    with torch.no_grad():
        changed.denoiser.conv_out.weight.mul_(0.5)
    asked = {"num_inference_steps": 2, "guidance_scale": 1.0}
    assert pixels(changed(**asked).images) != pixels(pipeline(**asked).images)


def test_what_it_can_t_do_is_an_error(pipeline, tmp_path):
    with pytest.raises(HistoloomError, match="Copy the package's folder"):
        pipeline.save_pretrained(tmp_path)
    with pytest.raises(HistoloomError, match="ask for 'pil' or 'np'"):
        pipeline(output_type="latent")
    with pytest.raises(HistoloomError, match="not one that the model knows"):
        pipeline(label="keratin")
    with pytest.raises(HistoloomError, match="in float32"):
        DiffusionPipeline.from_pretrained(BASE).to(torch.bfloat16)()


@pytest.mark.parametrize(
    "statement",
    [
        "import histoloom; from diffusers import DiffusionPipeline",
        "from diffusers import DiffusionPipeline; import histoloom",
        "import diffusers, histoloom; from diffusers import DiffusionPipeline",
    ],
)
def test_the_order_of_imports_does_not_matter(statement):
    code = f"{statement}; print(type(DiffusionPipeline.from_pretrained({str(BASE)!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "HistoloomPipeline"


def test_its_standard_parts_open_without_histoloom():
    code = f"""
import sys, torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
vae, unet, scheduler = (
    of.from_pretrained({str(BASE)!r}, subfolder=name)
    for of, name in ((AutoencoderTiny, "autoencoder"), (UNet2DConditionModel, "denoiser"), (DDIMScheduler, "scheduler"))
)
print(tuple(vae.decode(torch.zeros(1, 4, 8, 8)).sample.shape), unet.config.in_channels, scheduler.config.prediction_type)
assert "histoloom" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 3, 32, 32) 16 v_prediction"


def test_a_package_holds_nothing_that_runs_and_is_no_pipeline_of_stable_diffusion():
    endings = {path.suffix for path in BASE.rglob("*") if path.is_file()}
    assert endings == {".json", ".md", ".yaml", ".safetensors"}
    assert "scale" not in autoencoder_facts(BASE / "autoencoder") and has_part(str(BASE), "encoders/text")


def test_an_older_package_loads_as_before(tmp_path):
    shutil.copytree(BASE, tmp_path / "old", ignore=shutil.ignore_patterns("model_index.json", "scheduler"))
    old = histoloom.load(tmp_path / "old", device="cpu").sample(1, settings=FEW)
    assert pixels(old.images) == pixels(histoloom.load(BASE, device="cpu").sample(1, settings=FEW).images)


def test_parts_that_are_no_classes_of_diffusers_are_left_out_of_the_index(tmp_path):
    for part in ("denoiser", "autoencoder"):
        (tmp_path / part).mkdir()
        for name in ("config.json", "conditions.json"):
            if (BASE / part / name).is_file():
                shutil.copy(BASE / part / name, tmp_path / part)
    path = tmp_path / "denoiser/conditions.json"
    stated = json.loads(path.read_text())
    stated["training"]["map_input"] = "spade"
    path.write_text(json.dumps(stated))
    (tmp_path / "autoencoder/config.json").unlink()
    write_model_index(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["denoiser"] == index["autoencoder"] == [None, None]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert Path(tmp_path / "scheduler/scheduler_config.json").is_file()
