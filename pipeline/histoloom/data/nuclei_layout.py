"""Masks of nuclei: their outlines, and layouts that no slide has, made of real nuclei. Pure.

A mask (h, w) uint8 holds class ids, 0 for background; an instance map (h, w) int32 holds a number for each nucleus,
0 for none. A nucleus has the class that most of its pixels have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, find_objects

_TRIES = 40


def outlines(instance: np.ndarray) -> np.ndarray:
    """(h, w) uint8, 1 where a nucleus' pixel has a neighbour (of four) with another number; a border is none."""
    out = np.zeros(instance.shape, bool)
    across, down = instance[:, 1:] != instance[:, :-1], instance[1:] != instance[:-1]
    out[:, 1:] |= across
    out[:, :-1] |= across
    out[1:] |= down
    out[:-1] |= down
    return (out & (instance > 0)).astype(np.uint8)


@dataclass(frozen=True)
class Nucleus:
    """shape : (h, w) bool, its pixels in their bounding box. class_id : its class."""

    shape: np.ndarray
    class_id: int


@dataclass(frozen=True)
class NucleiLayout:
    """A tile's mask and instance map, each (h, w)."""

    mask: np.ndarray
    instance: np.ndarray

    def nuclei(self) -> dict[int, Nucleus]:
        """Number to nucleus, those that the border cuts left out."""
        out = {}
        for number, box in enumerate(find_objects(self.instance), 1):
            if box is None or not all(s.start > 0 and s.stop < n for s, n in zip(box, self.instance.shape)):
                continue
            shape = self.instance[box] == number
            out[number] = Nucleus(shape, int(np.bincount(self.mask[box][shape]).argmax()))
        return out

    def without(self, numbers: Sequence[int]) -> NucleiLayout:
        """Remove nuclei; what they leave takes the commonest class around them."""
        mask, instance = self.mask.copy(), self.instance.copy()
        for number in numbers:
            here = instance == number
            around = binary_dilation(here, iterations=2) & (instance == 0)
            mask[here] = np.bincount(mask[around]).argmax() if around.any() else 0
            instance[here] = 0
        return NucleiLayout(mask, instance)

    def with_nuclei(self, added: Sequence[Nucleus], rng: np.random.Generator) -> NucleiLayout:
        """Put nuclei where there is room, a pixel apart from all others; those that find no room are left out."""
        mask, instance = self.mask.copy(), self.instance.copy()
        taken, number = binary_dilation(instance > 0), int(instance.max())
        for nucleus in added:
            h, w = nucleus.shape.shape
            if h >= mask.shape[0] or w >= mask.shape[1]:
                continue
            for _ in range(_TRIES):
                y, x = rng.integers(0, mask.shape[0] - h + 1), rng.integers(0, mask.shape[1] - w + 1)
                box = np.s_[y : y + h, x : x + w]
                if not (taken[box] & nucleus.shape).any():
                    number += 1
                    mask[box][nucleus.shape] = nucleus.class_id
                    instance[box][nucleus.shape] = number
                    taken |= binary_dilation(instance == number)
                    break
        return NucleiLayout(mask, instance)


def swapped(layout: NucleiLayout, classes: Mapping[int, int]) -> NucleiLayout:
    """Give every pixel of a class another class (Ottl et al. 2024 balance rare subtypes so); nuclei of what becomes background go."""
    table = np.arange(256, dtype=np.uint8)
    for old, new in classes.items():
        table[old] = new
    mask = table[layout.mask]
    gone = (mask == 0) & (layout.mask > 0)
    return NucleiLayout(mask, np.where(gone, 0, layout.instance) if gone.any() else layout.instance)


def multiplied(
    layout: NucleiLayout, class_id: int, times: float, donors: Sequence[Nucleus], rng: np.random.Generator
) -> NucleiLayout:
    """Have `times` as many nuclei of a class, added ones from `donors`, as far as there is room."""
    mine = [number for number, nucleus in layout.nuclei().items() if nucleus.class_id == class_id]
    change = round(len(mine) * (times - 1))
    if change <= 0:
        return layout.without(rng.permutation(mine)[:-change].tolist() if change else [])
    chosen = [donors[i] for i in rng.integers(0, len(donors), change)] if donors else []
    return layout.with_nuclei(chosen, rng)


def scattered(layout: NucleiLayout, donors: Sequence[Nucleus], rng: np.random.Generator) -> NucleiLayout:
    """A new layout: as many whole nuclei of each class as there were, of other shapes and at other places, where train has some."""
    mine = layout.nuclei()
    numbers = [int(n) for n in np.unique(layout.instance) if n]
    by_class: dict[int, list[Nucleus]] = {}
    for donor in donors:
        by_class.setdefault(donor.class_id, []).append(donor)
    chosen = [
        by_class[n.class_id][rng.integers(len(by_class[n.class_id]))] for n in mine.values() if n.class_id in by_class
    ]
    return layout.without(numbers).with_nuclei(sorted(chosen, key=lambda n: -n.shape.sum()), rng)
