"""The UNet of shifted windows."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones.swin import WINDOW, Attention, Swin
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
    return Conditions(tokens, held, torch.eye(3)[:2], torch.randn(2, 2, 16, 16, generator=rng))


@pytest.fixture
def network() -> Swin:
    torch.manual_seed(0)
    return Swin.build(TrainDenoiser(backbone="swin", channels=(8, 12)), SPECS, (3, 16, 16))


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(8, 2, 6)


def reached(attention: Attention, shifted: bool, patch: tuple[int, int]) -> torch.Tensor:
    """Which patches of (12, 12) change with one of them."""
    before, told = torch.randn(1, 12, 12, 8), torch.randn(1, 6)
    after = before.clone()
    after[0, patch[0], patch[1]] += 1
    return (attention(after, told, shifted) != attention(before, told, shifted)).any(-1)[0]


def test_every_condition_and_the_time_change_what_it_predicts(network):
    x = torch.randn(2, 3, 16, 16)
    out = network(x, TIMES, given())
    assert out.shape == x.shape and network.channels == 3 and network.multiple == 8
    others = given(1)
    for change in ({"sequence": others.sequence}, {"vector": torch.eye(3)[1:]}, {"map": others.map}):
        told = Conditions(**{**vars(given()), **change})
        assert not torch.allclose(network(x, TIMES, told), out)
    assert not torch.allclose(network(x, TIMES + 50, given()), out)


def test_patches_read_those_of_their_window_alone(attention):
    there = reached(attention, False, (5, 2))
    assert there[4:8, :4].all() and there.sum() == WINDOW**2


def test_a_rolled_window_keeps_opposite_borders_apart(attention):
    """The last window of a rolled picture joins its four corners."""
    there = reached(attention, True, (9, 9))
    assert there[8:10, 8:10].all() and there.sum() == WINDOW**2 // 4
    assert reached(attention, True, (1, 1)).sum() == WINDOW**2


def test_every_window_reads_the_token(attention):
    x = torch.randn(1, 12, 12, 8)
    assert (attention(x, torch.ones(1, 6), False) != attention(x, torch.zeros(1, 6), False)).any(-1).all()


def test_the_bias_depends_on_how_patches_lie_to_each_other(attention):
    place = attention.place
    assert place[0, 1] == place[5, 6] != place[1, 0] and place[0, WINDOW] == place[1, WINDOW + 1]
    assert len(place[:-1, :-1].unique()) == (2 * WINDOW - 1) ** 2
    assert len({*place[:-1, -1].tolist(), *place[-1, :-1].tolist(), int(place[-1, -1])}) == 3


def test_shifted_windows_carry_what_is_known_across(network):
    """One window of the coarsest level is the whole picture, so everything reaches everything."""
    x = torch.randn(2, 3, 16, 16)
    other = x.clone()
    other[:, :, 0, 0] += 3
    assert (network(x, TIMES, given()) != network(other, TIMES, given())).all()


def test_sides_may_differ_from_those_that_it_was_built_for(network):
    maps = torch.randn(2, 2, 24, 8)
    told = Conditions(**{**vars(given()), "map": maps})
    assert network(torch.randn(2, 3, 24, 8), TIMES, told).shape == (2, 3, 24, 8)


def test_what_is_saved_predicts_the_same(network, tmp_path):
    x = torch.randn(2, 3, 16, 16)
    network.save(tmp_path)
    assert torch.equal(Swin.load(tmp_path)(x, TIMES, given()), network(x, TIMES, given()))
    found = network.features(x, TIMES, given(), network.taps)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "down.1": (2, 12, 8, 8), "up.0": (2, 8, 16, 16)
    }  # fmt: skip


def test_low_rank_updates_begin_without_effect_and_merge(network):
    x = torch.randn(2, 3, 16, 16)
    before = network(x, TIMES, given())
    network.add_low_rank(2, ())
    assert any("lora" in name for name, _ in network.named_parameters())
    assert torch.allclose(network(x, TIMES, given()), before)
    network.merge_low_rank()
    assert torch.allclose(network(x, TIMES, given()), before, atol=1e-5)


@pytest.mark.parametrize("shape, map_input", [((3, 12, 12), "concat"), ((5,), "concat"), ((3, 16, 16), "spade")])
def test_data_that_it_cannot_take_is_refused(shape, map_input):
    config = TrainDenoiser(backbone="swin", channels=(8, 12), map_input=map_input)
    with pytest.raises(HistoloomError, match=r"train_denoiser\.(backbone|map_input)"):
        Swin.build(config, SPECS, shape)
