"""Labels and masks are read off a frozen denoiser's features."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from histoloom.backbones.denoiser import save_denoiser
from histoloom.backbones.unet import UNet
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec, DenoiserRecord, DenoiserTraining
from histoloom.config.learners import DenoiserLearner
from histoloom.config.package import root
from histoloom.data.lineage import Lineage
from histoloom.errors import HistoloomError
from histoloom.learners import denoiser
from histoloom.learners.denoiser import DenoiserFeatures, DenoiserReader, FrozenFeatures
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


def features_of(models: Path, levels: tuple[float, ...] = (0.05,)) -> FrozenFeatures:
    model = load_unconditioned(models, "cpu")
    return FrozenFeatures(DenoiserReader(model, levels, model.network.taps))


@pytest.fixture
def models(tmp_path) -> Path:
    write_denoiser(tmp_path / "models", 16)
    return tmp_path / "models"


def test_features_are_of_all_the_decoder_s_blocks_and_repeat(models):
    features = features_of(models)
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
    training = training_of("denoiser", "label", tmp_path / "work", rate=1e-2, augmentation="none", models=models)
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
        with pytest.raises(HistoloomError, match=r"needs a trained denoiser.* Run: dvc repro train_denoiser"):
            DenoiserFeatures.fit(images, masks, training_of("denoiser", "mask", tmp_path / "work", models=models))


@pytest.mark.long
def test_a_denoiser_of_latents_under_text_gives_features_at_its_latents_size():
    features = features_of(root() / "histoloom-base")
    factor = features.reader.model.target.factor
    assert features(torch.zeros(1, 3, 64, 64)).shape[2:] == (64 // factor, 64 // factor)
    with pytest.raises(HistoloomError, match=f"multiples of {factor} px"):
        features(torch.zeros(1, 3, 64, 62))


@pytest.mark.long
@pytest.mark.parametrize(
    "told", [{"levels": [0.02, 0.1], "blocks": 1}, {"tune": True}, {"tune": True, "weights": "drawn"}]
)
def test_what_it_is_told_is_learnt_and_kept_with_its_models(told, models, tmp_path):
    images, masks = drawn()
    kind = learner_of("denoiser", "mask")
    training = training_of(
        "denoiser", "mask", tmp_path / "work", rate=5e-3, models=models, told=DenoiserLearner(**told)
    )
    fitted = kind.fit(images, masks, training)
    assert dice(fitted.predict(images), masks, 2).mean() > 0.8
    fitted.save(tmp_path / "kept")
    shutil.rmtree(models)
    kept = kind.load(tmp_path / "kept")
    assert (kept.predict(images) == fitted.predict(images)).all()
    found, sure = kept.sure_masks(images)
    assert (found == kept.predict(images)).all() and 1 / 3 <= sure.min() <= sure.max() <= 1


def test_levels_and_blocks_say_how_many_features_are_read(models):
    one, two = (features_of(models, levels)(torch.zeros(1, 3, 16, 16)) for levels in ((0.05,), (0.05, 0.2)))
    assert two.shape[1] == 2 * one.shape[1] and torch.equal(two[:, : one.shape[1]], one)


def test_tuning_begins_at_the_denoiser_s_weights_or_at_new_ones(models):
    heads = {
        weights: denoiser._head(models, DenoiserLearner(tune=True, weights=weights), "mask", 2, "cpu")
        for weights in ("trained", "drawn")
    }
    own = dict(load_unconditioned(models, "cpu").network.named_parameters())
    same = {
        weights: [torch.equal(own[name], value) for name, value in head.features.network.named_parameters()]
        for weights, head in heads.items()
    }
    assert all(same["trained"]) and not any(
        alike for alike, (name, _) in zip(same["drawn"], own.items()) if name.endswith("conv1.weight")
    )


def test_an_untrained_denoiser_is_only_tuned():
    with pytest.raises(ValueError, match="weights: drawn is of tune: true"):
        DenoiserLearner(weights="drawn")


def test_a_packaged_denoiser_needs_none_of_the_study_and_its_own_lineage_counts(tmp_path):
    told = DenoiserLearner(init="histoloom-base")
    assert DenoiserFeatures.reads(told) == () and len(DenoiserFeatures.reads(None)) == 3
    assert DenoiserFeatures.saw(tmp_path, told)["groups"]
    with pytest.raises(HistoloomError, match="nowhere holds none"):
        DenoiserFeatures.saw(tmp_path, DenoiserLearner(init="nowhere"))
