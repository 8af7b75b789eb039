"""A study that begins from a pipeline of Stable Diffusion's form: taken as it is, adapted, and given a ControlNet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from histoloom.conditions.encode import ConditionSet, batch, null
from histoloom.config import Sample, load_params
from histoloom.data.lineage import read_lineage
from histoloom.data.plan import PLAN
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.emit.model import Words, package_models
from histoloom.errors import faults_among
from histoloom.process.noise import latent_noise
from histoloom.process.predictor import Given
from histoloom.process.sampler import pure, sample
from histoloom.process.solver import make_solver
from histoloom.sampling.diffusion_model import generator_sha256, load_diffusion_model
from histoloom.studies.checks.validate import check_study
from histoloom.studies.stage_work import run_stage
from tests.build import make_slide, make_study
from tests.pipelines import SCALING, make_pipeline

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

GUIDANCE, STEPS = 3.0, 5
TRAINED = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser")
REQUESTS = [{"name": f"more-{label}", "tiles": 2, "where": {"label": label}} for label in ("tumour", "stroma")]
WOVEN = {
    "name": "fields",
    "width_px": 64,
    "height_px": 64,
    "mask": "mask.png",
    "outside": "tissue",
    "source_groups": ["a"],
}
MASKS = {"masks": {"source": "stain", "classes": ["nucleus", "clear"]}}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("hub") / "sd")


def study(
    folder: Path,
    pipeline: Path,
    tile: dict | None = None,
    *,
    woven: tuple = (),
    autoencoder: dict | None = None,
    **denoiser,
) -> None:
    rows = []
    for seed, (name, split) in enumerate({"a": "train", "b": "train", "c": "val", "d": "test"}.items()):
        make_slide(folder / f"data/slides/{name}.tif", width=128, height=128, seed=seed)
        label = ("tumour", "stroma")[seed % 2]
        rows.append({"slide_id": name, "path": f"{name}.tif", "patient_id": name, "split": split, "label": label})
    tile = {
        "tile_px": 32,
        "stride_px": 32,
        "caption": "{label} of a slide",
        "tissue": {"mpp": 4.0, "min_fraction": 0.1},
    } | (tile or {})
    make_study(
        folder,
        rows,
        tile,
        train_denoiser={"init": str(pipeline), "batch_size": 4, "warmup_steps": 0} | denoiser,
        train_autoencoder=autoencoder or {},
        plan={"target": "none", "evaluation_tiles": 2, "batch_size": 4, "requests": REQUESTS},
        sample={"scheduler": "ddim", "steps": STEPS, "guidance": GUIDANCE},
        sample_slides={"slides": list(woven), "scheduler": "ddim", "steps": 2, "block_latent_px": 16, "batch_size": 4},
        filter={"use": ["quality"], "min_yield": 0.0},
        uplift={"seeds": 0},
        emit={"allow_unknown_ancestors": True},
    )
    Image.fromarray(np.eye(64, dtype=np.uint8)).save(folder / "mask.png")
    (folder / "cluster.yaml").write_text("workers: 0\ntraining_threads: 1\n", encoding="utf-8")
    assert not faults_among(check_study(Study()))


def run(*stages: str) -> None:
    for name in stages:
        run_stage(name)


def by_diffusers(pipeline: Path, caption: str, noise: torch.Tensor, output: str) -> np.ndarray:
    """What diffusers' own pipeline makes of a caption and this noise, by DDIM from the last time on."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(pipeline, safety_checker=None)
    loaded.set_progress_bar_config(disable=True)
    config = {"timestep_spacing": "trailing", "set_alpha_to_one": True}
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config, **config)
    made = loaded(
        caption,
        latents=noise,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type=output,
        height=32,
        width=32,
    )
    return np.asarray(made.images)


def test_a_pipeline_that_is_taken_as_it_is_samples_as_diffusers_does(folder, pipeline):
    study(folder, pipeline, steps=0)
    run(*TRAINED, "plan", "sample")
    model = load_diffusion_model(Path("models"), generator_sha256(Path("models")), "auto", "cpu")
    assert model.record.training.betas == (0.0009, 0.0125) and model.record.training.prediction == "epsilon"
    plan = pd.read_parquet(Path("data/plan") / PLAN).set_index("tile_id")
    store = TileStore("data/synthetic")
    rows = store.rows()
    images = store.read(rows, "image")
    for caption in ("tumour of a slide", "stroma of a slide"):
        place = rows.index[rows["caption"] == caption][0]
        noise = torch.from_numpy(latent_noise([int(plan.loc[rows["tile_id"][place], "seed"])], (4, 16, 16)))
        theirs = by_diffusers(pipeline, caption, noise, "np")[0]
        assert np.abs(images[place] - theirs * 255).max() < 1.01  # a grey level, that rounding takes
        ours, theirs = (
            latents(model, caption, noise),
            torch.from_numpy(by_diffusers(pipeline, caption, noise, "latent")),
        )
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
        masked = replace(
            model, conditions=ConditionSet((replace(model.conditions.conditions[0], reads_padding=False),))
        )
        for other in (latents(model, "another", noise), latents(masked, caption, noise)):
            assert (other - theirs).abs().max() > 0.1  # so a wrong caption, or padding unread, would show


def latents(model, caption: str, noise: torch.Tensor) -> torch.Tensor:
    """What the study's model makes of a caption and this noise."""
    arrays = model.conditions.arrays(pd.DataFrame({"caption": [caption]}), lambda name: np.empty(0))
    given = Given(batch(arrays, model.specs, np.zeros(1, np.int64)), null(arrays, model.specs))
    solver = make_solver("ddim", model.process, STEPS)
    return sample(model.predictor(Sample(guidance=GUIDANCE).scale_at), solver, pure(solver, noise), given)


def test_what_it_saw_is_unknown_by_the_name_that_params_have(folder, pipeline):
    study(folder, pipeline, steps=0)
    run(*TRAINED)
    for name in ("encoders", "autoencoder", "denoiser"):
        assert read_lineage(Path("models") / name).unknown == (str(pipeline),)
    scale = json.loads(Path("models/autoencoder/latents.json").read_text(encoding="utf-8"))
    assert scale == {"mean": [0.0] * 4, "std": pytest.approx([1 / SCALING] * 4)}


@pytest.mark.parametrize("map_input", ["concat", "spade"])
def test_low_rank_updates_and_new_conditions_are_learnt_on_it(folder, pipeline, map_input):
    study(
        folder,
        pipeline,
        MASKS,
        adapt="lora",
        lora_rank=2,
        steps=2,
        conditions=["label", "text", "mask"],
        map_input=map_input,
    )
    run(*TRAINED, "plan", "sample")
    before, after = (
        load_file(Path(f) / "diffusion_pytorch_model.safetensors") for f in (pipeline / "unet", "models/denoiser")
    )
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"
    assert 0 < torch.linalg.matrix_rank(after[key] - before[key], rtol=1e-3) <= 2
    assert after["class_embedding.linear_2.weight"].any()
    assert bool(after["conv_in.weight"][:, 4:].any()) == (map_input == "concat")
    assert any(n.endswith("scale_shift.weight") and v.any() for n, v in after.items()) == (map_input == "spade")
    assert len(TileStore("data/synthetic").rows()) > 0


def test_a_controlnet_alone_is_trained_beside_it(folder, pipeline):
    study(folder, pipeline, MASKS, adapt="controlnet", steps=2, conditions=["text", "mask"], woven=[WOVEN])
    run(*TRAINED, "plan", "sample", "sample_slides")
    before, after = (
        load_file(Path(f) / "diffusion_pytorch_model.safetensors") for f in (pipeline / "unet", "models/denoiser")
    )
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    control = load_file("models/denoiser/controlnet/diffusion_pytorch_model.safetensors")
    assert control["controlnet_down_blocks.0.weight"].any()
    assert json.loads(Path("models/denoiser/conditions.json").read_text())["training"]["map_input"] == "controlnet"
    assert len(TileStore("data/synthetic").rows()) > 0
    with openslide.open_slide("data/woven/fields/slide.tif") as slide:
        assert np.asarray(slide.read_region((0, 0), 0, (64, 64)))[..., :3].std() > 1


def test_a_package_of_it_keeps_what_the_pipeline_told(folder, pipeline):
    study(folder, pipeline, MASKS, adapt="controlnet", steps=1, conditions=["text", "mask"])
    run(*TRAINED)
    package_models(Study(), folder / "pack", Words("Nobody's."))
    assert (folder / "pack/denoiser/controlnet/diffusion_pytorch_model.safetensors").is_file()
    assert str(pipeline) not in "".join(
        p.read_text() for p in (folder / "pack").rglob("*.*") if p.suffix in (".json", ".yaml", ".md")
    )
    as_it_is = {"steps": 0, "scale": "kept"}
    study(folder, folder / "pack", MASKS, steps=0, conditions=["text", "mask"], autoencoder=as_it_is)
    params = load_params()
    denoiser = params.train_denoiser
    assert (denoiser.betas, denoiser.map_input, denoiser.prediction) == ((0.0009, 0.0125), "controlnet", "epsilon")
    assert params.train_encoders.text.padding == "read"
    run(*TRAINED[1:], "plan", "sample")
    assert len(TileStore("data/synthetic").rows()) > 0
