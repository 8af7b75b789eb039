"""Small polygons as rasters that have their area: a nucleus of 7 px that pixel centres decide is 5 to 9.

Each loses the border pixels whose centres are nearest to its outline, or gains such neighbours. Where its area is no
whole number of pixels, it is rounded up for such a fraction of the polygons that all of them together are right.
"""

from __future__ import annotations

import numpy as np
import shapely

LARGEST_PX2, LONGEST_PX = 128, 20
"""Of larger polygons, centres tell the area well."""
_LEAST_PX2 = 1 / 64
"""Smaller polygons are specks, or of another scale."""
_AT_ONCE = 4096
_TOLERANCE = 0.02
_GOLDEN = (5**0.5 - 1) / 2
_LEAST = 1e-6


def are_small_and_apart(polygons: np.ndarray, downsample: float) -> np.ndarray:
    """(n,) bool: those without holes near which no other outline runs, so that what they gain or lose is nobody else's."""
    bounds = shapely.bounds(polygons).reshape(-1, 4) / downsample
    small = (shapely.area(polygons) < LARGEST_PX2 * downsample**2) & (shapely.get_num_interior_rings(polygons) == 0)
    small &= (shapely.area(polygons) >= _LEAST_PX2 * downsample**2) & (
        (bounds[:, 2:] - bounds[:, :2]) < LONGEST_PX
    ).all(1)
    small[_crowded(bounds, np.flatnonzero(small))] = False
    places = np.flatnonzero(small)
    if not len(places):
        return small
    tree = shapely.STRtree(polygons)
    for start in range(0, len(places), _AT_ONCE):
        some = places[start : start + _AT_ONCE]
        frames = shapely.box(*((bounds[some] + np.array([-2, -2, 2, 2])) * downsample).T)
        mine, other = tree.query(frames)
        mine, other = mine[some[mine] != other], other[some[mine] != other]
        shapely.prepare(polygons[other])
        near = shapely.intersects(polygons[other], frames[mine])
        near &= ~shapely.contains_properly(polygons[other], frames[mine])
        small[some[mine[near]]] = False
    return small


def _crowded(bounds: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Those of `places` in whose pixel lies the middle of another that is no higher: it reaches into their neighbourhood.

    Without this first step, thousands of polygons in a few pixels are all each other's neighbours.
    """
    left, top, right, bottom = bounds[places].T
    columns, rows, height = np.floor((left + right) / 2), np.floor((top + bottom) / 2), bottom - top
    order = np.lexsort((height, rows, columns))
    again = (np.diff(columns[order]) == 0) & (np.diff(rows[order]) == 0)
    return places[order[1:][again]]


def whole_areas(areas_px2: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Areas in whole pixels; `places` in the file decide which are rounded up, so that any run of them has its sum."""
    return np.floor(areas_px2 + _LEAST + (1 - 2 * _LEAST) * ((places + 1) * _GOLDEN % 1)).astype(int)


def fit_areas(numbers: np.ndarray, outlines: np.ndarray, areas: np.ndarray) -> None:
    """Give each polygon its area, within 2 % or to the pixel, in place.

    Parameters
    ----------
    numbers : (h, w) int32, 1 + the polygon of each pixel, 0 of none; a border of one pixel is of none.
    outlines : (n,) shapely polygons in px of `numbers`, each whole inside it.
    areas : (n,) int, px that each is to have.
    """
    flat, width = numbers.reshape(-1), numbers.shape[1]
    inside = np.flatnonzero(flat != 0)
    owner = flat[inside] - 1
    lack = areas - np.bincount(owner, minlength=len(areas))
    lack[np.abs(lack) <= _TOLERANCE * areas] = 0
    steps = np.array([-width, -1, 1, width])
    losing, gaining = lack[owner] < 0, lack[owner] > 0
    border = losing.copy()
    border[losing] = (flat[inside[losing, None] + steps] == 0).any(1)
    lost = _nearest(inside[border], owner[border], -lack, shapely.boundary(outlines), width)
    free, takers = (inside[gaining, None] + steps).ravel(), np.repeat(owner[gaining], len(steps))
    unset = flat[free] == 0
    free, takers = free[unset], takers[unset]
    empty = np.flatnonzero((lack > 0) & (lack == areas))
    columns, rows = shapely.get_coordinates(shapely.centroid(outlines[empty])).astype(int).T
    free, takers = np.append(free, rows * width + columns), np.append(takers, empty)
    free, first = np.unique(free, return_index=True)
    gained = _nearest(free, takers[first], lack, outlines, width)
    flat[lost[0]] = 0
    flat[gained[0]] = gained[1] + 1


def _nearest(
    pixels: np.ndarray, owner: np.ndarray, counts: np.ndarray, lines: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `counts` pixels of each owner whose centres are nearest to its line, and their owners."""
    centres = shapely.points(pixels % width + 0.5, pixels // width + 0.5)
    distance = np.round(shapely.distance(lines[owner], centres), 6)  # so that equal ones are equal in every box
    order = np.lexsort((pixels, distance, owner))
    pixels, owner = pixels[order], owner[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    chosen = rank < counts[owner]
    return pixels[chosen], owner[chosen]
