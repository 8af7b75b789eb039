"""The condition bus. A condition is a sequence (b, tokens, d), a vector (b, d) or a map (b, c, h, w); nothing else.

A sequence is read by cross-attention, vectors are joined and added to the time embedding, a map is concatenated to
the latents. Each condition has a null, which stands for "not given", and a probability of being dropped to it in
training (Ho & Salimans 2022, "Classifier-free diffusion guidance").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch


@dataclass(frozen=True)
class ConditionSpec:
    """What the denoiser must know of a condition; kept beside its weights.

    shape : which of the three forms.
    size : channels of the sequence's tokens, of the vector, or of the map.
    drop : probability of the null in training.
    """

    name: str
    shape: Literal["sequence", "vector", "map"]
    size: int
    drop: float


@dataclass(frozen=True)
class Conditions:
    """A batch of conditions.

    sequence : (b, tokens, d) float, with `sequence_mask` (b, tokens) bool, or None
    vector : (b, d) float, or None
    map : (b, c, h, w) float, or None
    """

    sequence: torch.Tensor | None = None
    sequence_mask: torch.Tensor | None = None
    vector: torch.Tensor | None = None
    map: torch.Tensor | None = None

    def each(self, change) -> Conditions:
        return Conditions(
            *(None if v is None else change(v) for v in (self.sequence, self.sequence_mask, self.vector, self.map))
        )

    def to(self, device) -> Conditions:
        return self.each(lambda value: value.to(device))


def cat(batches: list[Conditions]) -> Conditions:
    """Join batches along their first axis."""

    def join(name: str):
        values = [getattr(b, name) for b in batches]
        return None if values[0] is None else torch.cat(values)

    return Conditions(*(join(name) for name in ("sequence", "sequence_mask", "vector", "map")))


def dropped(
    given: Conditions, null: Conditions, specs: tuple[ConditionSpec, ...], generator: torch.Generator
) -> Conditions:
    """Replace each condition of each row by its null with the condition's own probability.

    Parameters
    ----------
    null : one row, the nulls of all conditions.
    generator : a CPU generator; draws one number a row and condition, in the order of `specs`.
    """
    rows = next(v for v in (given.vector, given.sequence, given.map) if v is not None)
    device, out, start = rows.device, given, 0
    for spec in specs:
        gone = (torch.rand(len(rows), generator=generator) < spec.drop).to(device)
        if spec.shape == "vector":
            here = slice(start, start + spec.size)
            start += spec.size
            vector = out.vector.clone()
            vector[:, here] = torch.where(gone[:, None], null.vector[:, here], vector[:, here])
            out = replace(out, vector=vector)
        elif spec.shape == "sequence":
            sequence = torch.where(gone[:, None, None], null.sequence, out.sequence)
            out = replace(
                out, sequence=sequence, sequence_mask=torch.where(gone[:, None], null.sequence_mask, out.sequence_mask)
            )
        else:
            out = replace(out, map=torch.where(gone[:, None, None, None], null.map, out.map))
    return out
