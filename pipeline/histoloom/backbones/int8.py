"""Layers that multiply in 8-bit integers, on a CPU with instructions for that (benchmarks/precision.py measures how much faster).

Weights have a scale for each output channel. Inputs have one for each picture of a convolution, and one for each row of a linear layer, so that a
tile's bytes don't depend on what is computed beside it. Sums are exact (Jacob et al. 2018, eq. 4, with symmetric scales).

A linear layer of one row for each tile computes in fp32: it is of times and vector conditions, of which one may be far larger than another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_MOST, _ZERO = 127, 128
"""The largest integer of a weight or an input, and how oneDNN's unsigned inputs stand for zero."""
_LEAST_WORK = 50
"""Products for each value that goes in or comes out: layers of fewer lose more by turning values into integers than they gain."""
_AS_FLOATS: tuple[Any, ...] = 1.0, 0, torch.float32, "none", [], ""
"""Of oneDNN's layers: outputs in fp32, and nothing done with them."""


@cache
def has_int8() -> bool:
    """Whether this CPU multiplies 8-bit integers itself, and torch can have it do so."""
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    instructions = any(found.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))
    known = all(hasattr(torch.ops.onednn, name) for name in ("qconv2d_pointwise", "qlinear_pointwise"))
    return bool(instructions) and known and torch.backends.mkldnn.is_available()


def set_int8(network: nn.Module, *, on: bool) -> None:
    """Have the layers of a frozen network that gain by it multiply in integers, or no more. Weights, names and kinds of layers stay."""
    for layer in network.modules():
        if isinstance(vars(layer).get("forward"), Int8Layer):
            del layer.forward
        if on and _gains(layer):
            layer.forward = Int8Conv2d(layer) if isinstance(layer, nn.Conv2d) else Int8Linear(layer)  # type: ignore


def in_int8(network: nn.Module) -> list[str]:
    """The names of the layers that multiply in integers."""
    return [name for name, layer in network.named_modules() if isinstance(vars(layer).get("forward"), Int8Layer)]


def _gains(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    else:
        plain = type(layer) is nn.Linear
    return plain and layer.weight.numel() / sum(layer.weight.shape[:2]) >= _LEAST_WORK  # type: ignore


class Int8Layer(ABC):
    """What a layer computes, its products of integers. It can be copied and pickled: what oneDNN packed is packed again."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        self.weight, self.bias = layer.weight, layer.bias
        weight = layer.weight.detach().float()
        self.scales = (weight.flatten(1).abs().amax(1) / _MOST).clamp_(min=1e-12)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.integers = (weight / self.scales.view(-1, *(1,) * (weight.ndim - 1))).round().to(torch.int8)
        self.packed = self.pack()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.packed = self.pack()

    @abstractmethod
    def pack(self) -> torch.Tensor:
        """The integers of the weights, as oneDNN reads them."""

    @abstractmethod
    def products(self, integers: torch.Tensor) -> torch.Tensor:
        """Of inputs (uint8), times the weights' scales."""

    def added_up(self, x: torch.Tensor, most: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The layer's outputs. most : the largest input by magnitude, of each that has a scale; bias : in the outputs' shape."""
        scale = (most / _MOST).clamp_(min=1e-12)
        out = self.products(torch.mul(x, scale.reciprocal()).add_(_ZERO + 0.5).to(torch.uint8)).mul_(scale)
        return out if bias is None else out.add_(bias)


class Int8Conv2d(Int8Layer):
    """(b, c, h, w) float32, in any memory format, to (b, channels, h, w)."""

    def __init__(self, layer: nn.Conv2d):
        self.shape: tuple[Any, ...] = [*layer.stride], [*layer.padding], [*layer.dilation], layer.groups
        super().__init__(layer)

    def pack(self) -> torch.Tensor:
        weight = self.integers.contiguous(memory_format=torch.channels_last)
        return torch.ops.onednn.qconv_prepack(weight, self.scales, 1.0, _ZERO, *self.shape, None)

    def products(self, integers: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            integers, 1.0, _ZERO, self.packed, self.scales, self.zeros, None, *self.shape, *_AS_FLOATS
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or not x.numel():
            return F.conv2d(x, self.weight, self.bias, *self.shape)
        x = x.contiguous(memory_format=torch.channels_last)
        values = x.permute(0, 2, 3, 1).flatten(1)
        most = torch.maximum(values.amax(1), -values.amin(1))[:, None, None, None]
        return self.added_up(x, most, None if self.bias is None else self.bias[:, None, None])


class Int8Linear(Int8Layer):
    """(b, ..., inputs) float32 to (b, ..., outputs)."""

    def pack(self) -> torch.Tensor:
        return torch.ops.onednn.qlinear_prepack(self.integers, None)

    def products(self, integers: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            integers, 1.0, _ZERO, self.packed, self.scales, self.zeros, None, *_AS_FLOATS
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim < 3 or not x.numel():
            return F.linear(x, self.weight, self.bias)
        most = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))
        return self.added_up(x, most, self.bias)
