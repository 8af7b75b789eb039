"""EfficientNet-Lite: timm's networks give what the published weights are known to give, and the judge stays apart."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from histoloom.conditions.efficientnet_lite import load_efficientnet_lite
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config import Params
from histoloom.config.extractors import JUDGE, KNOWN_EXTRACTORS
from histoloom.errors import HistoloomError
from histoloom.training.perceptual import PerceptualDistance
from tests.build import tissue_picture

GOLDEN = Path(__file__).parents[1] / "golden/efficientnet_lite0.npz"
"""Of three pictures, what efficientnet-lite-pytorch 0.1.0 gave, whose code the weights were published with."""


@cache
def pictures() -> np.ndarray:
    return np.stack([tissue_picture(64, 64, seed) for seed in range(3)])


def test_features_are_those_of_the_code_that_the_weights_came_with():
    extractor = load_extractor("efficientnet-lite0", "cpu")
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(extractor.features(pictures()), golden["features"], atol=1e-4)
        np.testing.assert_array_equal(extractor.head[:, :2], golden["head"])


def test_the_perceptual_distance_is_that_of_the_code_that_the_weights_came_with():
    ours, theirs = (torch.from_numpy(p).movedim(3, 1) / 127.5 - 1 for p in (pictures(), pictures()[::-1].copy()))
    with np.load(GOLDEN) as golden:
        assert PerceptualDistance("cpu")(ours, theirs).item() == pytest.approx(float(golden["perceptual"]), abs=1e-4)


@pytest.mark.parametrize(
    "name, files", [("efficientnet-lite0", "efficientnet-lite2"), ("efficientnet-lite2", "efficientnet-lite0")]
)
def test_another_network_s_weights_are_refused(name, files):
    path = load_efficientnet_lite(files)[1]
    with pytest.raises(HistoloomError, match=r"its \d+ tensors are not the \d+ of EfficientNet"):
        load_extractor(name, "cpu", str(path))


def test_weights_in_another_order_are_refused_though_their_shapes_fit(tmp_path):
    state = torch.load(load_efficientnet_lite("efficientnet-lite0")[1], map_location="cpu", weights_only=True)
    names = list(state)
    mean, var = names.index("_bn0.running_mean"), names.index("_bn0.running_var")
    names[mean], names[var] = names[var], names[mean]
    torch.save({name: state[name] for name in names}, tmp_path / "weights.pth")
    with pytest.raises(HistoloomError, match="in their order"):
        load_extractor("efficientnet-lite0", "cpu", str(tmp_path / "weights.pth"))


def test_loading_draws_no_random_numbers():
    before = torch.get_rng_state()
    load_efficientnet_lite("efficientnet-lite0")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.long
def test_the_judge_knows_a_cup_of_coffee():
    judge, picture = load_extractor(JUDGE, "cpu"), data.coffee()[:, 100:500]
    features = judge.features(picture[None])
    assert features.shape == (1, 1280) and (features @ judge.head).argmax() == 967  # espresso, of ImageNet's classes


@pytest.mark.parametrize("name", [JUDGE, "timm:tf_efficientnet_lite2", "timm:hf-hub:timm/tf_efficientnet_lite2.in1k"])
@pytest.mark.parametrize("section", ["train_encoders", "train_filters"])
def test_nothing_that_is_made_or_chosen_looks_through_the_judge(section, name):
    stated = {"train_encoders": {"image": {"source": name}}, "train_filters": {"features": name}}[section]
    with pytest.raises(ValueError, match=r"judges what was made.*use efficientnet-lite0"):
        Params.model_validate({"tile": TILE, section: stated})


def test_figures_may_come_from_the_judge_and_its_weights_from_a_file():
    stated = {"features": JUDGE, "weights": "lite2.pth"}
    assert Params.model_validate({"tile": TILE, "evaluate": stated}).evaluate.features == JUDGE
    assert Params.model_validate({"tile": TILE}).evaluate.features == JUDGE


TILE = {"mpp": 0.5, "labels": {"classes": ["x"]}}


def test_of_each_extractor_it_is_said_what_it_learnt_and_under_which_licence():
    names = [known.name for known in KNOWN_EXTRACTORS]
    assert len(set(names)) == len(names) and {"efficientnet-lite0", JUDGE, "timm:"} <= set(names)
    assert all(known.trained_on and known.licence for known in KNOWN_EXTRACTORS)
