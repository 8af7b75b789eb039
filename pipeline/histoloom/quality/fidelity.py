"""How near a restored tile is to the truth: PSNR, SSIM (Wang et al. 2004) and FSIM (Zhang et al. 2011), by piq."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

_AT_ONCE = 64
_MOST_PSNR = 60.0
"""Of a tile that is the truth to the bit, dB."""


class Fidelity(NamedTuple):
    """Of each tile, (n,) float64. psnr : dB, 60 at most. ssim, fsim : 1 is the same; FSIM of colours."""

    psnr: np.ndarray
    ssim: np.ndarray
    fsim: np.ndarray


def fidelity(restored: np.ndarray, truth: np.ndarray) -> Fidelity:
    """Compare tiles (n, h, w, 3) uint8 with their truth; their sides are 16 px at least."""
    import piq

    found = []
    for start in range(0, len(truth), _AT_ONCE):
        ours, theirs = (_to_unit(tiles[start : start + _AT_ONCE]) for tiles in (restored, truth))
        error = (ours - theirs).pow(2).mean((1, 2, 3))
        psnr = (-10 * error.clamp(min=1e-12).log10()).clamp(max=_MOST_PSNR)
        sides = ours.shape[-1]
        ssim = piq.ssim(ours, theirs, kernel_size=min(11, sides - 1 + sides % 2), reduction="none")
        found.append(torch.stack([psnr, ssim, piq.fsim(ours, theirs, reduction="none")]))
    return Fidelity(*torch.cat(found, 1).double().numpy())


def psnr_inside(restored: np.ndarray, truth: np.ndarray, where: np.ndarray) -> np.ndarray:
    """PSNR of each tile (n, h, w, 3) uint8 in a region (n, h, w) bool that no tile lacks, (n,) dB, 60 at most."""
    error = ((restored.astype(np.float64) - truth) ** 2).mean(-1)
    inside = np.array([tile[region].mean() for tile, region in zip(error, where)])
    return np.minimum(10 * np.log10(255**2 / np.maximum(inside, 1e-9)), _MOST_PSNR)


def _to_unit(tiles: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2).float() / 255
