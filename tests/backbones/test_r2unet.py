"""The recurrent residual UNet."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones.r2unet import R2UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError

SPECS = (ConditionSpec("label", "vector", 3), ConditionSpec("mask", "map", 2), ConditionSpec("text", "sequence", 5))
TIMES = torch.tensor([10, 700])


def given(seed: int = 0) -> Conditions:
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 4, 5, generator=rng)
    held = torch.tensor([[True] * 4, [True, True, False, False]])
    return Conditions(tokens, held, torch.eye(3)[:2], torch.randn(2, 2, 8, 8, generator=rng))


@pytest.fixture
def network() -> R2UNet:
    torch.manual_seed(0)
    return R2UNet.build(TrainDenoiser(backbone="r2unet", channels=(8, 12)), SPECS, (3, 8, 8))


def test_every_condition_and_the_time_change_what_it_predicts(network):
    x = torch.randn(2, 3, 8, 8)
    out = network(x, TIMES, given())
    assert out.shape == x.shape and network.channels == 3 and network.multiple == 2
    others = given(1)
    for change in ({"sequence": others.sequence}, {"vector": torch.eye(3)[1:]}, {"map": others.map}):
        told = Conditions(**{**vars(given()), **change})
        assert not torch.allclose(network(x, TIMES, told), out)
    assert not torch.allclose(network(x, TIMES + 50, given()), out)


def test_a_unit_shares_its_convolution(network):
    """Two units, each applied twice, and no more weights than four 3 x 3 convolutions less."""
    unit = network.down[0].units[0]
    x = torch.randn(1, 8, 8, 8)
    once = torch.nn.functional.silu(unit.norm(unit.conv(x)))
    assert torch.allclose(unit(x), torch.nn.functional.silu(unit.norm(unit.conv(x + once))))


def test_what_is_saved_predicts_the_same(network, tmp_path):
    x = torch.randn(2, 3, 8, 8)
    network.save(tmp_path)
    assert torch.equal(R2UNet.load(tmp_path)(x, TIMES, given()), network(x, TIMES, given()))
    assert set(network.features(x, TIMES, given(), network.taps)) == {"up.0"}


def test_low_rank_updates_begin_without_effect_and_merge(network):
    x = torch.randn(2, 3, 8, 8)
    before = network(x, TIMES, given())
    network.add_low_rank(2, ())
    assert torch.allclose(network(x, TIMES, given()), before)
    network.merge_low_rank()
    assert torch.allclose(network(x, TIMES, given()), before, atol=1e-5)


@pytest.mark.parametrize("shape, map_input", [((3, 9, 9), "concat"), ((5,), "concat"), ((3, 8, 8), "spade")])
def test_data_that_it_cannot_take_is_refused(shape, map_input):
    config = TrainDenoiser(backbone="r2unet", channels=(8, 12), map_input=map_input)
    with pytest.raises(HistoloomError, match=r"train_denoiser\.(backbone|map_input)"):
        R2UNet.build(config, SPECS, shape)
