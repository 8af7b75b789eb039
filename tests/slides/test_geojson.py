"""What QuPath and others write as GeoJSON is read; what cannot be is a fault, and what has no area is counted."""

from __future__ import annotations

import gzip
import json

import pytest
from shapely.geometry import Polygon

from histoloom.data.pixel_box import PixelBox
from histoloom.errors import Fault, Note
from histoloom.slides.geojson import read_geojson
from tests.build import box_ring, feature, write_geojson

CLASSES = ("stroma", "tumour")
BIG, HOLE = box_ring(0, 0, 40, 40), box_ring(10, 10, 30, 30)


BOWTIE = [(0, 0), (10, 10), (10, 0), (0, 10)]


def huge() -> dict:
    return feature("tumour", BIG) | {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [10**400, 0], [5, 5]]]}}


@pytest.mark.parametrize(
    "bad, problem, remedy",
    [
        (feature("tumour", BOWTIE), "not valid: Self-intersection", "does not cross itself"),
        (feature("tumor", BIG), "unknown label 'tumor'", "did you mean 'tumour'?"),
        (feature("xyz", BIG), "unknown label 'xyz'", "add it to the classes"),
        (feature("TUMOUR", BIG), "unknown label 'TUMOUR'", "did you mean 'tumour'? Upper and lower case differ"),
        (feature("tumour: Positive", BIG), "unknown label", 'in quotes: "tumour: Positive"'),
        ("not a feature", 'it is "not a feature", and no feature', "delete it"),
        (feature("tumour", BIG) | {"geometry": {"type": "Polygon", "coordinates": [[[0, 0]]]}}, "no geometry", ""),
        (feature("tumour", BIG) | {"properties": {"classification": {"name": 7}}}, "its class is 7, and a name", ""),
        (feature("tumour", BIG) | {"geometry": {"type": "Ellipse"}}, "'Ellipse' is no kind of geometry", ""),
        (feature("tumour", [(0, 0), (float("nan"), 5), (5, 5)]), "a coordinate is no number", "draw it anew"),
        (feature("tumour", [(0, 0), (float("inf"), 5), (5, 5)]), "a coordinate is no number", "draw it anew"),
        (feature("tumour", BIG) | {"geometry": {"type": "Polygon", "coordinates": []}}, "no area", "closed polygon"),
        (None, "it is null, and no feature", "delete it"),
        ({"type": "FeatureCollection", "features": []}, "it is a collection in a list", "export it anew"),
        (feature("tumour", BIG) | {"geometry": [1]}, "its geometry isn't as GeoJSON states it", "export it anew"),
        (feature("tumour", [(0, 0), (5, 5), (9, 9)]), "the polygon has no area", "draw it anew"),
        (huge(), "too large", "draw it anew"),
    ],
    ids=[
        "bow tie",
        "misspelt",
        "unknown",
        "case",
        "derived",
        "text",
        "short",
        "number",
        "ellipse",
        "NaN",
        "infinite",
        "void",
        "null",
        "nested",
        "list",
        "flat",
        "huge",
    ],
)
def test_a_bad_feature_is_a_fault_with_its_number_and_the_good_ones_stay(tmp_path, bad, problem, remedy):
    path = write_geojson(tmp_path / "a.geojson", feature("stroma", BIG), bad, feature("tumour", HOLE))
    regions, faults = read_geojson(path, CLASSES)
    assert [fault.row for fault in faults] == [2]
    assert problem in faults[0].problem and remedy in faults[0].remedy and faults[0].remedy
    assert faults[0].where == str(path)
    assert {"stroma", "tumour"} <= {name for name, _ in regions}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "7",
        "{}",
        "null",
        '{"features": 3}',
        "[",
        "[{}",
        "[1 2]",
        "[] []",
        '{"type" 3}',
        '{"type": "Topology"}',
    ],
)
def test_a_file_that_is_no_geojson_is_one_fault(tmp_path, text):
    (tmp_path / "a.geojson").write_text(text)
    regions, faults = read_geojson(tmp_path / "a.geojson", CLASSES)
    assert len(regions) == 0 and len(faults) == 1
    assert "not GeoJSON" in faults[0].problem and "QuPath" in faults[0].remedy


def test_qupath_s_bare_list_and_multipolygons_are_read(tmp_path):
    both = feature("tumour", BIG)
    both["geometry"] = {
        "type": "MultiPolygon",
        "coordinates": [feature("", ring)["geometry"]["coordinates"] for ring in (BIG, box_ring(50, 50, 60, 60))],
    }
    path = write_geojson(tmp_path / "a.geojson", both)
    (tmp_path / "bare.geojson").write_text(json.dumps([both]))
    for name in (path, tmp_path / "bare.geojson"):
        regions, faults = read_geojson(name, CLASSES)
        assert faults == [] and [(name, part.area) for name, part in regions] == [("tumour", 1600), ("tumour", 100)]


def classified(stated, ring=BIG) -> dict:
    """A feature whose class is written in another way."""
    return feature(None, ring) | {"properties": {"objectType": "annotation", "classification": stated}}


@pytest.mark.parametrize(
    "stated, name",
    [
        ({"name": "tumour", "color": [200, 0, 0]}, "tumour"),
        ({"name": "tumour", "colorRGB": -65536}, "tumour"),
        ({"names": ["tumour"], "color": [1, 2, 3]}, "tumour"),
        ({"names": ["tumour", "Positive"]}, "tumour: Positive"),
        ({"name": "tumour: Positive"}, "tumour: Positive"),
        ("tumour", "tumour"),
        (" tumour ", "tumour"),
    ],
)
def test_a_class_is_read_in_all_its_forms_and_named_as_qupath_shows_it(tmp_path, stated, name):
    path = write_geojson(tmp_path / "a.geojson", classified(stated))
    regions, found = read_geojson(path, (*CLASSES, "tumour: Positive"))
    assert found == [] and [name for name, _ in regions] == [name]


@pytest.mark.parametrize("stated", [None, "", {"name": None}, {"names": []}, {}])
def test_what_has_no_class_is_left_out_and_counted(tmp_path, stated):
    path = write_geojson(tmp_path / "a.geojson", feature("stroma", BIG), classified(stated), feature(None, HOLE))
    regions, found = read_geojson(path, CLASSES)
    assert [name for name, _ in regions] == ["stroma"]
    assert found == [Note(str(path), "of 3 object(s), left out are 2 polygon(s) without a class.")]
    assert len(read_geojson(path, None)[0]) == 3


def geometry(kind: str, coordinates) -> dict:
    return {"type": kind, "coordinates": coordinates}


POINT, LINE = geometry("Point", [4, 4]), geometry("LineString", [[0, 0], [5, 5]])
SQUARES = [geometry("Polygon", [[*ring, ring[0]]]) for ring in (BIG, box_ring(50, 50, 60, 60))]


def test_what_has_no_area_is_left_out_and_counted(tmp_path):
    others = [
        POINT,
        LINE,
        POINT,
        geometry("MultiPoint", [[1, 1]]),
        geometry("MultiLineString", [[[0, 0], [1, 1]]]),
        None,
    ]
    named = [feature("tumour", BIG)] + [feature("unheard of", BIG) | {"geometry": one} for one in others]
    regions, found = read_geojson(write_geojson(tmp_path / "a.geojson", *named), CLASSES)
    assert [polygon.area for _, polygon in regions] == [1600]
    (note,) = found
    assert isinstance(note, Note) and note.fact == (
        "of 7 object(s), left out are 2 point(s), 1 line(s), 1 set(s) of points, 1 set(s) of lines, "
        "1 object(s) without an outline."
    )


@pytest.mark.parametrize("without", [POINT, LINE, None])
def test_what_has_neither_class_nor_area_is_counted_and_no_class(tmp_path, without):
    path = write_geojson(tmp_path / "a.geojson", feature(None, BIG) | {"geometry": without}, feature("tumour", BIG))
    regions, (note,) = read_geojson(path, CLASSES)
    assert isinstance(note, Note) and regions.names == ("tumour",)
    assert regions.class_ids(CLASSES, PixelBox(0, 0, 2, 2), 1.0).tolist() == [[2, 2], [2, 2]]


def test_a_class_of_points_alone_is_no_class(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", feature("tumour", BIG) | {"geometry": POINT})
    assert read_geojson(path, CLASSES)[0].names == ()


def test_the_polygons_of_a_collection_count_and_what_lies_beside_them_is_counted(tmp_path):
    inner = {"type": "GeometryCollection", "geometries": [SQUARES[1], POINT]}
    both = {"type": "GeometryCollection", "geometries": [SQUARES[0], LINE, inner]}
    regions, found = read_geojson(
        write_geojson(tmp_path / "a.geojson", feature("tumour", BIG) | {"geometry": both}), CLASSES
    )
    assert [polygon.area for _, polygon in regions] == [1600, 100]
    assert [note.fact for note in found] == ["of 1 object(s), left out are 1 line(s), 1 point(s)."]


ONE = feature("tumour", BIG)
MEASURED = {"properties": ONE["properties"] | {"measurements": {"Nucleus: Area": float("nan")}}}


@pytest.mark.parametrize(
    "document",
    [
        ONE,
        [ONE],
        {"type": "FeatureCollection", "features": [ONE]},
        {"features": [ONE], "type": "FeatureCollection", "bbox": [0, 0, 1, 1], "crs": {"features": [1]}},
        ONE | MEASURED,
        [ONE | {"geometry": geometry("Polygon", [[[x, y, 0] for x, y in BIG]])}],
        [feature("tumour", BIG) | {"geometry": geometry("MultiPolygon", [SQUARES[0]["coordinates"]])}],
    ],
    ids=["feature", "list", "collection", "order", "NaN measured", "open, with z", "multi"],
)
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b" \n"], ids=["plain", "BOM", "blank"])
def test_every_form_of_a_file_is_read_alike(tmp_path, document, begin):
    path = tmp_path / "a.geojson"
    path.write_bytes(begin + json.dumps(document, indent=2).encode() + b"\n")
    regions, found = read_geojson(path, CLASSES)
    assert found == [] and [(name, polygon.equals(Polygon(BIG))) for name, polygon in regions] == [("tumour", True)]


def test_a_bare_geometry_is_read_where_no_class_is_asked_for(tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "GeometryCollection", "geometries": SQUARES}))
    assert [polygon.area for _, polygon in read_geojson(path, None)[0]] == [1600, 100]
    regions, found = read_geojson(path, CLASSES)
    assert len(regions) == 0 and "1 polygon(s) without a class" in found[0].fact


def test_a_compressed_file_is_refused(tmp_path):
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps(ONE).encode()))
    assert read_geojson(path, CLASSES)[1] == [Fault(str(path), "it is compressed.", "unpack it.")]


def test_of_a_cell_the_outline_that_params_name_is_taken(tmp_path):
    cell = feature("tumour", BIG) | {"nucleusGeometry": SQUARES[1]}
    cell["properties"] |= {"objectType": "cell"}
    bare = {key: value for key, value in cell.items() if key != "nucleusGeometry"}
    path = write_geojson(tmp_path / "a.geojson", cell, bare, feature("stroma", BIG))
    regions, (note,) = read_geojson(path, CLASSES)
    assert [polygon.area for _, polygon in regions] == [1600, 1600, 1600]
    assert "1 cell(s) have a nucleus too" in note.fact
    regions, (note,) = read_geojson(path, CLASSES, "nucleus")
    assert [(name, polygon.area) for name, polygon in regions] == [("tumour", 100), ("stroma", 1600)]
    assert "1 object(s) without an outline" in note.fact


def test_a_fault_that_many_objects_share_is_one(tmp_path):
    path = write_geojson(
        tmp_path / "a.geojson",
        *[feature("xyz", BIG)] * 3,
        *[feature("tumour", BOWTIE)] * 4,
        feature("tumour", BIG),
        *[feature("tumour", [(0, 0)])] * 2,
    )
    regions, faults = read_geojson(path, CLASSES)
    assert len(regions) == 1 and sorted(fault.row for fault in faults) == [1, 4, 9]
    assert {fault.row: fault.problem.split(".")[-2].strip() for fault in faults} == {
        1: "So with 2 more",
        4: "So with 3 more",
        9: "So with 1 more",
    }
