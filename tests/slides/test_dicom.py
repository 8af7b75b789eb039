"""DICOM slides: a series is a slide, whichever of its files is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from histoloom.cli.draft import draft_slides
from histoloom.config import Tile
from histoloom.data.manifest import check_manifest
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_files import slide_files
from histoloom.data.store import TileStore
from histoloom.errors import faults_among
from histoloom.slides.open import open_slide
from histoloom.slides.slide import BadSlide
from tests.build import tissue_picture, write_csv
from tests.dicom_slides import make_dicom_slide
from tests.studies.tiling import slide_row, slides_report, study, tile_slides


def test_a_study_tiles_series_that_lie_in_one_folder_and_cuts_only_what_changed(folder):
    for number in range(3):
        make_dicom_slide("data/slides", f"s{number}", side=384, mpp=0.5, seed=number)
    rows = [slide_row(number, path=f"s{number}-{number % 2}.dcm") for number in range(3)]
    config = study(rows).tile.model_copy(update={"stride_px": 32})
    assert tile_slides(config)["slides_made"] == 3
    report = slides_report()
    assert {row["mpp_level0"] for row in report.values()} == {"0.5"}
    assert {row["mpp_source"] for row in report.values()} == {"file"}
    tiles = TileStore("data/tiles").rows()
    assert set(tiles["slide_id"]) == {"s0", "s1", "s2"} and set(tiles["mpp"]) == {1.0}
    make_dicom_slide(
        "data/slides",
        "s1",
        side=384,
        mpp=0.5,
        seed=9,
        series=str(pydicom.dcmread("data/slides/s1-0.dcm").SeriesInstanceUID),
    )
    assert tile_slides(config)["slides_made"] == 1


def test_its_pixels_are_those_of_the_picture(tmp_path):
    _, second = make_dicom_slide(tmp_path, side=200)
    with open_slide(second) as slide:
        assert slide.size == (200, 200) and slide.mpp == 1.0
        read = slide.read(PixelBox(0, 0, 200, 200), 1.0)
    assert np.abs(read.astype(int) - tissue_picture(200, 200)).mean() < 6  # JPEG


def test_its_files_are_those_of_its_series_under_any_name(tmp_path):
    series = make_dicom_slide(tmp_path, "a")
    make_dicom_slide(tmp_path, "b", seed=1)
    (tmp_path / "notes.dcm").write_text("no DICOM")
    bare = series[1].rename(tmp_path / "1.2.3.456")
    assert slide_files(bare) == sorted([bare, series[0]]) == slide_files(series[0])
    assert slide_files(tmp_path / "notes.dcm") == [tmp_path / "notes.dcm"]


def _faults(folder: Path, *paths: str) -> list[str]:
    rows = [slide_row(number, path=path) for number, path in enumerate(paths)]
    write_csv(folder / "slides.csv", rows)
    stated = {"labels": {"source": "none"}, "manifest": str(folder / "slides.csv"), "slides_root": str(folder)}
    config = Tile.model_validate({"mpp": 1.0, "tile_px": 64, "stride_px": 64} | stated)
    return [str(fault) for fault in faults_among(check_manifest(config)[1]) if fault.column == "path"]


def test_two_rows_of_one_series_are_a_fault_also_as_a_copy(tmp_path):
    one, other = make_dicom_slide(tmp_path, "a")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/c.dcm").write_bytes(one.read_bytes())
    first, second = _faults(tmp_path, one.name, other.name, "copy/c.dcm")
    assert "'a-1.dcm' is of the DICOM series that row 2 names by 'a-0.dcm'" in first and "'c.dcm'" in second


def test_a_folder_in_place_of_a_file_says_which_to_name(tmp_path):
    make_dicom_slide(tmp_path / "one", "a")
    make_dicom_slide(tmp_path / "two", "b")
    make_dicom_slide(tmp_path / "two", "c", seed=1)
    one, two = _faults(tmp_path, "one", "two")
    assert "one DICOM series" in one and "'one/a-0.dcm'" in one
    assert "2 DICOM series" in two and "'two/b-0.dcm' and 'two/c-0.dcm'" in two


@pytest.mark.parametrize("kept", [140, 1000, 20_000])
def test_a_file_that_breaks_off_is_refused(tmp_path, kept):
    path, *_ = make_dicom_slide(tmp_path, levels=1)
    assert path.stat().st_size > kept
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadSlide, match=path.name), open_slide(path) as slide:
        slide.read(PixelBox(0, 0, *slide.size), 1.0)


def test_a_series_without_the_slide_itself_is_refused(tmp_path):
    (path,) = make_dicom_slide(tmp_path, levels=1, flavour="LABEL")
    with pytest.raises(BadSlide, match="No pyramid levels"):
        open_slide(path)


def test_a_draft_has_one_slide_a_series(tmp_path):
    make_dicom_slide(tmp_path / "case 1", "z", levels=3)
    make_dicom_slide(tmp_path / "more", "a", seed=1)
    make_dicom_slide(tmp_path / "more", "b", seed=2)
    make_dicom_slide(tmp_path / "labels alone", "l", levels=1, seed=3, flavour="LABEL")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/z.dcm").write_bytes((tmp_path / "case 1/z-1.dcm").read_bytes())
    (tmp_path / "more/broken.dcm").write_text("x")
    draft = draft_slides(tmp_path)
    assert draft.slides == [("case_1", "case 1/z-0.dcm"), ("a-0", "more/a-0.dcm"), ("b-0", "more/b-0.dcm")]
    assert dict(draft.left_out) == {
        "DICOM file(s) whose header can't be read": ["more/broken.dcm"],
        "DICOM file(s) of series that show no whole slide": ["labels alone/l-0.dcm"],
        "DICOM file(s) in another folder than the rest of their series": ["copy/z.dcm"],
    }
