"""Paths of a manifest: the file that is meant, or what is there in its place."""

from __future__ import annotations

import unicodedata

import pytest

from histoloom.data.slide_files import NoFile, Root, slide_files


def test_all_files_of_a_slide_are_its_own(tmp_path):
    for name in (
        "m.mrxs",
        "m/Data0000.dat",
        "v.vms",
        "v(0,1).jpg",
        "v_map2.jpg",
        "w.vms",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {
        name: [p.relative_to(tmp_path).as_posix() for p in slide_files(tmp_path / name)]
        for name in ("m.mrxs", "v.vms", "w.vms")
    }
    assert found == {
        "m.mrxs": ["m.mrxs", "m"],
        "v.vms": ["v(0,1).jpg", "v.vms", "v_map2.jpg"],
        "w.vms": ["w.vms"],
    }


@pytest.fixture
def root(tmp_path):
    for name in ("slides/a.svs", "slides/deep/B.svs", "slides/deep/é.svs", "outside.svs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    folder = tmp_path / "slides"
    (folder / "link.svs").symlink_to("deep/B.svs")
    (folder / "out.svs").symlink_to("../outside.svs")
    (folder / "loop.svs").symlink_to("loop.svs")
    (folder / "gone").symlink_to("/nonexistent")
    (folder / "more").symlink_to("..")
    return folder


@pytest.mark.parametrize("value", ["a.svs", "deep/B.svs", "./deep/../a.svs", "link.svs"])
def test_files_under_the_root_are_found(root, value):
    assert Root(root).find(value) == root / value
    assert Root(root).find(str(root / value)).samefile(root / value)


@pytest.mark.parametrize(
    "value, problem, hinted",
    [
        ("b.svs", "there is no file 'b.svs'", False),
        ("deep/b.SVS", "there is 'deep/B.svs', which differs by case", True),
        ("DEEP\\B.svs", "there is 'deep/B.svs'", True),
        (unicodedata.normalize("NFD", "deep/é.svs"), "differs by case or Unicode form", True),
        ("data/slides/deep/B.svs", "there is 'deep/B.svs'", True),
        ("out.svs", "is a link, or lies behind one, that leads out of", True),
        ("more/outside.svs", "is a link, or lies behind one, that leads out of", True),
        ("../outside.svs", "'../outside.svs' leads out of", True),
        ("loop.svs", "is a link to 'loop.svs'", True),
        ("gone", "is a link to '/nonexistent', which is not there", True),
        ("deep", "is a folder", True),
        ("a.svs/b", "there is no file", False),
        ("D:/a.svs", "a path of Windows", True),
        ("s3://bucket/a.svs", "an address", True),
        ("x" * 400, "can't be reached (File name too long)", True),
    ],
)
def test_what_is_no_file_under_the_root_is_refused_with_what_is_there(root, value, problem, hinted):
    with pytest.raises(NoFile) as error:
        Root(root).find(value)
    assert problem in error.value.problem and error.value.hinted is hinted and error.value.remedy
