"""A ControlNet begins without effect, learns beside a frozen UNet, and reads no token that is masked."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
TEXT, MASK = ConditionSpec("text", "sequence", 8), ConditionSpec("mask", "map", 2, 0.1, ("background", "nucleus"))


def controlled() -> tuple[UNet, tuple[str, ...]]:
    """A UNet of text that was given a ControlNet, and the names of what is new."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = UNet.build(TrainDenoiser(channels=(8, 16), map_input="controlnet", init="another"), (TEXT,), (2, 8, 8))
        return model.refit((TEXT,), (TEXT, MASK))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def predict(model: UNet, maps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    seen = torch.tensor([[True, True, False]]).expand(2, 3)
    return model(drawn(2, 2, 8, 8), torch.tensor([100, 900]), Conditions(tokens, seen, None, maps))


def test_it_learns_the_map_while_the_unet_stays():
    model, new = controlled()
    model.train_control(new)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps, tokens = drawn(2, 2, 8, 8, seed=1), drawn(2, 3, 8, seed=2)
    first, optimiser = (
        predict(model, maps, tokens),
        torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2),
    )
    assert torch.equal(first, predict(model, -maps, tokens))
    for _ in range(3):
        optimiser.zero_grad()
        (predict(model, maps, tokens) - maps).square().mean().backward()
        optimiser.step()
    assert (predict(model, maps, tokens) - maps).square().mean() < (first - maps).square().mean()
    assert not torch.equal(predict(model, maps, tokens), predict(model, -maps, tokens))
    for name, value in model.state_dict().items():
        assert name.startswith("control.") or torch.equal(value, before[name])


def test_tokens_that_are_masked_say_nothing():
    model, _ = controlled()
    for name, parameter in model.named_parameters():
        if "controlnet_" in name:  # whose zeros would hide it
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    maps, tokens = drawn(2, 2, 8, 8, seed=1), drawn(2, 3, 8, seed=2)
    masked, read = tokens.clone(), tokens.clone()
    masked[:, 2], read[:, 1] = 9.0, 9.0
    with torch.inference_mode():
        assert torch.equal(predict(model, maps, masked), predict(model, maps, tokens))
        assert not torch.equal(predict(model, maps, read), predict(model, maps, tokens))


def test_without_a_map_there_is_nothing_to_train():
    with torch.random.fork_rng():
        model = UNet.build(TrainDenoiser(channels=(8, 16)), (TEXT,), (2, 8, 8))
    with pytest.raises(HistoloomError, match="no condition is a map"):
        model.train_control(())
