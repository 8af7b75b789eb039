"""Classifier-free guidance over any number of conditions, as a pure function of branches.

With conditions c1..cn in their order and scales s1..sn, the prediction is

    e() + s1 (e(c1) - e()) + s2 (e(c1, c2) - e(c1)) + ...

(Brooks et al. 2023, eq. 3, for n = 2; Ho & Salimans 2022, eq. 6, for n = 1), those of scale 1 before the others.
Conditions of one scale have one branch, and a branch whose coefficient is zero is not evaluated: one scale for all,
or one scale beside 1, costs two branches and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from histoloom.config.denoiser_record import ConditionSpec

ScaleAt = Callable[[float], Callable[[str], float]]
"""Level of noise, from 0 (data) to 1 (noise), to condition to guidance scale."""


@dataclass(frozen=True)
class Branch:
    """coefficient : of the branch's prediction in the sum. names : the conditions that it is given."""

    coefficient: float
    names: frozenset[str]


def branches(specs: tuple[ConditionSpec, ...], scale: Callable[[str], float]) -> tuple[Branch, ...]:
    """The branches that guidance needs; their coefficients add up to 1.

    Parameters
    ----------
    scale : condition to guidance scale; 1 for all takes the given branch alone, 0 leaves a condition out.
    """
    groups: dict[float, list[str]] = {1.0: []}
    for spec in specs:
        groups.setdefault(scale(spec.name), []).append(spec.name)
    groups = {at: names for at, names in groups.items() if at and names}
    scales, out = [1.0, *groups, 0.0], []
    names: frozenset[str] = frozenset()
    for index, group in enumerate(([], *groups.values())):
        names = names.union(group)
        if coefficient := scales[index] - scales[index + 1]:
            out.append(Branch(coefficient, names))
    return tuple(out)
