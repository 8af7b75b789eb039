"""Pretraining without labels changes what sees pictures, and nothing else; other networks' weights are refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from histoloom.config.uplift import Pretraining
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.learners.learner import learner_of
from histoloom.learners.networks import drawn
from histoloom.learners.pretraining import load_start, pretrain
from tests.learners.test_learners import training_of
from tests.uplift.studies import CLASSES, write_study


@pytest.mark.parametrize(
    ("name", "task"), [("unet", "mask"), ("unet-imagenet", "mask"), ("efficientnet-lite0", "label")]
)
def test_only_the_encoder_is_trained_and_the_learner_begins_from_it(tmp_path, name, task):
    write_study(tmp_path, list(CLASSES), list(CLASSES))
    store = TileStore(tmp_path / "data/tiles")
    training = training_of(name, task, tmp_path / "work", steps=2)
    learner = learner_of(name, task)
    rows = store.rows(split="train")
    weights = pretrain(learner, training, Pretraining(steps=2, batch_size=8), store, rows)
    before = dict(drawn(lambda: learner.begun(training), training.run).named_parameters())
    assert weights and all(not torch.equal(value, before[key]) for key, value in weights.items())
    kept = [key for key in before if key not in weights]
    assert kept, "what sees no picture, such as a decoder or a head, is as it was drawn"
    save_file(weights, tmp_path / "start.safetensors")
    network = drawn(lambda: learner.begun(training), training.run)
    load_start(network, tmp_path / "start.safetensors")
    after = dict(network.named_parameters())
    assert all(torch.equal(after[key], value) for key, value in weights.items())
    assert all(torch.equal(after[key], before[key]) for key in kept)
    load_start(network, None)
    save_file({"somebody.else": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(HistoloomError, match="another network"):
        load_start(network, tmp_path / "other.safetensors")
