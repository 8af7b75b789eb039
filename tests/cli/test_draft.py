"""A folder of slides as file systems, scanners and people leave it, and the manifest that is drafted of it."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.cli.draft import draft_slides
from histoloom.cli.init import make_study
from histoloom.data.ids import folder_problem, near_duplicates
from histoloom.data.study_folder import Study
from histoloom.errors import faults_among
from histoloom.studies.checks.validate import check_study
from tests.build import make_slide


def _files(folder: Path, *names: str, content: str = "x") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    "files, slides, reason",
    [
        (["s1.svs", "._s1.svs"], ["s1.svs"], "hidden file"),
        (["s1.jpg", ".ipynb_checkpoints/s1-checkpoint.jpg"], ["s1.jpg"], "hidden folder"),
        (["s1.jpg", "@eaDir/s1.jpg/SYNOFILE_THUMB_M.jpg"], ["s1.jpg"], "of the file system"),
        (["a/s1.jpg", "__MACOSX/a/s1.jpg"], ["a/s1.jpg"], "of the file system"),
        (["s1.svs", "$RECYCLE.BIN/s2.svs"], ["s1.svs"], "of the file system"),
        (["s1.svs", "Thumbs.db", "s1.geojson"], ["s1.svs"], "2 file(s) that are no slide by their suffix"),
        (["s1.mrxs", "s1/Slidedat.ini", "s1/cover.jpg"], ["s1.mrxs"], "MIRAX"),
        (["s1.svs", "s1_macro.jpg", "s1-label.png", "s1.svs_thumbnail.png"], ["s1.svs"], "3 label, thumbnail"),
        (["a/slide.tif", "a/label.png", "a/macro.jpg"], ["a/slide.tif"], "2 label, thumbnail"),
        (["s1.png", "s1_mask.png", "s1_instances.tif"], ["s1.png"], "2 label, thumbnail or mask"),
        (["images/s1.png", "masks/s1.png"], ["images/s1.png"], "in a folder of masks"),
        (["s1.ndpi", "s1.jpg"], ["s1.ndpi"], "of the name of a slide"),
        (["s1/a.dcm", "s1/b.dcm", "s2.webp"], ["s2.webp"], "2 DICOM"),
        ([" s1.svs", "s2.svs"], ["s2.svs"], "can't be written to a table"),
        (["label.png", "preview_of_3.png"], ["preview_of_3.png"], "label, thumbnail"),
        (["thumbnail.png"], ["thumbnail.png"], None),
        (["Macrophages.svs", "s1.svs"], ["Macrophages.svs", "s1.svs"], None),
    ],
)
def test_what_is_no_slide_is_left_out_and_said(tmp_path, files, slides, reason):
    draft = draft_slides(_files(tmp_path, *files))
    assert [path for _, path in draft.slides] == slides
    assert [reason in line for line in draft.words()] == ([True] if reason else [])


def test_pictures_of_a_hamamatsu_slide_are_left_out(tmp_path):
    _files(tmp_path, "s.vms", content="[Virtual Microscope Specimen]\nImageFile=s(0,0).jpg\nMapFile=s_map2.jpg\n")
    draft = draft_slides(_files(tmp_path, "s(0,0).jpg", "s_map2.jpg", "t.jpg"))
    assert draft.slides == [("s", "s.vms"), ("t", "t.jpg")]


def test_links_are_followed_to_files_within_the_folder_alone(tmp_path):
    root = _files(tmp_path / "slides", "deep/s1.svs", ".store/abc")
    _files(tmp_path, "outside.svs", "more/s9.svs")
    for link, target in {
        "again.svs": "deep/s1.svs", "annexed.svs": ".store/abc", "gone.svs": "nowhere.svs", "far.svs": "../outside.svs",
        "circle": ".", "loop.svs": "loop.svs", "more": "../more",
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    draft = draft_slides(root)
    assert draft.slides == [("annexed", "annexed.svs"), ("s1", "deep/s1.svs")]
    assert {reason.split(":")[0]: len(paths) for reason, paths in draft.left_out.items()} == {
        "hidden folder(s)": 1,
        "link(s) to folders": 2,
        "broken link(s)": 2,
        "link(s) that lead out of the folder": 1,
        "link(s) to a slide that is drafted": 1,
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all folders")
def test_a_folder_that_cannot_be_read_is_said(tmp_path):
    _files(tmp_path, "closed/s1.svs")
    (tmp_path / "closed").chmod(0)
    try:
        assert draft_slides(tmp_path).words() == ["1 folder(s) that can't be read, such as 'closed/'"]
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_ids_of_one_name_in_two_folders_tell_the_folder(tmp_path):
    draft = draft_slides(_files(tmp_path, "a/slide.tif", "b/Slide.tif", "c 1.tif", "Ä/1.tif", "2.tif"))
    assert [name for name, _ in draft.slides] == ["2", "a_slide", "b_Slide", "c_1", "1"]


_NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=12)


@given(st.sets(_NAME, max_size=8))
def test_any_names_give_ids_that_validate_takes(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("slides")
    for name in names:
        (root / f"{name}.tif").write_text("x")
    draft = draft_slides(root)
    ids = [name for name, _ in draft.slides]
    assert not [name for name in ids if folder_problem(name)] and near_duplicates(ids) == {}
    assert len(ids) + sum(len(paths) for paths in draft.left_out.values()) == len([*root.iterdir()])


def test_a_drafted_manifest_has_no_fault_once_patients_and_scales_are_stated(folder):
    for name in ("CMU 1.png", "a/slide.tif", "b/slide.tif", "1-Mar.png", "é.png"):
        make_slide(folder / "slides" / name, width=256, height=256, seed=len(name))
    _files(folder / "slides", "._CMU 1.png", "notes.txt")
    make_study(folder / "study", (), folder / "slides")
    path = folder / "study/manifests/slides.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(row | {"patient_id": f"p{n}", "mpp": "0.5"} for n, row in enumerate(rows))
    params = (folder / "study/params.yaml").read_text()
    os.chdir(folder / "study")
    found = [f for f in faults_among(check_study(Study())) if f.column in ("slide_id", "path", "patient_id", "mpp")]
    assert len(rows) == 5 and "slides_root" in params and found == []
