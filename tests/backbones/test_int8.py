"""Layers that multiply in integers: near to those in fp32, and a tile's values are the same whatever is computed beside it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from histoloom.backbones import precision
from histoloom.backbones.int8 import Int8Conv2d, Int8Linear, has_int8, in_int8, set_int8
from histoloom.backbones.precision import autocast_type, native
from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError
from histoloom.registry import registered

SPECS = (ConditionSpec("label", "vector", 3),)
with_integers = pytest.mark.skipif(not has_int8(), reason="this CPU does not multiply 8-bit integers itself")


def _unet(channels: int = 64) -> UNet:
    torch.manual_seed(0)
    return UNet.build(TrainDenoiser(channels=(channels, 2 * channels)), SPECS, (4, 8, 8)).eval().requires_grad_(False)


def test_what_a_cpu_would_emulate_is_computed_in_fp32_and_a_gpu_refuses(monkeypatch):
    monkeypatch.setattr(precision, "has_int8", lambda: False)
    assert native("int8", "cpu") == "fp32"
    model = _unet().freeze("cpu", precision="int8")
    assert not in_int8(model)
    monkeypatch.setattr(precision, "has_int8", lambda: True)
    assert native("int8", "cpu") == "int8" and autocast_type("int8", "cpu") is None
    with pytest.raises(HistoloomError, match="int8 is for CPUs"):
        autocast_type("int8", "cuda")
    with pytest.raises(HistoloomError, match=r"no 'int4'\. It is one of fp32, int8"):
        autocast_type("int4", "cpu")


@pytest.mark.parametrize("capability", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_int8_is_told_by_what_the_cpu_says_of_itself(monkeypatch, capability):
    found = {"avx2": True, capability: False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert not has_int8.__wrapped__()
    found[capability] = True
    assert has_int8.__wrapped__()


@with_integers
@settings(deadline=None, max_examples=25)
@given(
    scale=st.floats(1e-6, 1e6), shift=st.floats(-2, 2), stride=st.sampled_from([1, 2]), bias=st.booleans(), seed=st.integers(0, 99),
    channels_last=st.booleans(),
)  # fmt: skip
def test_layers_are_near_to_those_in_fp32(scale, shift, stride, bias, seed, channels_last):
    draw = torch.Generator().manual_seed(seed)
    conv, linear = nn.Conv2d(64, 64, 3, stride, padding=1, bias=bias), nn.Linear(64, 256, bias=bias)
    x = scale * (torch.randn(3, 64, 9, 7, generator=draw) + shift)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    rows = x.flatten(2).transpose(1, 2)
    with torch.inference_mode():
        for layer, own, given_ in ((conv, Int8Conv2d(conv), x), (linear, Int8Linear(linear), rows)):
            wanted, found = layer(given_), own(given_)
            assert found.shape == wanted.shape and found.dtype == torch.float32
            assert (found - wanted).std() < 0.03 * wanted.std()


@with_integers
def test_nothing_in_nothing_out_a_layer_of_zeros_and_a_damaged_tile():
    conv, linear = nn.Conv2d(64, 64, 3, padding=1), nn.Linear(64, 256)
    x = torch.randn(3, 64, 5, 5)
    x[1, 0, 0, 0] = torch.nan
    with torch.inference_mode():
        found = Int8Conv2d(conv)(x)
        assert found[1].isnan().all() and not found[[0, 2]].isnan().any()
        assert Int8Conv2d(conv)(x[:0]).shape == (0, 64, 5, 5) and Int8Linear(linear)(x[:0, :, 0].mT).shape == (
            0,
            5,
            256,
        )
        nn.init.zeros_(conv.weight)
        assert torch.equal(Int8Conv2d(conv)(x[:1]), conv(x[:1]))
        assert torch.equal(Int8Linear(linear)(torch.zeros(2, 3, 64)), linear(torch.zeros(2, 3, 64)))


@with_integers
def test_rows_of_whole_tiles_compute_in_fp32():
    """Of an embedding that is far larger than a label's one, integers would leave the label nothing."""
    linear, rows = nn.Linear(64, 256), torch.randn(2, 64)
    assert torch.equal(Int8Linear(linear)(rows), linear(rows))


@with_integers
def test_a_denoiser_is_near_and_a_tile_does_not_depend_on_its_batch():
    model, times = _unet(), torch.tensor([10, 700])
    latents, told = torch.randn(2, 4, 8, 8), Conditions(vector=torch.eye(3)[:2])
    with torch.inference_mode():
        full = model(latents, times, told)
        model.freeze("cpu", precision="int8")
        assert in_int8(model)
        found = model(latents, times, told)
        alone = model(latents[1:], times[1:], Conditions(vector=torch.eye(3)[1:2]))
    assert found.dtype == torch.float32 and 0 < (found - full).std() < 0.1 * full.std()
    assert (alone[0] - found[1]).abs().max() < 1e-5 * full.std(), (
        "other batches differ by the rounding of fp32's layers alone"
    )


@with_integers
@pytest.mark.parametrize("told", [{}, {"map_input": "spade"}, {"backbone": "r2unet"}, {"backbone": "swin"}])
def test_every_network_of_pictures_takes_it(told):
    torch.manual_seed(0)
    mapped = "map_input" in told
    specs = SPECS + ((ConditionSpec("mask", "map", 3),) if mapped else ())
    config = TrainDenoiser(channels=(64, 128), conditions=tuple(spec.name for spec in specs), **told)
    model = registered("backbone", config.backbone).build(config, specs, (4, 16, 16))
    for weights in (own for own in model.parameters() if not own.any()):
        nn.init.normal_(weights, std=0.02)
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([10, 700])
    given_ = Conditions(vector=torch.eye(3)[:2], **({"map": torch.randn(2, 3, 16, 16)} if mapped else {}))
    with torch.inference_mode():
        full = model.freeze("cpu")(*inputs, given_)
        found = model.freeze("cpu", precision="int8")(*inputs, given_)
    assert 0 < (found - full).std() < 0.15 * full.std()


@with_integers
def test_small_layers_grouped_ones_and_those_of_other_kinds_stay():
    class Own(nn.Linear):
        """A layer with ways of its own."""

    same = nn.Conv2d(64, 64, 3, padding="same")
    network = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(64, 64, 3, groups=64), same, Own(256, 256), nn.Linear(256, 256))
    set_int8(network, on=True)
    assert in_int8(network) == ["4"] and network[4].out_features == 256


@with_integers
def test_a_network_is_copied_pickled_saved_and_put_back():
    model, inputs = _unet(), (torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), Conditions(vector=torch.eye(3)[:2]))
    with torch.inference_mode():
        full, names = model.freeze("cpu")(*inputs), [*model.state_dict()]
        fast = model.freeze("cpu", precision="int8")(*inputs)
        assert [*model.state_dict()] == names and not torch.equal(fast, full)
        pickled = pickle.loads(pickle.dumps(model.network))  # noqa: S301
        for other in (copy.deepcopy(model.network), pickled):
            assert in_int8(other) == in_int8(model.network)
            layer = other.get_submodule(in_int8(other)[0])
            assert layer.forward.weight is layer.weight, "of its own layer"
        assert torch.equal(model.freeze("cpu", precision="fp32")(*inputs), full) and not in_int8(model)
