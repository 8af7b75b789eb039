"""Labels and masks are read off a frozen denoiser's features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from histoloom.backbones.denoiser import save_denoiser
from histoloom.backbones.unet import UNet
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec, DenoiserRecord, DenoiserTraining
from histoloom.config.package import root
from histoloom.data.lineage import Lineage
from histoloom.errors import HistoloomError
from histoloom.learners.denoiser import DenoiserFeatures, FrozenFeatures
from histoloom.learners.dice import dice
from histoloom.learners.learner import learner_of
from histoloom.sampling.diffusion_model import load_unconditioned
from tests.learners.test_learners import drawn, training_of
from tests.uplift.studies import CLASSES, params_of, run_uplift, write_study

SPECS = (ConditionSpec("label", "vector", 2), ConditionSpec("mask", "map", 2))


def write_denoiser(folder: Path, px: int) -> None:
    """An untrained denoiser of pixels, under a vector and a map, that saw nobody."""
    training = DenoiserTraining("epsilon", "linear", 1000, "concat", (3, px, px), target="pixels")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        network = UNet.build(TrainDenoiser(channels=(16, 32)), SPECS, (3, px, px))
    save_denoiser(network, DenoiserRecord(SPECS, training), folder / "denoiser")
    for name in ("autoencoder", "denoiser", "encoders"):
        (folder / name).mkdir(exist_ok=True)
        Lineage().save(folder / name)


@pytest.fixture
def models(tmp_path) -> Path:
    write_denoiser(tmp_path / "models", 16)
    return tmp_path / "models"


def test_features_are_of_all_the_decoder_s_blocks_and_repeat(models):
    features = FrozenFeatures(load_unconditioned(models, "cpu"))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = features(images)
    assert found.shape == (2, 32 + 16, 16, 16) and not found.requires_grad
    assert torch.equal(found, features(images))
    assert torch.allclose(found[:1], features(images[:1]), atol=1e-4), "of a tile alone as among others"
    assert not torch.allclose(found[0], found[1], atol=1e-2)


@pytest.mark.long
def test_masks_are_learnt_and_the_denoiser_stays_as_it_was(models, tmp_path):
    images, masks = drawn()
    before = {p.name: p.read_bytes() for p in (models / "denoiser").iterdir()}
    training = training_of("denoiser", "mask", tmp_path / "work", rate=1e-2, models=models)
    fitted = learner_of("denoiser", "mask").fit(images, masks, training)
    assert dice(fitted.predict(images), masks, 2).mean() > 0.8
    assert {p.name: p.read_bytes() for p in (models / "denoiser").iterdir()} == before
    assert not any("features" in name for name in fitted.head.state_dict()), "checkpoints hold the head alone"


@pytest.mark.long
def test_labels_are_learnt(models, tmp_path):
    images, masks = drawn(32)
    truth = masks.max((1, 2)).astype(np.int64) - 1
    training = training_of("denoiser", "label", tmp_path / "work", rate=1e-2, augment=False, models=models)
    found = learner_of("denoiser", "label").fit(images, truth, training).predict(images)
    assert found.shape == (32, 2) and (found.argmax(1) == truth).mean() > 0.9


@pytest.mark.long
def test_the_experiment_takes_it(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    write_denoiser(folder / "models", 24)
    given = {"arms": ["real", "synthetic"], "seeds": 1, "learner": "denoiser", "learning_rate": 1e-2}
    found = run_uplift(params_of(steps=30, **given))
    assert all(arm["balanced_accuracy"] > 0.9 for arm in found["arms"]) and found["protocols_tried"] == 1
    Lineage(groups=("train",)).save(folder / "models/denoiser")
    assert run_uplift(params_of(steps=30, **given))["protocols_tried"] == 2, "another denoiser is another try"


def test_without_a_denoiser_it_says_how_to_get_one(tmp_path):
    images, masks = drawn()
    for models in (None, tmp_path):
        with pytest.raises(HistoloomError, match=r"needs the study's models. Run: dvc repro train_denoiser"):
            DenoiserFeatures.fit(images, masks, training_of("denoiser", "mask", tmp_path / "work", models=models))


@pytest.mark.long
def test_a_denoiser_of_latents_under_text_gives_features_at_its_latents_size():
    features = FrozenFeatures(load_unconditioned(root() / "histoloom-base", "cpu"))
    factor = features.model.target.factor
    assert features(torch.zeros(1, 3, 64, 64)).shape[2:] == (64 // factor, 64 // factor)
    with pytest.raises(HistoloomError, match=f"multiples of {factor} px"):
        features(torch.zeros(1, 3, 64, 62))
