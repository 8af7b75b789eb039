"""Masks by diffusion: learnt, kept, and the same for the same tile; what the learner is told reaches its denoiser."""

from __future__ import annotations

import numpy as np
import pytest

from histoloom.config import Params, Uplift
from histoloom.config.learners import DiffusionLearner
from histoloom.errors import HistoloomError
from histoloom.learners.dice import dice
from histoloom.learners.diffusion import DiffusionSegmenter, denoiser_config
from histoloom.learners.learner import learner_of
from histoloom.studies.code_identity import code_sha256
from tests.learners.test_learners import drawn, training_of

SMALL = DiffusionLearner(channels=(16, 32), samples=3, sampling_steps=4)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> DiffusionSegmenter:
    images, masks = drawn()
    training = training_of("diffusion", "mask", tmp_path_factory.mktemp("diffusion"), rate=5e-3, told=SMALL)
    found = learner_of("diffusion", "mask").fit(images, masks, training)
    assert isinstance(found, DiffusionSegmenter)
    return found


def test_it_learns_masks_and_says_how_far_its_samples_agree(fitted):
    images, masks = drawn()
    found, agreed = fitted.sure_masks(images)
    assert dice(found, masks, 2).mean() > 0.9
    assert set(np.unique(np.rint(agreed * 3))) <= {0, 1, 2, 3} and agreed.min() > 0 and agreed.max() == 1
    assert agreed[found != masks].mean() < agreed[found == masks].mean()


def test_it_is_kept_whole(fitted, tmp_path):
    images, _ = drawn()
    fitted.save(tmp_path)
    kept = DiffusionSegmenter.load(tmp_path)
    assert kept.told == SMALL and (kept.predict(images) == fitted.predict(images)).all()
    assert kept.predict(images[:0]).shape == (0, 16, 16)


def test_a_tile_has_its_own_noise_wherever_it_stands(fitted):
    images, _ = drawn()
    assert (
        fitted.predict(images[::-1])[::-1] == fitted.predict(images)
    ).mean() > 0.999  # a batch's order may change the last bits


def test_other_sides_than_those_it_learnt_are_read_and_odd_ones_refused(fitted):
    images = np.full((1, 24, 20, 3), 220, np.uint8)
    assert fitted.predict(images).shape == (1, 24, 20)
    with pytest.raises(HistoloomError, match="multiples of 2 px"):
        fitted.predict(images[:, :23])


def test_what_params_tell_it_reaches_its_denoiser():
    told = {"name": "diffusion", "backbone": "r2unet", "loss_weight": {"kind": "none", "boundary": 1.5}}
    config = Uplift(task="mask", learner=told).learner_config
    assert isinstance(config, DiffusionLearner)
    made = denoiser_config(config)
    assert (made.backbone, made.loss_weight.boundary, made.target.name) == ("r2unet", 1.5, "masks")
    assert made.conditions == ("picture",) and made.prediction == "sample"


def test_what_no_learner_can_be_told_is_an_error():
    for learner in (
        {"name": "diffusion", "wide": 3},
        {"name": "unet", "samples": 3},
        {"name": "vgg"},
        {"samples": 3},
        [],
        ["unet"],
        {"name": ["unet"]},
        {"name": "diffusion", "backbone": "mlp"},
    ):
        with pytest.raises(ValueError):
            Uplift(task="mask", learner=learner)


def test_its_code_counts_with_the_network_that_it_is_told():
    tile = {"mpp": 1, "labels": {"source": "slide", "classes": ["a"]}, "masks": {"classes": ["nucleus"]}}
    found = {
        name: code_sha256("uplift", Params.model_validate({"tile": tile, "uplift": {"task": "mask", "learner": name}}))
        for name in ("unet", "diffusion")
    }
    other = {"name": "diffusion", "backbone": "r2unet"}
    found["other"] = code_sha256(
        "uplift", Params.model_validate({"tile": tile, "uplift": {"task": "mask", "learner": other}})
    )
    assert len({*found.values()}) == 3
