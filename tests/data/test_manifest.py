"""Every fault of the manifests at once, each with its place and its remedy."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pipeline.cli.main import cli
from pipeline.data.manifest import check_manifest, read_manifest
from pipeline.errors import ManifestFaults
from tests.build import box_ring, feature, make_slide, make_study, write_csv, write_geojson


def _row(number: int, **changes) -> dict:
    return {"slide_id": f"s{number}", "path": f"s{number}.svs", "patient_id": f"p{number}", "label": "tumour"} | changes


@pytest.fixture
def slides(folder):
    """Four slides at the study's scale, of which the last two are the same file."""
    for number in range(4):
        make_slide(folder / f"data/slides/s{number}.svs", width=96, height=96, seed=number)
    return folder


def _faults(rows: list[dict], tile: dict | None = None) -> list:
    params = make_study(".", rows, tile)
    with pytest.raises(ManifestFaults) as error:
        read_manifest(params.tile)
    faults = error.value.faults
    assert all(fault.where and fault.problem and fault.remedy for fault in faults)
    assert all(str(fault) in str(error.value) for fault in faults)
    return faults


GOOD = [_row(number) for number in range(3)]
PAIR = {"labels": {"source": "slide", "classes": ["tumour", "stroma"]}}


def _two(**changes) -> list[dict]:
    return [GOOD[0], _row(1, **changes), GOOD[2]]


@pytest.mark.parametrize(
    "rows, column, row, problem, remedy",
    [
        ([{k: v for k, v in r.items() if k != "patient_id"} for r in GOOD], "patient_id", 1, "missing", "add it"),
        ([r | {"anotations": ""} for r in GOOD], "anotations", 1, "unknown column", "rename it to 'annotations'"),
        ([r | {"zzz": ""} for r in GOOD], "zzz", 1, "unknown column", "remove it"),
        (_two(slide_id=""), "slide_id", 3, "empty", "fill it in"),
        (_two(patient_id=" "), "patient_id", 3, "empty", "fill it in"),
        (_two(slide_id="s0"), "slide_id", 3, "'s0' stands in row 2", "id of its own"),
        (_two(path="s0.svs"), "path", 3, "s0.svs' stands in row 2", "one row"),
        (_two(slide_id="a/b"), "slide_id", 3, "can't name a folder", "letters"),
        (_two(slide_id=".."), "slide_id", 3, "can't name a folder", "letters"),
        (_two(path="gone.svs"), "path", 3, "no file 'gone.svs'", "mend the path"),
        (_two(path="../params.yaml"), "path", 3, "leads out of data/slides", "put the file under"),
        (_two(path="/etc/hostname"), "path", 3, "leads out of data/slides", "put the file under"),
        (_two(path="outside.svs"), "path", 3, "leads out of data/slides", "put the file under"),
        (
            _two(annotations="../slides.csv"),
            "annotations",
            3,
            "leads out of manifests/annotations",
            "put the file under",
        ),
        (_two(mpp="0,25"), "mpp", 3, "'0,25' is no scale", "0.25"),
        (_two(mpp="0"), "mpp", 3, "'0' is no scale", "0.25"),
        (_two(mpp="nan"), "mpp", 3, "'nan' is no scale", "0.25"),
        (_two(split="training"), "split", 3, "unknown split 'training'", "train, val or test"),
        (_two(label="tumor"), "label", 3, "unknown label 'tumor'", "did you mean 'tumour'?"),
        (_two(label="zzz"), "label", 3, "unknown label 'zzz'", "add it to tile.labels.classes"),
        (_two(label=""), "label", 3, "empty", "fill it in"),
        ([GOOD[0], _row(1, patient_id="p0", split="test")], "split", 3, "patient 'p0' is in split 'test'", "one split"),
        ([_row(n, patient_id="p") for n in range(3)], "patient_id", None, "one patient", "tile.split.group: slide"),
    ],
)
def test_each_fault_has_its_place_and_remedy(slides, rows, column, row, problem, remedy):
    (slides / "data/slides/outside.svs").symlink_to(slides / "params.yaml")
    found = [f for f in _faults(rows) if f.column == column]
    assert [f.row for f in found] == [row]
    assert problem in found[0].problem and remedy in found[0].remedy


@pytest.mark.parametrize(("caption", "column", "remedy"), [
    ("{label} of {site}", "site", "add the column"), ("{label} of {patient_id}", "patient_id", "ids don't belong"),
])  # fmt: skip
def test_a_caption_that_quotes_what_no_tile_has_is_a_fault(slides, caption, column, remedy):
    (found,) = _faults(GOOD, PAIR | {"caption": caption})
    assert found.column == column and f"quotes {{{column}}}" in found.problem and remedy in found.remedy


@pytest.mark.parametrize("group", ["region", "slide"])
def test_several_patients_are_not_split_by_less(slides, group):
    (fault,) = _faults(GOOD, {"split": {"group": group}})
    assert "3 patients" in fault.problem and fault.remedy == "use tile.split.group: patient."


def test_all_faults_come_at_once_and_none_in_a_good_manifest(slides):
    rows = [_row(0, mpp="x", split="y"), _row(1, path="gone.svs"), _row(2, label="tumor", slide_id="")]
    assert len(_faults(rows)) == 5
    manifest = read_manifest(make_study(".", [r | {"meta_batch": "7"} for r in GOOD]).tile)
    assert [(e.slide_id, e.row, e.extra["meta_batch"]) for e in manifest.slides] == [
        ("s0", 2, "7"),
        ("s1", 3, "7"),
        ("s2", 4, "7"),
    ]


@pytest.mark.parametrize(
    "contents, problem", [(None, "missing"), ("", "CSV"), ('a,b\n"', "CSV"), (b"\xff\xfe\xff", "CSV")]
)
def test_a_table_that_cannot_be_read_is_one_fault(slides, contents, problem):
    config = make_study(".", GOOD).tile
    path = slides / config.manifest
    path.unlink()
    if contents is not None:
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    _, faults = check_manifest(config)
    assert len(faults) == 1 and problem in faults[0].problem


def test_a_byte_order_mark_from_a_spreadsheet_is_no_fault(slides):
    config = make_study(".", GOOD).tile
    path = slides / config.manifest
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_manifest(config).slides) == 3


SPOTS = {"labels": {"source": "spots", "classes": ["tumour", "stroma"]}, "spots": "manifests/spots.csv"}


def _spot(number: int, **changes) -> dict:
    spot = {
        "spot_id": f"x{number}",
        "slide_id": f"s{number % 3}",
        "x_level0_px": 10,
        "y_level0_px": 20,
        "label": "stroma",
    }
    return spot | changes


@pytest.mark.parametrize(
    "changes, column, row, problem",
    [
        ({"x_level0_px": "left"}, "x_level0_px", 5, "'left' is no number"),
        ({"y_level0_px": "inf"}, "y_level0_px", 5, "no number"),
        ({"spot_id": "x1"}, "spot_id", 5, "'x1' stands above"),
        ({"label": "stromal"}, "label", 5, "unknown label 'stromal'"),
        ({"colour": "red"}, "colour", 1, "unknown column"),
    ],
)
def test_faults_of_spots_have_their_place(slides, changes, column, row, problem):
    write_csv("manifests/spots.csv", [*(_spot(n) for n in range(3)), _spot(3, **changes)])
    (fault,) = _faults(GOOD, SPOTS)
    assert (fault.where, fault.column, fault.row) == ("manifests/spots.csv", column, row)
    assert problem in fault.problem


@pytest.mark.parametrize(
    "spots, problem",
    [
        ([_spot(0), _spot(1)], "no spot lies on slide 's2'"),
        ([{"spot_id": "x"}], "the column is missing"),
        (None, "missing"),
    ],
)
def test_slides_without_spots_and_spots_without_columns(slides, spots, problem):
    if spots is not None:
        write_csv("manifests/spots.csv", spots)
    assert problem in _faults(GOOD, SPOTS)[0].problem


def test_validate_lists_every_fault_of_manifests_annotations_and_slides(slides):
    write_geojson("manifests/annotations/a.geojson", feature("tumour", [(0, 0), (9, 9), (9, 0), (0, 9)]))
    write_geojson("manifests/annotations/b.geojson", feature("tumour", box_ring(0, 0, 50, 50)))
    (slides / "data/slides/s2.svs").write_text("no slide")
    make_study(
        ".",
        [_row(0, annotations="a.geojson"), _row(1, annotations="b.geojson", mpp="x"), _row(2, annotations="b.geojson")],
        {"labels": {"source": "polygons", "classes": ["tumour", "stroma"]}, "split": {"assign": {"nobody": "test"}}},
    )
    done = CliRunner().invoke(cli, ["validate"])
    said = " ".join(done.stderr.split())
    assert done.exit_code == 1 and "4 fault(s)" in said
    for words in (
        "row 3, column 'mpp'",
        "a.geojson, row 1: the polygon is not valid",
        "row 4, column 'path': s2.svs",
        "'nobody'",
    ):
        assert words in said
    assert said.count("Remedy:") == 4


def test_validate_passes_a_good_study(slides):
    make_study(".", GOOD)
    done = CliRunner().invoke(cli, ["validate"])
    assert (done.exit_code, done.stderr.strip()) == (0, "no faults")
