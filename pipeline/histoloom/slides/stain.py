"""Stain normalisation, fitted once per slide so that a tile with little tissue cannot mislead it.

Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis"; Reinhard et al. 2001,
"Color transfer between images".
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from skimage.color import lab2rgb, rgb2lab

_GLASS = 240.0
_MIN_STAINED_PX = 2000
_REFERENCE_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
"""Haematoxylin and eosin, rows of unit length: the reference in common use for Macenko's method."""
_REFERENCE_CONCENTRATION = np.array([1.9705, 1.0308])
_REFERENCE_LAB = (np.array([65.0, 22.0, -10.0]), np.array([16.0, 10.0, 8.0]))

_PLACES = np.array([1, 1 << 8, 1 << 16], np.float32)
"""Of red, green and blue in a colour's code."""
_OD_LUT = (-np.log((np.arange(256) + 1) / _GLASS)).astype(np.float32)


@dataclass(frozen=True)
class Normaliser:
    """`apply` maps a tile (h, w, 3) uint8 to its normalised form; `note` says what was fitted."""

    kind: str
    note: str
    matrix: np.ndarray | None = None
    lab: tuple[np.ndarray, np.ndarray] | None = None

    def apply(self, tile: np.ndarray) -> np.ndarray:
        if self.matrix is not None:
            density = _OD_LUT.take(tile) @ self.matrix
            return np.clip(_GLASS * np.exp(-density) - 1, 0, 255).astype(np.uint8)
        if self.lab is not None:
            return _reinhard(tile, *self.lab)
        return tile

    def for_many(self) -> Normaliser | RememberedColours:
        """The same for thousands of tiles: faster, where a colour takes long. It takes up to 64 MiB then."""
        return self if self.lab is None and self.matrix is None else RememberedColours(self)


class RememberedColours:
    """A normaliser that is asked once for each colour: a colour's normalised form depends on nothing else of its tile."""

    def __init__(self, normaliser: Normaliser):
        self.note = normaliser.note
        self._normaliser = normaliser
        self._normalised = np.zeros(1 << 24, "<u4")  # red, green, blue, and 255; 0 where it wasn't asked yet

    def apply(self, tile: np.ndarray) -> np.ndarray:
        codes = (tile.reshape(-1, 3).astype(np.float32) @ _PLACES).astype(np.intp)  # exact: floats count to 2^24
        found = self._normalised[codes]
        if len(new := codes[found == 0]):
            self._ask(np.unique(new).astype("<u4"))
            found = self._normalised[codes]
        channels, out = found.view(np.uint8).reshape(*tile.shape[:2], 4), np.empty_like(tile)
        for channel in range(3):  # at once it takes four times as long
            out[..., channel] = channels[..., channel]
        return out

    def _ask(self, codes: np.ndarray) -> None:
        colours = codes.view(np.uint8).reshape(-1, 1, 4)
        answers = self._normaliser.apply(np.ascontiguousarray(colours[..., :3]))
        whole = np.concatenate([answers, np.full_like(answers[..., :1], 255)], -1)
        self._normalised[codes] = whole.view("<u4").ravel()


def _reinhard(tile: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    lab = rgb2lab(tile)
    tissue = lab[..., 0] < 90
    moved = (lab - mean) / std * _REFERENCE_LAB[1] + _REFERENCE_LAB[0]
    moved[..., 0] = np.clip(moved[..., 0], 0, 100)
    with warnings.catch_warnings():
        # colours that no screen shows are clipped
        warnings.filterwarnings("ignore", "Conversion from CIE-LAB", UserWarning)
        out = (lab2rgb(moved) * 255).round().astype(np.uint8)
    return np.where(tissue[..., None], out, tile)


def fit(kind: str, sample: np.ndarray) -> Normaliser:
    """Fit to a slide.

    Parameters
    ----------
    kind : 'none', 'macenko' or 'reinhard'.
    sample : (n, h, w, 3) uint8 tiles of the slide's tissue.

    Returns
    -------
    Normaliser; with too few stained pixels it leaves tiles as they are, and its note says so.
    """
    if kind == "none":
        return Normaliser(kind, "none")
    pixels = sample.reshape(-1, 3)
    density = _OD_LUT[pixels]
    stained = (density > 0.15).all(-1)
    if stained.sum() < _MIN_STAINED_PX:
        return Normaliser(kind, f"skipped: {int(stained.sum())} stained pixels are too few to fit to")
    if kind == "reinhard":
        lab = rgb2lab(pixels[stained][None])[0]
        return Normaliser(kind, "fitted", lab=(lab.mean(0), np.maximum(lab.std(0), 1e-3)))
    return _fit_macenko(density[stained].astype(np.float64))


def _fit_macenko(density: np.ndarray) -> Normaliser:
    if (found := macenko_stains(density)) is None:
        return Normaliser("macenko", "skipped: the two stains could not be told apart")
    stains, strongest = found
    matrix = np.linalg.pinv(stains) @ np.diag(_REFERENCE_CONCENTRATION / strongest) @ _REFERENCE_STAINS
    return Normaliser("macenko", "fitted", matrix=matrix.astype(np.float32))


def optical_density(pixels: np.ndarray) -> np.ndarray:
    """Of values (..., 3) uint8, natural logarithm, over the glass that Macenko's method assumes."""
    return _OD_LUT[pixels]


def macenko_stains(density: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Optical densities of stained pixels (n, 3) to the two stains (2, 3), haematoxylin first, and their strongest concentrations (2,);
    None where they can't be told apart."""
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]] * np.where(vectors[:, [2, 1]].sum(0) < 0, -1, 1)
    angles = np.arctan2(*(density @ plane).T[::-1])
    low, high = np.percentile(angles, [1, 99])
    ends = np.stack([plane @ [np.cos(a), np.sin(a)] for a in (low, high)])
    stains = ends if ends[0, 0] > ends[1, 0] else ends[::-1]  # haematoxylin absorbs more red
    if np.linalg.cond(stains) > 50 or (stains < -0.2).any():
        return None
    return stains, np.maximum(np.percentile(density @ np.linalg.pinv(stains), 99, axis=0), 1e-3)
