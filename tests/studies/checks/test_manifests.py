"""What the manifests tell of late stages is said by `histoloom validate`; a study that goes through has no fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from histoloom.config import Params, Tile
from histoloom.data.manifest import Manifest, check_manifest
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.study_folder import Study
from histoloom.errors import Fault, Note, faults_among
from histoloom.slides.describe import known_captions
from histoloom.studies.checks.manifests import check_splits
from histoloom.studies.checks.validate import check_study
from tests.build import make_slide, make_study, write_csv

CLASSES = {"labels": {"source": "slide", "classes": ["tumour", "stroma"]}}
ROWS = [
    {
        "slide_id": f"s{n}",
        "path": f"s{n}.tif",
        "patient_id": f"p{n}",
        "label": label,
        "split": split,
        "caption": f"case {n}",
    }
    for n, (label, split) in enumerate(
        [("tumour", "train"), ("stroma", "train"), ("tumour", "val"), ("stroma", "test")]
    )
]
REPORT = "infiltrating ductal carcinoma with nests of large cells and mucin, and a desmoplastic stroma between them all"


@pytest.fixture
def slides(folder):
    for row in ROWS:
        make_slide(folder / "data/slides" / row["path"], width=128, height=128)
    return folder


def study(rows=ROWS, tile: dict | None = None, **sections) -> list[Fault | Note]:
    make_study(".", rows, tile, **sections)
    return check_study(Study())


def faults_of(rows=ROWS, tile: dict | None = None, **sections) -> dict[str, str]:
    return {
        fault.where.removeprefix("params.yaml, "): fault.problem
        for fault in faults_among(study(rows, tile, **sections))
    }


def _not_of_labels(found: list) -> list:
    return [each for each in found if each.column != "tile.labels.classes"]


REQUEST = {"name": "more", "tiles": 3}


def test_a_study_with_the_fewest_keys_has_no_fault(slides):
    assert study(tile={"labels": {"source": "slide", "classes": ["tumour", "stroma"]}}) == [
        Note("params.yaml", f"no {split} slide of '{name}' (1 in train, {elsewhere}): nothing is measured of it there. "
             f"Train has no patient of '{name}' to spare: add another patient that shows it.", None, "tile.labels.classes")
        for split, name, elsewhere in (("val", "stroma", "1 in test"), ("test", "tumour", "1 in val"))
    ]  # fmt: skip


def test_a_split_in_params_that_is_another_than_in_the_manifest_is_said(slides):
    tile = CLASSES | {"split": {"assign": {"p0": "test", "p1": "train"}}}
    (note,) = [each for each in study(tile=tile) if each.where.endswith("tile.split.assign")]
    assert note.fact.startswith("it moves 'p0' to another split")


def test_what_the_manifest_tells_of_late_stages_is_said(slides):
    train = [row | {"split": "train"} for row in ROWS]
    assert "nothing to measure against" in faults_of(train)["tile.split"]
    tested = [*train[1:], train[0] | {"split": "test"}]
    assert "no group is in val" in faults_of(tested)["filter.use"]
    assert faults_of(tested, filter={"use": ["quality"]}) == {}
    region = {"slide_id": "s0", "x_level0_px": 100, "width_px": 64, "height_px": 64}
    canvas = {"name": "c", "width_px": 128, "height_px": 128, "image": region | {"keep": True}}
    found = faults_of(tile=None, sample_slides={"slides": [canvas], "window_latent_px": 8})
    assert "reaches beyond slide 's0', which is 128 x 128" in found["sample_slides.slides, 'c'"]


def _of_one_patient(count: int) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "split"} | {"patient_id": "p"} for row in ROWS[:count]]


def test_one_patient_of_two_slides_is_led_to_a_study_without_faults(slides):
    """Each remedy that is named is taken, until nothing is left."""
    (fault,) = faults_among(study(_of_one_patient(2)))
    assert (
        fault.column == "patient_id"
        and "the split group is the patient (tile.split.group), and there is 1: 'p'" in fault.problem
    )
    assert "3 in all" in fault.problem and "tile.split.group: region" in fault.remedy
    by_slide = study(_of_one_patient(2), {"split": {"group": "slide"}})
    (note,) = [each for each in _not_of_labels(by_slide) if isinstance(each, Note)]
    assert faults_among(by_slide) == [] and note.fact.startswith("no group is in test: the split group is the slide")
    assert "measured on val too" in note.fact and "tile.split.group: region" in note.fact
    region = {"split": {"group": "region", "region": {"rows": 2, "cols": 2, "gap_um": 0}}}
    assert _not_of_labels(study(_of_one_patient(2), region)) == []


def test_one_slide_alone_holds_nobody_out_and_the_remedy_is_named(slides):
    (fault,) = faults_among(study(_of_one_patient(1), {"split": {"group": "slide"}}))
    assert fault.where == "params.yaml, tile.split" and "there is 1: 's0'" in fault.problem
    assert "tile.split.group: region" in fault.remedy


@pytest.mark.parametrize("content", [b"short", b"\xff" * 32])
def test_a_salt_that_emit_would_refuse_is_said(slides, monkeypatch, content):
    monkeypatch.delenv("HISTOLOOM_SALT", raising=False)
    assert faults_of() == {} and not (slides / ".histoloom").exists()
    (slides / ".histoloom").mkdir()
    (slides / ".histoloom/salt").write_bytes(content)
    assert ".histoloom/salt" in faults_of()["the salt of codes"]
    monkeypatch.setenv("HISTOLOOM_SALT", "x")
    assert "HISTOLOOM_SALT is shorter" in faults_of()["the salt of codes"]


def test_nuclei_that_are_not_told_apart_are_said():
    masks = {"masks": {"source": "polygons", "classes": ["nucleus"]}}
    sections = {"train_denoiser": {"conditions": ["mask"]}, "encode": {"edges": True}}
    sections["plan"] = {"requests": [REQUEST | {"change": {"mask": {"scatter": True}}}]}
    params = Params(tile={"mpp": 1.0} | CLASSES | masks, **sections)
    manifest = Manifest((SlideEntry("s0", Path("s0.tif"), "p0", 2),), None)
    wheres = [fault.where for fault in check_splits(params, manifest, {"p0": "val"})]
    assert wheres == ["params.yaml, encode.edges", "params.yaml, plan.requests, 'more', change.mask"]


def test_what_emit_would_refuse_of_a_package_is_said_before_it_is_trained_on(slides):
    begun = {"tile": {"mpp": 2.0}, "train_denoiser": {"init": "histoloom-base"}}
    assert any("camelyon16:normal_093" in fault.problem for fault in faults_among(study(**begun)))
    assert _not_of_labels(study(**begun, emit={"allow_unknown_ancestors": True})) == [
        Note(
            "params.yaml, tile.mpp",
            "'histoloom-base' was trained at 0.25, 0.35, 0.5, 0.69, 1 µm/px, and is adapted to 2.",
        )
    ]


def test_captions_that_the_tower_does_not_read_are_counted(slides):
    rows = [row | {"caption": f"{REPORT}, case {n}"} for n, row in enumerate(ROWS)]
    tower = {"train_encoders": {"text": {"source": "histoloom-base"}}, "emit": {"allow_unknown_ancestors": True}}
    [note] = _not_of_labels(study(rows, {"caption": "{caption}"}, **tower))
    assert note.fact.startswith("4 of 4 distinct captions are cut at 24 tokens, and 3 read as another one does")
    [note] = _not_of_labels(study(rows, {"caption": "{caption}, {composition}"}))
    assert note.fact.startswith("of what is known before tiles are cut, 4 of 4")
    tower["train_encoders"]["text"]["max_tokens"] = 96
    assert _not_of_labels(study(rows, {"caption": "{caption}"}, **tower)) == []
    asked = {"plan": {"requests": [REQUEST | {"change": {"caption": REPORT}}]}}
    assert "1 of" in _not_of_labels(study(**asked))[0].fact


def test_a_tower_that_can_not_be_loaded_is_said(slides):
    Path("tower").mkdir()
    Path("tower/open_clip_config.json").write_text('{"model_cfg": {}}')
    rows = [row | {"caption": REPORT} for row in ROWS]
    sections = {"train_encoders": {"text": {"source": "tower"}}, "emit": {"allow_unknown_ancestors": True}}
    assert "could not be loaded" in faults_of(rows, {"caption": "{caption}"}, **sections)["train_encoders.text.source"]


def test_captions_that_are_all_one_teach_no_tower(slides):
    rows = [row | {"caption": "the same"} for row in ROWS]
    assert "all captions are one" in faults_of(rows, {"caption": "{caption}"})["tile.caption"]


def test_known_captions_are_those_that_the_manifests_tell(folder):
    write_csv(
        folder / "manifests/spots.csv",
        [
            {
                "slide_id": "s0",
                "spot_id": f"a{n}",
                "x_level0_px": 1,
                "y_level0_px": 1,
                "label": "tumour",
                "annotation": word,
            }
            for n, word in enumerate(["nests", "nests", ""])
        ],
    )
    spots = Tile(
        mpp=1.0,
        spots="manifests/spots.csv",
        labels={"source": "spots", "classes": ["tumour"]},
        caption="{stain}, {annotation}",
    )
    write_csv(
        folder / "manifests/slides.csv", [{"slide_id": "s0", "path": "s0.tif", "patient_id": "p0", "stain": "H&E"}]
    )
    make_slide(folder / "data/slides/s0.tif", width=64, height=64)
    assert known_captions(check_manifest(spots)[0], spots) == ({"H&E, nests", "H&E"}, True)
    tiles = Tile(mpp=1.0, labels={"source": "polygons", "classes": ["a"]}, caption="{label} of {composition}")
    assert known_captions(check_manifest(spots)[0], tiles)[1] is False
