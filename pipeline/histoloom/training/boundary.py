"""A mask's border counts more, and the more the less noise there is (Bozorgpour et al. 2023, "DermoSegDiff")."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

_LEAST = 0.01
"""Of the pixels, how many must differ from the commonest class, or all count alike."""


def boundary_weights(masks: torch.Tensor, levels: torch.Tensor, gamma: float) -> torch.Tensor:
    """d^p of each pixel, with p = (gamma (1 - level))^gamma. d falls from 1 at a border to 0 where a border is farthest.

    Parameters
    ----------
    masks : (b, c, h, w), class ids coded as numbers around zero. levels : (b,) from 0, data, to 1, noise.

    Returns
    -------
    (b, 1, h, w) in [0, 1]; ones where a mask has no border, or less than a hundredth of it is of another class than the rest.
    """
    codes = masks > 0
    near = torch.from_numpy(np.stack([_nearness(row) for row in codes.cpu().numpy()]))[:, None].to(masks.device)
    power = (gamma * (1 - levels.float())) ** gamma
    return near ** power.view(-1, 1, 1, 1)


def _nearness(code: np.ndarray) -> np.ndarray:
    """Bits (c, h, w) to d, (h, w) float32."""
    _, of = np.unique(code.reshape(len(code), -1), axis=1, return_inverse=True)
    counts = np.bincount(of.ravel())
    ids = of.reshape(code.shape[1:])
    if len(counts) < 2 or 1 - counts.max() / counts.sum() < _LEAST:
        return np.ones(ids.shape, np.float32)
    border = np.zeros(ids.shape, bool)
    down, across = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    for part, changes in (
        (border[1:], down),
        (border[:-1], down),
        (border[:, 1:], across),
        (border[:, :-1], across),
    ):
        part |= changes
    distance = distance_transform_edt(~border)
    return (1 - distance / max(distance.max(), 1)).astype(np.float32)
