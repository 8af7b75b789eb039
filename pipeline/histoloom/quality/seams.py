"""Seams of a woven picture, measured where they arise: at the borders of each step's own cells.

A lattice that moves hides from a fixed grid, and the last step barely changes a picture. So each step's borders are looked at:
the gradient across them is set against the gradient elsewhere, in the finished picture. Both are taken where one latent pixel
ends and the next begins, for a decoder leaves a grid of its own there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histoloom.canvas.window_layouts import Windows


@dataclass(frozen=True)
class Gradients:
    """across, down : (h, w) mean difference between each latent pixel and the one left of it, and the one above it."""

    across: np.ndarray
    down: np.ndarray


def gradients(picture: np.ndarray, factor: int) -> Gradients:
    """Differences in a torus (h * factor, w * factor, c) at the borders of its latent pixels."""
    values = picture.astype(np.float32)
    h, w = values.shape[0] // factor, values.shape[1] // factor
    across = np.abs(values[:, ::factor] - np.roll(values, 1, 1)[:, ::factor]).mean(2)
    down = np.abs(values[::factor] - np.roll(values, 1, 0)[::factor]).mean(2)
    return Gradients(across.reshape(h, factor, w).mean(1), down.reshape(h, w, factor).mean(2))


def owners(windows: Windows, size: tuple[int, int], inset: int, origin: tuple[int, int]) -> np.ndarray:
    """(h, w) numbers, equal where the same windows gave a pixel its prediction.

    Parameters
    ----------
    origin : where on the canvas the windows' region begins.
    """
    names = np.random.default_rng(0).random(len(windows.corners))
    out, side = np.zeros(size), windows.weight.shape[1]
    for corner, weight, name in zip(windows.corners, windows.weight, names):
        rows, columns = ((c - inset + np.arange(side)) % n for c, n in zip(corner, size))
        out[np.ix_(rows, columns)] += (weight > 0) * name
    return np.roll(out, np.add(origin, inset), (0, 1))


def borders(owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) bool each: whether another cell lies left of a pixel, and above it; the canvas is a torus."""
    left, above = (~np.isclose(owner, np.roll(owner, 1, axis), rtol=0, atol=1e-9) for axis in (1, 0))
    return left, above


def seam_ratio(pictures: list[Gradients], owner_maps: list[np.ndarray]) -> float:
    """The mean gradient across borders over that elsewhere, of pictures with an owner map (h, w) each."""
    there, elsewhere = [], []
    for picture, owner in zip(pictures, owner_maps, strict=True):
        for values, border in zip((picture.across, picture.down), borders(owner)):
            there.append(values[border])
            elsewhere.append(values[~border])
    return float(np.concatenate(there).mean() / np.concatenate(elsewhere).mean())


def worst_by_chance(
    pictures: list[Gradients], owner_maps: list[list[np.ndarray]], rounds: int, rng: np.random.Generator
) -> np.ndarray:
    """(rounds,) the worst step's ratio where the borders lie at random.

    Parameters
    ----------
    owner_maps : for each step, those of the pictures; each is shifted to a random place.
    """
    out = []
    for _ in range(rounds):
        steps = []
        for maps in owner_maps:
            shifted = [np.roll(owner, rng.integers(0, owner.shape), (0, 1)) for owner in maps]
            steps.append(seam_ratio(pictures, shifted))
        out.append(max(steps))
    return np.array(out)
