"""Masks whose nuclei are told apart: beside the class of each pixel, how deep it lies in its nucleus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects, label
from skimage.segmentation import relabel_sequential, watershed
from torch.nn import functional as F

from histoloom.data.nuclei_layout import outlines
from histoloom.targets.masks import Masks
from histoloom.targets.target import Arrays

_SEED_DEPTH = 0.5


@dataclass(frozen=True)
class Instances(Masks):
    """The channels of `Masks`, and one more: the distance from a nucleus' border, over its largest, from -1 to 1.

    Nuclei are found again by a watershed of that distance, which begins where it exceeds a half. Regions that no instance covers
    stay as the mask has them.
    """

    reads: ClassVar[tuple[str, ...]] = ("mask", "instance")
    makes: ClassVar[tuple[str, ...]] = ("mask", "instance", "edge")

    @property
    def channels(self) -> int:
        return self.code_size + 1

    def encode(self, arrays: Arrays) -> torch.Tensor:
        depth = torch.from_numpy(np.stack([depths(numbers) for numbers in arrays["instance"]]))[:, None]
        return torch.cat([super().encode(arrays), F.avg_pool2d(depth, self.factor) * 2 - 1], 1)

    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        ids, depth = self.classes_of(data[:, :-1]), (data[:, -1].float().cpu().numpy() + 1) / 2
        numbers = np.stack([parted(of, each) for of, each in zip(ids, depth)])
        fine = {"mask": ids, "instance": numbers}
        out = {name: values.repeat(self.factor, 1).repeat(self.factor, 2) for name, values in fine.items()}
        return out | {"edge": np.stack([outlines(numbers) for numbers in out["instance"]])}


def depths(instance: np.ndarray) -> np.ndarray:
    """Instance numbers (h, w) to how deep each pixel lies in its nucleus, (h, w) float32 from 0 outside to 1."""
    out = np.zeros(instance.shape, np.float32)
    dense, *_ = relabel_sequential(instance)
    for number, place in enumerate(find_objects(dense), 1):
        distance = distance_transform_edt(np.pad(dense[place] == number, 1))[1:-1, 1:-1]
        out[place] = np.maximum(out[place], distance / distance.max())
    return out


def parted(ids: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Class ids and depths (h, w) to instance numbers (h, w) int32; every region of a class with a deep place is a nucleus or more."""
    out, count = np.zeros(ids.shape, np.int32), 0
    for of_class in np.unique(ids[ids > 0]):
        within = ids == of_class
        seeds, found = label(within & (depth > _SEED_DEPTH))
        out += np.where(numbers := watershed(-depth, seeds, mask=within), numbers + count, 0).astype(np.int32)
        count += found
    return out
