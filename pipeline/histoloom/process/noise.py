"""Noise that depends on what it is for, never on who draws it or when."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def latent_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise, (seeds, *shape) float32; each item's from a counter-based generator of its own."""
    draws = [
        np.random.Generator(np.random.Philox(key=int(seed))).standard_normal(shape, dtype=np.float32) for seed in seeds
    ]
    return np.stack(draws) if draws else np.empty((0, *shape), np.float32)
