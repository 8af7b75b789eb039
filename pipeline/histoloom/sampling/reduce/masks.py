"""One mask of several, and how far they agree."""

from __future__ import annotations

import numpy as np

from histoloom.config.program import Reduction
from histoloom.errors import HistoloomError
from histoloom.sampling.drawn import Arrays, Drawn

AGREEMENT = "agreement"


def vote(drawn: Drawn, config: Reduction) -> Arrays:
    """The class that most samples have at each pixel (of equal counts the first), and `agreement`, their share, float32."""
    masks = _masks(drawn)
    counts = np.stack([(masks == number).sum(0) for number in range(int(masks.max()) + 1)])
    return _kept(counts.argmax(0), counts.max(0) / len(masks))


def staple(drawn: Drawn, config: Reduction) -> Arrays:
    """The classes that are likeliest, each sample weighted by how reliable it proves (Warfield et al. 2004, STAPLE); `agreement` is the
    share of samples that have that class."""
    import SimpleITK as sitk

    masks = _masks(drawn)
    found = []
    for row in range(masks.shape[1]):
        own = masks[:, row]
        if (own == own[0]).all():
            found.append(own[0])
            continue
        undecided = int(own.max()) + 1
        joiner = sitk.MultiLabelSTAPLEImageFilter()
        joiner.SetLabelForUndecidedPixels(undecided)
        joined = sitk.GetArrayFromImage(joiner.Execute([sitk.GetImageFromArray(one) for one in own]))
        counts = np.stack([(own == number).sum(0) for number in range(undecided)])
        found.append(np.where(joined == undecided, counts.argmax(0), joined))
    chosen = np.stack(found)
    return _kept(chosen, (masks == chosen).mean(0))


def _masks(drawn: Drawn) -> np.ndarray:
    """(samples, b, h, w) uint8"""
    if "mask" not in drawn.samples[0]:
        made = ", ".join(drawn.samples[0])
        raise HistoloomError(f"reduce: {drawn.program.reduce.name} is of masks, and the model makes {made}: take mean.")
    return np.stack([one["mask"] for one in drawn.samples])


def _kept(mask: np.ndarray, agreement: np.ndarray) -> Arrays:
    return {"mask": mask.astype(np.uint8), AGREEMENT: agreement.astype(np.float32)}
