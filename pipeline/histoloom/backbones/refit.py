"""Weights for other conditions: which of a UNet's parameters are kept, which are cut anew, and which begin without effect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from histoloom.errors import HistoloomError

Channels = list[tuple[str, str]]
"""Condition and channel of each of an input's channels."""
Weights = dict[str, torch.Tensor]
_TEXT_SOCKET = re.compile(r".*\.attn2\.to_[kv]\.weight")
_SPADE = re.compile(r".*\.norm[12]\.(shared|scale_shift)\.(weight|bias)")
_SPADE_SOCKET = re.compile(r".*\.norm[12]\.shared\.weight")
_VECTOR_SOCKET = re.compile(r"\w+\.class_embedding\.linear_1\.weight")
_CONTROL_SOCKET = "control.controlnet_cond_embedding.conv_in.weight"
_FIRST = "network.conv_in.weight"


@dataclass(frozen=True)
class Inputs:
    """What the channels of a UNet's inputs stand for; `first` of its first layer: the data's, and maps that lie beside them."""

    vectors: Channels
    maps: Channels
    first: Channels

    def read_by(self, name: str) -> Channels | None:
        """The channels that a parameter reads; None of one that reads no condition's."""
        if name == _FIRST:
            return self.first
        if _VECTOR_SOCKET.fullmatch(name):
            return self.vectors
        return self.maps if name == _CONTROL_SOCKET or _SPADE_SOCKET.fullmatch(name) else None


def refitted(old: Mapping[str, torch.Tensor], new: Weights, before: Inputs, after: Inputs) -> tuple[Weights, list[str]]:
    """The weights of a network with other inputs.

    Parameters
    ----------
    old : of the network that is known. new : of the other one, as it was made.

    Returns
    -------
    The weights, and the names of those that are new in part or whole.

    Raises
    ------
    HistoloomError
        when the networks differ in more than their inputs.
    """
    out, names = dict[str, torch.Tensor](), list[str]()
    for name, value in new.items():
        known, had, has = _known(name, old), before.read_by(name), after.read_by(name)
        if had and has and had != has and known is not None:
            out[name] = _matched(known, had, has)
            names.append(name)
        elif known is not None and known.shape == value.shape:
            out[name] = known
        elif ".class_embedding." in name:
            out[name] = torch.zeros_like(value) if "linear_2" in name else value
            names.append(name)
        elif _TEXT_SOCKET.fullmatch(name) or _SPADE.fullmatch(name):
            out[name] = value
            names.append(name)
        else:
            raise HistoloomError(f"train_denoiser.init holds no '{name}' of shape {tuple(value.shape)}.")
    return out, names


def _known(name: str, old: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """The known parameter: a norm's lies within a SPADE norm, where there is one."""
    plain = re.sub(r"(\.norm[12])\.norm\.(weight|bias)$", r"\1.\2", name)
    within = re.sub(r"(\.norm[12])\.(weight|bias)$", r"\1.norm.\2", name)
    return next((old[one] for one in (name, plain, within) if one in old), None)


def _matched(old: torch.Tensor, before: Channels, after: Channels) -> torch.Tensor:
    """The columns (axis 1) of `old` that `after` names, zeros where `before` has none."""
    place = {channel: number for number, channel in enumerate(before)}
    columns = [old[:, place[c]] if c in place else torch.zeros_like(old[:, 0]) for c in after]
    return torch.stack(columns, 1)
