"""Every target: data of the stated shape, and the arrays back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from histoloom.config import TrainAutoencoder
from histoloom.registry import PLACES, registered
from histoloom.targets.autoencoder import build_autoencoder
from histoloom.targets.latents import save_latent_scale
from histoloom.targets.target import Target

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(params=sorted(PLACES["target"]))
def target(request, tmp_path) -> Target:
    build_autoencoder(TrainAutoencoder(channels=16)).save_pretrained(tmp_path)
    save_latent_scale(tmp_path, torch.zeros(4), torch.ones(4))
    return registered("target", request.param).load(tmp_path, "cpu")


def test_data_has_the_stated_shape_and_gives_arrays_of_the_same_form(target):
    assert target.reads == ("image",)
    data = target.encode({"image": IMAGES})
    assert data.shape == (3, target.channels, 32 // target.factor, 32 // target.factor)
    assert data.dtype == torch.float32 and data.device.type == "cpu"
    found = target.decode(data)["image"]
    assert found.shape == IMAGES.shape and found.dtype == np.uint8


def test_pixels_are_given_back_to_the_bit():
    pixels = registered("target", "pixels").load("nowhere", "cpu")
    assert (pixels.decode(pixels.encode({"image": IMAGES}))["image"] == IMAGES).all()


def test_no_pixel_beyond_its_reach_shows(target):
    data = target.encode({"image": IMAGES[:1]})
    changed = data.clone()
    changed[..., 0] += 1
    differs = (target.decode(data)["image"] != target.decode(changed)["image"]).any((0, 1, 3))
    assert differs.any() and not differs[(target.reach + 1) * target.factor :].any()
