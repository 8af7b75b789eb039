"""SPADE begins as the norm that it replaces, follows its map, and is saved with the denoiser."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest
import torch

from histoloom.backbones.denoiser import load_denoiser, save_denoiser
from histoloom.backbones.spade import SpadeNorm
from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec, DenoiserRecord, DenoiserTraining

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")

SPECS = (ConditionSpec("mask", "map", 2, 0.1, ("background", "nucleus")),)


def unet(map_input: str) -> UNet:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return UNet.build(TrainDenoiser(channels=(8, 16), map_input=map_input, init="another"), SPECS, (2, 8, 8)).eval()


def predict(model: torch.nn.Module, value: torch.Tensor) -> torch.Tensor:
    latents = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(latents, torch.tensor([500] * 3), Conditions(map=value))


def maps(seed: int) -> torch.Tensor:
    return torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_new_spade_norms_change_nothing_and_trained_ones_follow_the_map():
    model = unet("spade")
    assert torch.equal(predict(model, maps(2)), predict(model, maps(3)))
    for name, parameter in model.named_parameters():
        if "scale_shift" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    assert (predict(model, maps(2)) - predict(model, maps(3))).abs().max() > 1e-3


def test_a_map_is_that_of_the_thread_that_predicts():
    """A worker of several threads has one model."""
    model = unet("spade")
    for name, parameter in model.named_parameters():
        if "scale_shift" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    alone, meet, found = [predict(model, maps(n)) for n in (2, 3)], Barrier(2), {}
    for module in model.modules():
        if isinstance(module, SpadeNorm):  # both are in the midst of a forward
            module.register_forward_pre_hook(lambda *_: (meet.wait(60), None)[1])

    def work(number: int) -> None:
        found[number] = predict(model, maps(number))

    threads = [Thread(target=work, args=(number,)) for number in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[2], alone[0]) and torch.equal(found[3], alone[1])


@pytest.mark.parametrize("map_input", ["concat", "spade", "controlnet"])
def test_a_denoiser_with_a_map_is_loaded_as_it_was_saved(tmp_path, map_input):
    model = unet(map_input)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    written = DenoiserRecord(SPECS, DenoiserTraining("epsilon", "linear", 100, map_input, (2, 8, 8)))
    save_denoiser(model, written, tmp_path)
    loaded, record = load_denoiser(tmp_path, "cpu")
    assert record == written
    assert torch.equal(predict(loaded, maps(2)), predict(model.freeze("cpu"), maps(2)))
