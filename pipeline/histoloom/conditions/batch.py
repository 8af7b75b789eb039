"""A batch of conditions. Each is a sequence (b, tokens, d), a vector (b, d) or a map (b, c, h, w).

A sequence is read by cross-attention, vectors are joined and added to the time embedding, maps are joined and
concatenated to the latents or read by SPADE. Each condition has a null, which stands for "not given", and a
probability of being dropped to it in training (Ho & Salimans 2022, "Classifier-free diffusion guidance").
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch

from histoloom.config.channels import read_channels
from histoloom.config.denoiser_record import ConditionSpec


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

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditions:
        return Conditions(
            *(None if v is None else change(v) for v in (self.sequence, self.sequence_mask, self.vector, self.map))
        )

    def to(self, device: torch.device | str) -> Conditions:
        return self.each(lambda value: value.to(device))


def cat(batches: list[Conditions]) -> Conditions:
    """Join batches along their first axis."""

    def join(name: str) -> torch.Tensor | None:
        values = [getattr(b, name) for b in batches]
        return None if values[0] is None else torch.cat(values)

    return Conditions(*(join(name) for name in ("sequence", "sequence_mask", "vector", "map")))


def nulled(given: Conditions, null: Conditions, specs: tuple[ConditionSpec, ...], gone: torch.Tensor) -> Conditions:
    """Replace conditions by their nulls.

    Parameters
    ----------
    null : one row, the nulls of all conditions.
    gone : (conditions, b) bool, in the order of `specs`.
    """
    out, starts = given, {"vector": 0, "map": 0}
    for spec, out_of_use in zip(specs, gone):
        if spec.shape == "sequence":
            assert out.sequence is not None and out.sequence_mask is not None
            assert null.sequence is not None and null.sequence_mask is not None
            out = replace(
                out,
                sequence=torch.where(out_of_use[:, None, None], null.sequence, out.sequence),
                sequence_mask=torch.where(out_of_use[:, None], null.sequence_mask, out.sequence_mask),
            )
            continue
        here = slice(starts[spec.shape], starts[spec.shape] + spec.size)
        starts[spec.shape] = here.stop
        value = getattr(out, spec.shape).clone()
        rows = out_of_use.view(-1, *(1,) * (value.ndim - 1))
        value[:, here] = torch.where(rows, getattr(null, spec.shape)[:, here], value[:, here])
        out = replace(out, **{spec.shape: value})
    return out


def dropped(
    given: Conditions, null: Conditions, specs: tuple[ConditionSpec, ...], generator: torch.Generator
) -> Conditions:
    """Replace each condition of each row by its null with the condition's own probability.

    Parameters
    ----------
    generator : a CPU generator; draws one number a row and condition, in the order of `specs`.
    """
    if not specs:
        return given
    rows = _any(given)
    gone = torch.stack([torch.rand(len(rows), generator=generator) < spec.drop for spec in specs])
    return nulled(given, null, specs, gone.to(rows.device))


def augmented(
    given: Conditions, specs: tuple[ConditionSpec, ...], levels: Mapping[str, torch.Tensor], noise: torch.Tensor
) -> Conditions:
    """Add noise to pictures that are given, and tell the network how much (Ho et al. 2022, cascaded diffusion models, section 4.2).

    Parameters
    ----------
    levels : condition to the noise's standard deviation, (b,); its last channels tell them. noise : standard normal, as the map.
    """
    if given.map is None or not levels:
        return given
    out, start = given.map.clone(), 0
    for spec in (spec for spec in specs if spec.shape == "map"):
        stop = start + spec.size
        if spec.name in levels:
            told = stop - read_channels(spec.channels)[1] ** 2
            level = levels[spec.name].view(-1, 1, 1, 1)
            out[:, start:told] += level * noise[:, start:told]
            out[:, told:stop] = level
        start = stop
    return replace(given, map=out)


def only(given: Conditions, null: Conditions, specs: tuple[ConditionSpec, ...], names: Collection[str]) -> Conditions:
    """The named conditions as given, all others null."""
    if not specs:
        return given
    rows = _any(given)
    gone = torch.tensor([spec.name not in names for spec in specs], device=rows.device)
    return nulled(given, null, specs, gone[:, None].expand(-1, len(rows)))


def _any(conditions: Conditions) -> torch.Tensor:
    return next(v for v in (conditions.vector, conditions.sequence, conditions.map) if v is not None)
