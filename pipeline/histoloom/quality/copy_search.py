"""How near a tile is to a tile of the train split, under flips, turns, shifts, and changes of stain, focus and scale.

There are three sieves, each dearer than the one before. A perceptual hash, and a search among embedded patches of every train
tile, propose train tiles that the tile's middle might have been taken from. Registration then slides the middle over those
tiles, and compares the details of all that the two would share. A mere likeness does not survive it. All three see grey
levels without their mean and contrast, so that stain does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy.fft import dct, irfft2, rfft2
from scipy.ndimage import gaussian_filter, uniform_filter

if TYPE_CHECKING:
    import faiss

_GREY_PX = 64
_MIDDLE_PX = 32
"""Half of the tile's side, so that after a shift by a quarter of it the middle still lies on the tile it came from."""
_STEP_PX = 4
"""Between the patches of a train tile: a sixteenth of its side."""
_CODE = 64
_PER_FORM = 4
_HASH_PX = 8
_HASH_BITS = 8
"""Of 63: two tiles whose hashes differ by no more are looked at, whatever their patches."""
_REGISTERED = 6
_SCALES_PX = (61, 64, 67)
"""Sides to which a tile is scaled before it is laid over another: 5 % smaller, as it is, 5 % larger."""
_DETAIL_PX = 4.0
"""Smoother structure is taken out before tiles are compared: any two tiles at the edge of glass are alike in it."""
_LEAST_CONTRAST, _LEAST_DETAIL = 2.0, 1.0
"""Standard deviations in grey levels; below them there is nothing to slide, or to compare."""
_MOST_FLAT = 200_000
"""Up to so many patches are searched one by one. Among more, the nearest cells are searched."""
_FRACTION_SEARCHED = 0.125
"""Of the cells; at a twentieth copies are missed that are shifted, scaled and disguised at once."""
_BATCH = 64


def turned(images: np.ndarray) -> list[np.ndarray]:
    """The eight forms of a stack (n, h, w, ...) under quarter turns and mirroring."""
    quarter = [np.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    return [form for image in quarter for form in (image, image[:, :, ::-1])]


@dataclass(frozen=True)
class CopyIndex:
    """The train split, ready to be searched.

    tile_ids : (n,)
    grey : (n, 64, 64) uint8
    axes : (256, k) principal axes of the patches; for patches of unit length, their products are about correlations
    patches : faiss's index of the patches of every tile, tile by tile
    """

    tile_ids: np.ndarray
    grey: np.ndarray
    axes: np.ndarray
    patches: faiss.Index

    @cached_property
    def hashes(self) -> np.ndarray:
        """(n,) uint64"""
        return perceptual_hash(self.grey)


def build_index(tile_ids: np.ndarray, batches: Iterable[np.ndarray]) -> CopyIndex:
    """Index tiles that come in batches (b, h, w, 3) uint8."""
    grey = np.concatenate([grey_of(np.empty((0, 1, 1, 3), np.uint8)), *map(grey_of, batches)])
    some = grey[:: -(-len(grey) // 2000)] if len(grey) else np.zeros((1, _GREY_PX, _GREY_PX), np.uint8)
    patches = np.concatenate([_patches(form, _MIDDLE_PX // 2) for form in turned(some)])
    flat = patches.reshape(-1, patches.shape[-1])
    axes = np.ascontiguousarray(np.linalg.eigh(flat.T @ flat)[1][:, -_CODE:], np.float32)
    return CopyIndex(tile_ids, grey, axes, _index_patches(grey, axes))


def _index_patches(grey: np.ndarray, axes: np.ndarray) -> faiss.Index:
    import faiss

    def coded(some: np.ndarray) -> np.ndarray:
        return codes(some, axes).reshape(-1, axes.shape[1])

    count = len(grey) * _per_tile()
    flat = faiss.IndexFlatIP(axes.shape[1])
    index: faiss.Index = flat
    if count > _MOST_FLAT:
        cells = int(np.sqrt(count))
        index = faiss.IndexIVFFlat(flat, axes.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = int(np.ceil(_FRACTION_SEARCHED * cells))
        index.train(coded(grey[:: -(-count // (64 * cells))]))
    for start in range(0, len(grey), _BATCH):
        index.add(coded(grey[start : start + _BATCH]))
    return index


def codes(grey: np.ndarray, axes: np.ndarray, step_px: int = _STEP_PX) -> np.ndarray:
    """Embedded patches (n, places, k) of grey tiles (n, 64, 64)."""
    return _unit(_patches(grey, step_px) @ axes)


def copy_scores(
    images: np.ndarray, index: CopyIndex, sources: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Score tiles against the index.

    Parameters
    ----------
    sources : (n,) position in the index of the tile that each was begun from on purpose, -1 for none. It is left out, and so is what
        it is more like than the tile is: tiles that overlap it.

    Returns
    -------
    score : (n,) the highest correlation with a candidate, in [-1, 1]; 1 is a copy
    nearest : (n,) position in the index of the tile that it was found with
    """
    score, nearest = np.full(len(images), -1.0), np.zeros(len(images), int)
    if len(index.tile_ids) == 0:
        return score, nearest
    for start in range(0, len(images), _BATCH):
        grey = grey_of(images[start : start + _BATCH])
        forms = turned(grey)
        of_source = None if sources is None else _Sources(sources[start : start + _BATCH], index)
        proposed = [candidates(form, index) for form in forms]
        for row in range(len(grey)):
            tiles = np.concatenate([form[row] for form in proposed])
            which = np.repeat(np.arange(len(forms)), [len(form[row]) for form in proposed])
            likely = np.concatenate([slide(f[row], index.grey[p[row]])[0] for f, p in zip(forms, proposed)])
            if of_source is not None:
                kept = of_source.is_other(row, tiles)
                tiles, which, likely = tiles[kept], which[kept], likely[kept]
            for place in np.argsort(-likely, kind="stable")[:_REGISTERED]:
                found = register(forms[which[place]][row], index.grey[tiles[place]])
                if of_source is not None and of_source.is_nearer(row, which[place], tiles[place], found):
                    continue
                if found > score[start + row]:
                    score[start + row], nearest[start + row] = found, tiles[place]
    return score, nearest


class _Sources:
    """What tiles of a batch were begun from."""

    def __init__(self, positions: np.ndarray, index: CopyIndex):
        self.positions, self.index = positions, index
        self.forms = turned(index.grey[np.maximum(positions, 0)])

    def is_other(self, row: int, tiles: np.ndarray) -> np.ndarray:
        """Which candidates are another tile than the source."""
        return tiles != self.positions[row]

    def is_nearer(self, row: int, form: int, tile: int, found: float) -> bool:
        """Whether the source, in the same form, is as near to a candidate as the tile is."""
        return self.positions[row] >= 0 and register(self.forms[form][row], self.index.grey[tile]) >= found


def source_likeness(images: np.ndarray, index: CopyIndex, sources: np.ndarray) -> np.ndarray:
    """(n,) correlation of each tile's details with those of the tile that it was begun from; NaN where there is none."""
    grey, found = grey_of(images), np.full(len(images), np.nan)
    for row in np.flatnonzero(sources >= 0):
        found[row] = register(grey[row], index.grey[sources[row]])
    return found


def candidates(grey: np.ndarray, index: CopyIndex, count: int = _PER_FORM) -> list[np.ndarray]:
    """For each grey tile (n, 64, 64) the positions of the train tiles that its middle may have been taken from, by the
    `count` patches most like it.
    """
    edge = (_GREY_PX - _MIDDLE_PX) // 2
    middle = np.ascontiguousarray(grey[:, edge:-edge, edge:-edge])
    middles = codes(middle, index.axes, _MIDDLE_PX)[:, 0]
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())  # a task of a worker has one
    places = index.patches.search(middles, count)[1]
    hashes = perceptual_hash(grey)
    return [np.union1d(row[row >= 0] // _per_tile(), _alike(one, index, count)) for row, one in zip(places, hashes)]


def _alike(hashed: np.uint64, index: CopyIndex, count: int) -> np.ndarray:
    """Positions of the tiles whose hashes differ least, if they differ little."""
    bits = np.bitwise_count(index.hashes ^ hashed)
    near = np.argsort(bits, kind="stable")[:count]
    return near[bits[near] <= _HASH_BITS]


def register(tile: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the details that two grey tiles (64, 64) share, once the first is laid over the second where its middle
    fits best, at the scale at which it fits best; in [-1, 1].
    """
    best, picture, theirs = -1.0, Image.fromarray(np.ascontiguousarray(tile)), _details(other)
    for side in _SCALES_PX:
        scaled = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
        _, (y,), (x,) = slide(scaled, other[None])
        edge = (side - _MIDDLE_PX) // 2
        rows, columns = (slice(max(0, at - edge), min(_GREY_PX, at - edge + side)) for at in (y, x))
        shared = theirs[rows, columns]
        mine = _details(scaled)[rows.start - y + edge :, columns.start - x + edge :][
            : shared.shape[0], : shared.shape[1]
        ]
        if min(mine.std(), shared.std()) >= _LEAST_DETAIL:
            best = max(best, float(np.corrcoef(mine.ravel(), shared.ravel())[0, 1]))
    return best


def _details(grey: np.ndarray) -> np.ndarray:
    grey = grey.astype(np.float32)
    return grey - gaussian_filter(grey, _DETAIL_PX)


def slide(tile: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Highest normalised cross-correlation of a tile's middle with any place of each of the others, and that place.

    (h, h) and (n, 64, 64) uint8 to (n,) in [-1, 1], 0 where either has no contrast, and the upper left corner (n,), (n,).
    """
    edge = (len(tile) - _MIDDLE_PX) // 2
    middle = tile[edge : edge + _MIDDLE_PX, edge : edge + _MIDDLE_PX].astype(np.float32)
    spread = middle.std()
    middle = (middle - middle.mean()) / (max(spread, _LEAST_CONTRAST) * middle.size)
    others = others.astype(np.float32)
    others -= others.mean((1, 2), keepdims=True)
    size, places = (_GREY_PX, _GREY_PX), _GREY_PX - _MIDDLE_PX + 1
    product = irfft2(rfft2(others) * np.conj(rfft2(middle, size)), size)[:, :places, :places]
    inner = slice(_MIDDLE_PX // 2, _MIDDLE_PX // 2 + places)
    mean, square = (uniform_filter(o, (0, _MIDDLE_PX, _MIDDLE_PX))[:, inner, inner] for o in (others, others**2))
    theirs = np.sqrt(np.maximum(square - mean**2, 0))
    clear = (theirs >= _LEAST_CONTRAST) & (spread >= _LEAST_CONTRAST)
    found = np.where(clear, product / np.maximum(theirs, _LEAST_CONTRAST), 0).reshape(len(others), -1)
    at = found.argmax(1)
    return np.clip(found.max(1), -1, 1), at // places, at % places


def perceptual_hash(grey: np.ndarray) -> np.ndarray:
    """(n, 64, 64) to (n,) uint64: which of the lowest 8 x 8 frequencies, their mean left out, lie above their median."""
    low = dct(dct(grey.astype(np.float32), axis=1), axis=2)[:, :_HASH_PX, :_HASH_PX].reshape(len(grey), -1)[:, 1:]
    bits = low > np.median(low, 1, keepdims=True)
    return (bits.astype(np.uint64) << np.arange(bits.shape[1], dtype=np.uint64)).sum(1, dtype=np.uint64)


def grey_of(images: np.ndarray) -> np.ndarray:
    """(n, h, w, 3) uint8 to (n, 64, 64) uint8, averaged over areas."""
    if len(images) == 0:
        return np.empty((0, _GREY_PX, _GREY_PX), np.uint8)
    size = (_GREY_PX, _GREY_PX)
    pictures = [Image.fromarray(np.ascontiguousarray(image)).convert("L") for image in images]
    return np.stack([np.asarray(picture.resize(size, Image.Resampling.BOX)) for picture in pictures])


def _per_tile() -> int:
    return ((_GREY_PX - _MIDDLE_PX) // _STEP_PX + 1) ** 2


def _patches(grey: np.ndarray, step_px: int) -> np.ndarray:
    """Patches of half a tile's side, at half resolution, of zero mean and unit length: (n, h, w) to (n, places, 256)."""
    smooth = uniform_filter(grey.astype(np.float32), (0, 2, 2), origin=(0, -1, -1))
    views = np.lib.stride_tricks.sliding_window_view(smooth, (_MIDDLE_PX, _MIDDLE_PX), (1, 2))
    views = views[:, ::step_px, ::step_px, ::2, ::2]
    flat = views.reshape(len(grey), views.shape[1] * views.shape[2], -1)
    flat = flat - flat.mean(-1, keepdims=True)
    length = np.linalg.norm(flat, axis=-1, keepdims=True)
    return np.where(length < _LEAST_CONTRAST * np.sqrt(flat.shape[-1]), 0, flat / np.maximum(length, 1e-9))


def _unit(codes: np.ndarray) -> np.ndarray:
    return (codes / np.maximum(np.linalg.norm(codes, axis=-1, keepdims=True), 1e-9)).astype(np.float32)
