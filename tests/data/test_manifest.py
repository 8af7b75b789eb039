"""Every fault of the manifests at once, each with its place and its remedy."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from histoloom.cli.main import cli
from histoloom.data.manifest import check_manifest, read_manifest
from histoloom.errors import ManifestFaults, Note, faults_among
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
    assert all(fault.remedy in str(error.value) for fault in faults)
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
        (_two(slide_id="s-202301154521"), "slide_id", 3, "has the form of the codes", "put something before it"),
        (_two(patient_id="WardB:g-123456789012"), "patient_id", 3, "has the form of the codes", "put something"),
        (_two(slide_id=".."), "slide_id", 3, "can't name a folder", "letters"),
        (_two(path="gone.svs"), "path", 3, "no file 'gone.svs'", "mend the path"),
        (_two(path="../params.yaml"), "path", 3, "leads out of data/slides", "put the file under"),
        (_two(path="/etc/hostname"), "path", 3, "leads out of data/slides", "put the file under"),
        (_two(path="outside.svs"), "path", 3, "behind one, that leads out of data/slides", "put the file under"),
        (
            _two(annotations="../slides.csv"),
            "annotations",
            3,
            "leads out of manifests/annotations",
            "put the file under",
        ),
        (_two(mpp="0,25"), "mpp", 3, "'0,25' has a decimal comma: write 0.25", "0.25"),
        (_two(mpp="0"), "mpp", 3, "'0' is no scale", "0.25"),
        (_two(mpp="nan"), "mpp", 3, "'nan' is no number", "0.25"),
        (_two(mpp="0.25 µm"), "mpp", 3, "more than a number", "0.25"),
        (_two(mpp="40x"), "mpp", 3, "more than a number", "0.25"),
        (_two(mpp="250"), "mpp", 3, "In nanometres it would be 0.25", "micrometres"),
        (_two(mpp="0.00025"), "mpp", 3, "In millimetres it would be 0.25", "micrometres"),
        (_two(slide_id="S0"), "slide_id", 3, "'S0' and 's0' differ by case", "rename one"),
        (_two(patient_id="P0"), "patient_id", 3, "'P0' and 'p0' differ by case", "alike"),
        (_two(patient_id="p 0"), "patient_id", 3, "differ by case, blanks", "alike"),
        (_two(patient_id="p\u200b0"), "patient_id", 3, "Unicode form", "alike"),
        ([_row(0, patient_id="01"), _row(1, patient_id="1.0"), GOOD[2]], "patient_id", 3, "'1.0' and '01'", "alike"),
        (_two(patient_id="1,23E+05"), "patient_id", 3, "a number as spreadsheets shorten it", "as text"),
        (_two(patient_id="1-Mar"), "patient_id", 3, "a date as spreadsheets make it", "as text"),
        (_two(patient_id="#NAME?"), "patient_id", 3, "a spreadsheet's error", "as text"),
        (_two(patient_id="nan"), "patient_id", 3, "a missing id", "fill it in"),
        (_two(caption="nan"), "caption", 3, "a missing value", "leave it empty"),
        (_two(dataset="NA"), "dataset", 3, "says nothing of a data set", "write own"),
        (_two(dataset="unknown"), "dataset", 3, "says nothing of a data set", "write own"),
        (_two(organ="NA"), "organ", 3, "a missing value", "leave it empty"),
        (_two(label="NA"), "label", 3, "a missing value", "leave it empty"),
        (_two(meta_age="#NV"), "meta_age", 3, "a missing value", "leave it empty"),
        (_two(slide_id="CON"), "slide_id", 3, "Windows", "add something"),
        (_two(slide_id="s1."), "slide_id", 3, "can't name a folder", "between them"),
        (_two(slide_id="e\u0301"), "slide_id", 3, "letters apart from their accents", "NFC"),
        (_two(slide_id="é" * 91), "slide_id", 3, "has 182 bytes", "at most 180"),
        (_two(path="S1.SVS"), "path", 3, "there is 's1.svs', which differs by case", "as the file is named"),
        (_two(path="data/slides/s1.svs"), "path", 3, "there is 's1.svs'", "from data/slides on"),
        (_two(path="more\\s3.svs"), "path", 3, "there is 'more/s3.svs'", "'/'"),
        (_two(path="C:\\slides\\s1.svs"), "path", 3, "a path of Windows", "from data/slides on"),
        (_two(path="ftp://x.org/s1.svs"), "path", 3, "of a kind that isn't read", "or copy the file"),
        (_two(path="more"), "path", 3, "'more' is a folder", "name the file"),
        (_two(path="old.svs"), "path", 3, "a link to '/nonexistent/s.svs', which is not there", "mend the link"),
        (_two(path="x" * 300), "path", 3, "can't be reached", "mend the path"),
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
    (slides / "data/slides/old.svs").symlink_to("/nonexistent/s.svs")
    make_slide(slides / "data/slides/more/s3.svs", width=64, height=64)
    found = [f for f in _faults(rows) if f.column == column]
    assert [f.row for f in found] == [row]
    assert problem in found[0].problem and remedy in found[0].remedy


def test_where_no_file_is_there_one_fault_names_the_root(slides):
    rows = [row | {"path": f"hospital/{row['path']}"} for row in GOOD]
    (fault,) = _faults([row | {"path": f"x{number}.svs"} for number, row in enumerate(GOOD)])
    assert (fault.row, fault.column) == (None, "path")
    assert "none of the 3 files is there, such as 'x0.svs': data/slides holds none of them" in fault.problem
    (fault,) = _faults(GOOD, {"slides_root": "elsewhere"})
    assert "elsewhere is no folder" in fault.problem and "tile.slides_root" in fault.remedy
    assert {fault.row for fault in _faults(rows)} == {2, 3, 4}


def test_a_fault_that_all_rows_share_is_one_line_of_the_error(slides):
    params = make_study(".", [row | {"split": "training"} for row in GOOD])
    with pytest.raises(ManifestFaults, match=r"^1 fault\(s\), in 3 rows") as error:
        read_manifest(params.tile)
    assert "slides.csv, rows 2 to 4, column 'split': unknown split 'training'." in str(error.value)


def test_a_broken_link_that_no_row_names_is_no_fault(slides):
    (slides / "data/slides/old.svs").symlink_to("/nonexistent/s.svs")
    assert len(read_manifest(make_study(".", GOOD).tile).slides) == 3


def test_ids_are_kept_as_they_are_written(slides):
    rows = [
        _row(0, slide_id="01", patient_id="007"),
        _row(1, slide_id="2", patient_id="p-1"),
        _row(2, patient_id="p_1"),
    ]
    entries = read_manifest(make_study(".", rows).tile).slides
    assert [(e.slide_id, e.patient_id) for e in entries] == [("01", "007"), ("2", "p-1"), ("s2", "p_1")]


def test_dates_as_ids_are_said_and_stop_nothing(slides):
    _, found = check_manifest(make_study(".", _two(patient_id="03.02.2024")).tile)
    assert [(type(each), each.column) for each in found] == [(Note, "patient_id")]
    assert "'03.02.2024'" in found[0].fact


def test_rows_are_those_of_an_editor_and_semicolons_are_read(slides):
    config = make_study(".", GOOD).tile
    lines = (slides / config.manifest).read_text().replace(",", ";").splitlines()
    (slides / config.manifest).write_text("\n".join([lines[0], ";;;", lines[1], "", *lines[2:]]) + "\n;;;\n")
    assert [entry.row for entry in read_manifest(config).slides] == [3, 5, 6]


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
    "contents, problem", [(None, "missing"), ("", "empty"), ('a,b\n"', "quotes"), (b"\xff\xfe\xff", "UTF-16")]
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
        ({"spot_id": "x1"}, "spot_id", 5, "'x1' stands in row 3"),
        ({"x_level0_px": "12,5"}, "x_level0_px", 5, "write 12.5"),
        ({"x_level0_px": "１２"}, "x_level0_px", 5, "no number"),
        ({"annotation": "NA"}, "annotation", 5, "a missing value"),
        ({"label": " "}, "label", 5, "it is empty"),
        ({"slide_id": "S0"}, "slide_id", 5, "'S0' is no slide, and there is 's0'"),
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


def test_spots_of_other_slides_are_counted(slides, capsys):
    write_csv(
        "manifests/spots.csv", [*(_spot(n) for n in range(3)), *(_spot(n, slide_id=f"t{n % 2}") for n in range(3, 8))]
    )
    manifest, found = check_manifest(make_study(".", GOOD, SPOTS).tile)
    assert [str(note) for note in found] == [
        "manifests/spots.csv, column 'slide_id': 5 spot(s) of 2 slide(s) that the manifest lacks, such as 't1', are not used."
    ]
    assert manifest.spots["x_level0_px"].tolist() == [10] * 8
    read_manifest(make_study(".", GOOD, SPOTS).tile)
    assert "note: manifests/spots.csv" in " ".join(capsys.readouterr().err.split())


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
    said = " ".join(done.stdout.split())
    assert done.exit_code == 1 and "4 fault(s)" in said
    for words in (
        "row 3, column 'mpp'",
        "a.geojson, row 1: the polygon is not valid",
        "row 4, column 'path': s2.svs",
        "'nobody'",
    ):
        assert words in said
    assert said.count("Remedy:") == 4


def test_slides_that_fail_alike_are_one_line(slides):
    rows = [_row(n, path=f"p {n}.png") for n in range(5)]
    for row in rows:
        make_slide(slides / "data/slides" / row["path"], width=96, height=96)
    make_study(".", rows)
    done = CliRunner().invoke(cli, ["validate"])
    said = " ".join(done.stdout.split())
    assert "1 fault(s), in 5 rows" in said
    assert "rows 2 to 6, column 'path': p 0.png, p 1.png, p 2.png and 2 more: the file doesn't tell its scale." in said


def test_validate_passes_a_good_study(slides):
    make_study(".", GOOD, PAIR)
    done = CliRunner().invoke(cli, ["validate"])
    assert (done.exit_code, done.stdout.strip().splitlines()[-1]) == (0, "no faults")


@pytest.mark.parametrize("word", ["unknown", "missing", "none", "n.a.", "-"])
def test_a_person_s_word_is_taken_as_it_is_where_captions_quote_it(slides, word):
    params = make_study(
        ".",
        [row | {"organ": word, "caption": word} for row in GOOD],
        {"labels": {"source": "slide", "classes": ["tumour"]}},
    )
    manifest, found = check_manifest(params.tile)
    assert faults_among(found) == []
    assert {(entry.caption, entry.extra["organ"]) for entry in manifest.slides} == {(word, word)}


def test_validate_says_what_is_left_out_and_passes(slides):
    polygons = {"labels": {"source": "polygons", "classes": ["tumour", "stroma"]}}
    point = feature("tumour", [(3, 4)], kind="Point")
    write_geojson("manifests/annotations/a.geojson", feature("tumour", box_ring(0, 0, 90, 90)), point)
    make_study(".", [row | {"annotations": "a.geojson"} for row in GOOD], polygons)
    done = CliRunner().invoke(cli, ["validate"])
    said = " ".join(done.stdout.split())
    assert done.exit_code == 0 and said.endswith("no faults")
    assert "note: manifests/annotations/a.geojson: of 2 object(s), left out are 1 point(s)." in said
