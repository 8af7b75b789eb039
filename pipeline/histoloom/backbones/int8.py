"""Layers that multiply in 8-bit integers, on a CPU with instructions for that (benchmarks/precision.py measures how much faster).

Weights have a scale for each output channel. Inputs have one for each picture of a convolution, and one for each row of a linear layer, so that a
tile's bytes don't depend on what is computed beside it. Sums are exact (Jacob et al. 2018, eq. 4, with symmetric scales).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import torch
from torch import nn

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


def use_int8(network: nn.Module) -> None:
    """Have the layers of a frozen network that gain by it multiply in integers; the others stay as they are."""
    for name, layer in [*network.named_modules()]:
        if type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros" and _gains(layer.weight):
            network.set_submodule(name, Int8Conv2d(layer))
        elif type(layer) is nn.Linear and _gains(layer.weight):
            network.set_submodule(name, Int8Linear(layer))


def _gains(weight: torch.Tensor) -> bool:
    outputs, inputs = weight.shape[:2]
    return weight.numel() / (outputs + inputs) >= _LEAST_WORK


class _Int8Layer(nn.Module, ABC):
    """A layer whose products are of integers. It keeps the weights of `layer`, for whoever reads them."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        weight = layer.weight.detach().float()
        self.scales = (weight.flatten(1).abs().amax(1) / _MOST).clamp_(min=1e-12)
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.packed = self.pack((weight / self.scales.view(-1, *(1,) * (weight.ndim - 1))).round().to(torch.int8))

    @abstractmethod
    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """int8 weights as oneDNN reads them."""

    @abstractmethod
    def products(self, integers: torch.Tensor) -> torch.Tensor:
        """Of inputs (uint8), times the weights' scales."""

    def added_up(self, x: torch.Tensor, most: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The layer's outputs. most : the largest input by magnitude, of each that has a scale; bias : in the outputs' shape."""
        scale = (most / _MOST).clamp_(min=1e-12)
        out = self.products(torch.mul(x, scale.reciprocal()).add_(_ZERO + 0.5).to(torch.uint8)).mul_(scale)
        return out if bias is None else out.add_(bias)


class Int8Conv2d(_Int8Layer):
    """(b, c, h, w) float32, in any memory format, to (b, channels, h, w)."""

    def __init__(self, layer: nn.Conv2d):
        self.shape: tuple[Any, ...] = [*layer.stride], [*layer.padding], [*layer.dilation], layer.groups
        super().__init__(layer)

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        weight = weight.contiguous(memory_format=torch.channels_last)
        return torch.ops.onednn.qconv_prepack(weight, self.scales, 1.0, _ZERO, *self.shape, None)

    def products(self, integers: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qconv2d_pointwise(
            integers, 1.0, _ZERO, self.packed, self.scales, self.zeros, None, *self.shape, *_AS_FLOATS
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        values = x.permute(0, 2, 3, 1).flatten(1)
        most = torch.maximum(values.amax(1), -values.amin(1))[:, None, None, None]
        return self.added_up(x, most, None if self.bias is None else self.bias[:, None, None])


class Int8Linear(_Int8Layer):
    """(..., inputs) float32 to (..., outputs)."""

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qlinear_prepack(weight, None)

    def products(self, integers: torch.Tensor) -> torch.Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            integers, 1.0, _ZERO, self.packed, self.scales, self.zeros, None, *_AS_FLOATS
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        most = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))
        return self.added_up(x, most, self.bias)
