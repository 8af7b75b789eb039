"""Polygons as QuPath exports them, read feature by feature: a file of cells may hold hundreds of thousands."""

from __future__ import annotations

import difflib
import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import shapely
from shapely.errors import ShapelyError

from histoloom.errors import Fault, Note
from histoloom.slides.geojson_objects import WITHOUT_AREA, Unreadable, as_feature, features
from histoloom.slides.regions import Regions

_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")
_BATCH = 10_000


def read_geojson(
    path: Path, classes: Sequence[str] | None, cell_outline: str = "cell"
) -> tuple[Regions, list[Fault | Note]]:
    """Read polygons in the file's own coordinates, with what is wrong in it and what is left out.

    The row of a fault is the object's number in the file.

    Parameters
    ----------
    classes : those that params name. Where it is None, any class will do, and none.
    cell_outline : cell or nucleus, which outline of QuPath's cells is taken.
    """
    reader = _Reader(str(path), classes, cell_outline)
    raw = path.read_bytes()
    if raw.startswith(_PACKED):
        return Regions.of(), [Fault(str(path), "it is compressed.", "unpack it.")]
    try:
        text = raw.decode("utf-8-sig")
        del raw
        with _without_collecting():
            for number, feature in enumerate(features(text), 1):
                reader.take(number, feature)
    except (ValueError, RecursionError) as error:
        remedy = "export it from QuPath as GeoJSON."
        return Regions.of(), [Fault(str(path), f"it is not GeoJSON ({error}).", remedy)]
    return reader.regions(), reader.found()


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Parsed JSON holds no circles, and looking for them takes longer than parsing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Reader:
    def __init__(self, where: str, classes: Sequence[str] | None, cell_outline: str):
        self.where, self.classes, self.cell_outline = where, classes, cell_outline
        self.places: dict[str, int] = {}
        self.pending: list[tuple[int, int, list]] = []
        self.kinds: list[int] = []
        self.rows: list[int] = []
        self.built: list[np.ndarray] = []
        self.left_out: Counter[str] = Counter()
        self.nuclei = self.objects = 0
        self.faults: dict[tuple, list] = {}

    def take(self, number: int, feature: object) -> None:
        """Keep an object's polygons for later, or count it among what is left out, or note its fault."""
        self.objects = number
        before = self.left_out.total()
        try:
            read = as_feature(feature)
            name = _class_of(read.get("properties") or {}) if self.classes is not None else ""
            areas = list(_areas(self._outline(read), self.left_out))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = str(error) if isinstance(error, Unreadable) else "its geometry isn't as GeoJSON states it"
            self._add((why,), f"the object can't be read: {why}.", "export it anew from QuPath, or delete it.", number)
            return
        if not areas and self.left_out.total() == before:
            self._add(("void",), "this geometry has no area.", "draw a closed polygon.", number)
        elif not areas:
            pass  # what is left out is counted
        elif name is None:
            self.left_out["polygon(s) without a class"] += 1
        elif self.classes is not None and name not in self.classes:
            self._add((name,), f"unknown label '{name}'.", _hint(name, self.classes), number)
        else:
            kind = self.places.setdefault(name, len(self.places))
            self.pending += [(kind, number, rings) for rings in areas]
        if len(self.pending) >= _BATCH:
            self._build()

    def _outline(self, feature: dict) -> dict | None:
        nucleus = feature.get("nucleusGeometry")
        if self.cell_outline == "nucleus":
            cell = (feature.get("properties") or {}).get("objectType") == "cell"
            return nucleus if cell or nucleus is not None else feature["geometry"]
        self.nuclei += nucleus is not None
        return feature["geometry"]

    def _build(self) -> None:
        """Make polygons of what is pending; where that fails, one by one, to find those at fault."""
        batch, self.pending = self.pending, []
        try:
            built = _polygons([rings for _, _, rings in batch])
        except (ValueError, TypeError, OverflowError, ShapelyError) as error:
            if len(batch) == 1:
                problem = f"the feature has no geometry that can be read ({error})."
                self._add(("ring",), problem, "draw it anew, or delete it.", batch[0][1])
                return
            for one in batch:
                self.pending = [one]
                self._build()
            return
        self.built.append(built)
        self.kinds += [kind for kind, _, _ in batch]
        self.rows += [number for _, number, _ in batch]

    def regions(self) -> Regions:
        if self.pending:
            self._build()
        polygons = np.concatenate([np.empty(0, object), *self.built])
        kinds, valid = np.array(self.kinds, int), shapely.is_valid(polygons)
        for place in np.flatnonzero(~valid):
            if shapely.area(shapely.convex_hull(polygons[place])) == 0:
                key, problem, remedy = "flat", "the polygon has no area.", "draw it anew, or delete it."
            else:
                why = "" if ("invalid",) in self.faults else shapely.is_valid_reason(polygons[place])
                key, problem = "invalid", f"the polygon is not valid: {why}."
                remedy = "redraw it so that its outline does not cross itself."
            self._add((key,), problem, remedy, self.rows[place])
        return Regions(tuple(self.places), kinds[valid], polygons[valid])

    def _add(self, kind: tuple, problem: str, remedy: str, row: int) -> None:
        """Faults of a kind are one, with the first one's number and their count."""
        self.faults.setdefault(kind, [Fault(self.where, problem, remedy, row), 0])[1] += 1

    def found(self) -> list[Fault | Note]:
        found: list[Fault | Note] = [
            fault if count == 1 else _with_count(fault, count - 1) for fault, count in self.faults.values()
        ]
        if self.left_out:
            counts = ", ".join(f"{count:,} {what}" for what, count in self.left_out.items())
            found.append(Note(self.where, f"of {self.objects:,} object(s), left out are {counts}."))
        if self.nuclei:
            fact = f"{self.nuclei:,} cell(s) have a nucleus too. The cell's outline is taken (tile.cell_outline)."
            found.append(Note(self.where, fact))
        return found


def _with_count(fault: Fault, more: int) -> Fault:
    return Fault(fault.where, f"{fault.problem} So with {more:,} more.", fault.remedy, fault.row)


def _class_of(properties: dict) -> str | None:
    """The class as QuPath shows it, 'Tumor: Positive' of a derived one; None of none.

    QuPath writes a class as {"name": ...}, a derived one as {"names": [...]}, and reads both and a string.
    """
    stated = properties.get("classification")
    if isinstance(stated, dict):
        names = stated.get("names")
        stated = ": ".join(names) if names else stated.get("name")
    if stated is not None and not isinstance(stated, str):
        raise Unreadable(f"its class is {stated!r}, and a name is asked for")
    return (stated or "").strip() or None


def _hint(name: str, classes: Sequence[str]) -> str:
    same = [known for known in classes if known.casefold() == name.casefold()]
    near = same or difflib.get_close_matches(name, classes, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    hint += "Upper and lower case differ. " if same else ""
    quoted = f', in quotes: "{name}"' if ":" in name else ""
    return f"{hint}{'Else add' if near else 'add'} it to the classes in params.yaml{quoted}."


def _areas(geometry: dict | None, left_out: Counter[str]) -> Iterator[list]:
    """The rings of each polygon in a geometry; what has no area is counted."""
    if geometry is None or (kind := geometry["type"]) is None:
        left_out["object(s) without an outline"] += 1
    elif kind == "Polygon" and geometry["coordinates"]:
        yield geometry["coordinates"]
    elif kind == "MultiPolygon":
        yield from geometry["coordinates"]
    elif kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _areas(part, left_out)
    elif kind in WITHOUT_AREA:
        left_out[WITHOUT_AREA[kind]] += 1
    elif kind != "Polygon":
        raise Unreadable(f"'{kind}' is no kind of geometry")


def _polygons(areas: list[list]) -> np.ndarray:
    """Polygons of lists of rings, the outline first.

    Raises
    ------
    ValueError, TypeError, OverflowError, ShapelyError
        where one of them is none.
    """
    rings = [ring for area in areas for ring in area]
    if not all(rings) or not all(areas):
        raise ValueError("an outline has no points")
    points = np.array(list(chain.from_iterable(rings)), float)
    if points.ndim != 2 or points.shape[1] < 2 or not np.isfinite(points).all():
        raise ValueError("a coordinate is no number")
    lines = shapely.linearrings(points[:, :2], indices=np.repeat(np.arange(len(rings)), [len(r) for r in rings]))
    return shapely.polygons(lines, indices=np.repeat(np.arange(len(areas)), [len(area) for area in areas]))
