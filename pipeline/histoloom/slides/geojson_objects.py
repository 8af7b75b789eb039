"""The objects of a GeoJSON file, parsed one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from typing import Any

WITHOUT_AREA = {
    "Point": "point(s)",
    "MultiPoint": "set(s) of points",
    "LineString": "line(s)",
    "MultiLineString": "set(s) of lines",
}
GEOMETRIES = (*WITHOUT_AREA, "Polygon", "MultiPolygon", "GeometryCollection")
_GAP = re.compile(r"\s*")
_decode = json.JSONDecoder().raw_decode


class Unreadable(ValueError):
    """What an object has in the place of what GeoJSON asks for."""


def as_feature(item: object) -> dict[str, Any]:
    """An object of a file as a feature: a bare geometry has no properties."""
    if not isinstance(item, dict):
        raise Unreadable(f"it is {json.dumps(item)[:40]}, and no feature")
    if item.get("type") in GEOMETRIES:
        return {"geometry": item}
    if item.get("type") == "FeatureCollection":
        raise Unreadable("it is a collection in a list, and a file holds one collection or a list of features")
    if "geometry" not in item:
        raise Unreadable("it has no geometry")
    return item


def features(text: str) -> Iterator[object]:
    """The objects of a FeatureCollection or a bare list, or a single Feature or geometry.

    Raises
    ------
    ValueError
        where the text is neither.
    """
    at = _skip(text, 0)
    at = yield from (_elements if text.startswith("[", at) else _members)(text, at)
    if _skip(text, at) != len(text):
        raise ValueError(f"something follows its end, at character {at}")


def _members(text: str, at: int) -> Generator[object, None, int]:
    if not text.startswith("{", at):
        raise ValueError("it holds no objects")
    alone: dict = {}
    collection, at = False, _skip(text, at + 1)
    while not text.startswith("}", at):
        key, at = _decode(text, at)
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise ValueError(f"a colon is missing at character {at}")
        at = _skip(text, at + 1)
        if key == "features" and text.startswith("[", at):
            collection = True
            at = yield from _elements(text, at)
        else:
            alone[key], at = _decode(text, at)
        at = _next(text, at, "}")
    if not collection and alone.get("type") not in ("Feature", *GEOMETRIES):
        raise ValueError("it is no FeatureCollection, Feature or geometry")
    if not collection:
        yield alone
    return at + 1


def _elements(text: str, at: int) -> Generator[object, None, int]:
    at = _skip(text, at + 1)
    while not text.startswith("]", at):
        element, at = _decode(text, at)
        yield element
        at = _next(text, at, "]")
    return at + 1


def _next(text: str, at: int, end: str) -> int:
    """Where the next item begins, or the end stands."""
    at = _skip(text, at)
    if text.startswith(end, at):
        return at
    if not text.startswith(",", at):
        raise ValueError(f"a comma is missing at character {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    assert gap is not None, "the empty gap matches everywhere"
    return gap.end()
