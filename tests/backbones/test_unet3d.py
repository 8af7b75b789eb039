"""The UNet of volumes."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones.unet3d import UNet3D
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError

SPECS = (ConditionSpec("label", "vector", 3), ConditionSpec("mask", "map", 2), ConditionSpec("text", "sequence", 5))
TIMES = torch.tensor([10, 700])
STATED = {"target": "volumes", "backbone": "unet3d", "channels": (8, 12)}


def given(seed: int = 0) -> Conditions:
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 4, 5, generator=rng)
    held = torch.tensor([[True] * 4, [True, True, False, False]])
    return Conditions(tokens, held, torch.eye(3)[:2], torch.randn(2, 2, 8, 8, generator=rng))


@pytest.fixture
def network() -> UNet3D:
    torch.manual_seed(0)
    return UNet3D.build(TrainDenoiser(**STATED), SPECS, (1, 4, 8, 8))


def test_every_condition_and_the_time_change_what_it_predicts(network):
    x = torch.randn(2, 1, 4, 8, 8)
    out = network(x, TIMES, given())
    assert out.shape == x.shape and network.channels == 1 and network.multiple == 2
    others = given(1)
    for change in ({"sequence": others.sequence}, {"vector": torch.eye(3)[1:]}, {"map": others.map}):
        told = Conditions(**{**vars(given()), **change})
        assert not torch.allclose(network(x, TIMES, told), out)
    assert not torch.allclose(network(x, TIMES + 50, given()), out)


def test_it_knows_the_depth_of_a_section(network):
    """What is alike upside down isn't predicted so."""
    x = torch.randn(1, 1, 1, 8, 8).expand(2, 1, 4, 8, 8)
    out = network(x, TIMES, given())
    assert not torch.allclose(out.flip(2), out, atol=1e-4)


def test_a_map_lies_over_every_section(network):
    maps = given()
    moved = Conditions(
        **{**vars(maps), "map": maps.map + torch.nn.functional.pad(torch.ones(2, 2, 1, 1), (3, 4, 3, 4))}
    )
    x = torch.zeros(2, 1, 4, 8, 8)
    changed = (network(x, TIMES, moved) - network(x, TIMES, maps)).abs()[:, 0, :, 3, 3]
    assert (changed > 1e-6).all()


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_saved_predicts_the_same(network, tmp_path, frozen):
    x = torch.randn(2, 1, 4, 8, 8)
    network.save(tmp_path)
    loaded = UNet3D.load(tmp_path)
    if frozen:
        loaded.freeze("cpu")
        assert loaded.out.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(loaded(x, TIMES, given()), network(x, TIMES, given()), atol=1e-5)


def test_low_rank_updates_begin_without_effect_and_merge(network):
    x = torch.randn(2, 1, 4, 8, 8)
    before = network(x, TIMES, given())
    network.add_low_rank(2, ())
    assert torch.allclose(network(x, TIMES, given()), before)
    network.merge_low_rank()
    assert torch.allclose(network(x, TIMES, given()), before, atol=1e-5)


@pytest.mark.parametrize(
    "shape, map_input",
    [((1, 4, 9, 9), "concat"), ((1, 3, 8, 8), "concat"), ((3, 8, 8), "concat"), ((1, 4, 8, 8), "spade")],
)
def test_data_that_it_cannot_take_is_refused(shape, map_input):
    config = TrainDenoiser(**STATED, map_input=map_input)
    with pytest.raises(HistoloomError, match=r"train_denoiser\.(backbone|map_input)"):
        UNet3D.build(config, SPECS, shape)


@pytest.mark.parametrize(
    "stated",
    [
        {"target": "volumes"},
        {"backbone": "unet3d"},
        {"target": {"name": "vectors", "condition": "rna"}, "backbone": "unet3d"},
    ],
)
def test_volumes_and_their_network_go_together(stated):
    with pytest.raises(ValueError, match=r"needs backbone|diffuses vectors"):
        TrainDenoiser(**stated)
