"""`histoloom validate` says what stages that come late would refuse, each with its key; a study that goes through has no fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from histoloom.cli.validate import validate_study
from histoloom.config import Cluster, Params, Tile
from histoloom.config.foreseen import check_foreseen
from histoloom.data.manifest import Manifest, check_manifest
from histoloom.data.slide_entry import SlideEntry
from histoloom.errors import Fault, Note, faults_among, notes_among
from histoloom.slides.describe import known_captions
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
    return validate_study()


def faults_of(rows=ROWS, tile: dict | None = None, **sections) -> dict[str, str]:
    return {
        fault.where.removeprefix("params.yaml, "): fault.problem
        for fault in faults_among(study(rows, tile, **sections))
    }


def foreseen(cluster: dict | None = None, tile: dict | None = None, **sections) -> dict[str, str]:
    params = Params(tile={"mpp": 1.0, "tile_px": 64} | CLASSES | (tile or {}), **sections)
    faults = check_foreseen(params, Cluster(**(cluster or {"device": "cpu"})))
    assert all(fault.remedy for fault in faults)
    return {fault.where.removeprefix("params.yaml, "): fault.problem for fault in faults}


CANVAS = {"name": "c", "width_px": 256, "height_px": 256}
STAIN = {"masks": {"source": "stain", "classes": ["nucleus"]}}
REQUEST = {"name": "more", "tiles": 3}


@pytest.mark.parametrize(
    "key, word, tile, sections",
    [
        ("train_denoiser.channels", "halved 4 times", {}, {"train_denoiser": {"channels": [8] * 5, "steps": 4}, "train_autoencoder": {"down_factor": 8}}),
        ("train_denoiser.windows_latent_px", "32", {}, {"train_denoiser": {"windows_latent_px": [32]}}),
        ("train_denoiser.conditions", "label", {"labels": {"source": "none", "classes": []}}, {"plan": {"target": "none", "evaluation_tiles": 1}, "uplift": {"seeds": 0}}),
        ("train_encoders.text.heads", "5", {}, {"train_encoders": {"text": {"heads": 5}}}),
        ("train_denoiser.attention_head_dim", "96 channels", {}, {"train_denoiser": {"attention_head_dim": 1000}}),
        ("tile.caption", "quotes nothing", {"caption": "H&E"}, {}),
        ("train_denoiser.resume_from", "gone", {}, {"train_denoiser": {"resume_from": "gone"}}),
        ("train_autoencoder.resume_from", "gone", {}, {"train_autoencoder": {"resume_from": "gone"}}),
        ("train_denoiser.mixed_precision", "GPU", {}, {"train_denoiser": {"mixed_precision": "fp16"}}),
        ("sample.precision", "GPU", {}, {"sample": {"precision": "fp16"}}),
        ("train_denoiser.attention", "xformers", {}, {"train_denoiser": {"attention": "xformers"}}),
        ("plan.target", "nothing to make", {}, {"plan": {"target": "none"}}),
        ("plan.target", "one class", {"labels": {"source": "slide", "classes": ["a"]}}, {"uplift": {"seeds": 0}}),
        ("sample.steps", "1000", {}, {"sample": {"steps": 5000}}),
        ("sample_slides.steps", "1000", {}, {"sample_slides": {"slides": [CANVAS], "steps": 1001}}),
        ("plan.requests[0].change.leave_out", "mask", STAIN, {"train_denoiser": {"conditions": ["mask"]}, "plan": {"requests": [REQUEST | {"change": {"leave_out": ["mask"]}}]}}),
        ("sample_slides.slides, 'c'", "512", {}, {"sample_slides": {"slides": [CANVAS], "window_latent_px": 128}}),
        ("sample_slides.halo_latent_px", "quarter", {}, {"sample_slides": {"slides": [CANVAS], "halo_latent_px": 6}}),
        ("filter.use", "mask", {}, {"filter": {"use": ["mask"]}}),
        ("filter.use", "rna", {}, {"filter": {"use": ["rna"]}}),
        ("filter.use", "both towers", {}, {"filter": {"use": ["text"]}, "train_encoders": {"text": {"source": "transformers:vinid/plip"}}}),
        ("filter.use", "review", {}, {"filter": {"use": ["review"]}}),
        ("uplift.task", "mask", {}, {"uplift": {"task": "mask"}}),
        ("uplift.seeds", "two classes", {"labels": {"source": "slide", "classes": ["a"]}}, {"plan": {"evaluation_tiles": 3}}),
        ("tile.summarise", "no-such-program", {"summarise": "no-such-program -x"}, {}),
        ("evaluate.features", "no/such", {}, {"evaluate": {"features": "no/such"}}),
    ],
)  # fmt: skip
def test_what_params_alone_tell_of_late_stages_is_said(folder, key, word, tile, sections):
    found = foreseen(None, tile, **sections)
    assert list(found) == [key] and word in found[key]


def test_params_that_every_stage_takes_have_no_fault(folder):
    assert foreseen() == {}
    few = {"labels": {"source": "slide", "classes": ["a"]}}
    assert foreseen(None, few, plan={"evaluation_tiles": 3}, uplift={"seeds": 0}) == {}


def test_a_study_with_the_fewest_keys_has_no_fault(slides):
    assert study() == []


def test_what_the_manifest_tells_of_late_stages_is_said(slides):
    train = [row | {"split": "train"} for row in ROWS]
    assert "nothing to measure against" in faults_of(train)["tile.split"]
    region = {"slide_id": "s0", "x_level0_px": 100, "width_px": 64, "height_px": 64}
    canvas = {"name": "c", "width_px": 128, "height_px": 128, "image": region | {"keep": True}}
    found = faults_of(tile=None, sample_slides={"slides": [canvas], "window_latent_px": 8})
    assert "reaches beyond slide 's0', which is 128 x 128" in found["sample_slides.slides, 'c'"]


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
    from histoloom.cli.foreseen import check_study

    masks = {"masks": {"source": "polygons", "classes": ["nucleus"]}}
    sections = {"train_denoiser": {"conditions": ["mask"]}, "encode": {"edges": True}}
    sections["plan"] = {"requests": [REQUEST | {"change": {"mask": {"scatter": True}}}]}
    params = Params(tile={"mpp": 1.0} | CLASSES | masks, **sections)
    manifest = Manifest((SlideEntry("s0", Path("s0.tif"), "p0", 2),), None)
    wheres = [fault.where for fault in check_study(params, manifest, {"p0": "val"})]
    assert wheres == ["params.yaml, encode.edges", "params.yaml, plan.requests, 'more', change.mask"]


def test_what_emit_would_refuse_of_a_package_is_said_before_it_is_trained_on(slides):
    begun = {"train_denoiser": {"init": "histoloom-small"}}
    assert any("her2st:C2" in fault.problem for fault in faults_among(study(**begun)))
    assert study(**begun, emit={"allow_unknown_ancestors": True}) == [
        Note("params.yaml, tile.mpp", "'histoloom-small' was trained at 0.69 µm/px, and is adapted to 1.")
    ]


def test_captions_that_the_tower_does_not_read_are_counted(slides):
    rows = [row | {"caption": f"{REPORT}, case {n}"} for n, row in enumerate(ROWS)]
    tower = {"train_encoders": {"text": {"source": "histoloom-small"}}, "emit": {"allow_unknown_ancestors": True}}
    [note] = notes_among(study(rows, {"caption": "{caption}"}, **tower))
    assert note.fact.startswith("4 of 4 distinct captions are cut at 24 tokens, and 3 read as another one does")
    [note] = notes_among(study(rows, {"caption": "{caption}, {composition}"}))
    assert note.fact.startswith("of what is known before tiles are cut, 4 of 4")
    tower["train_encoders"]["text"]["max_tokens"] = 96
    assert notes_among(study(rows, {"caption": "{caption}"}, **tower)) == []
    asked = {"plan": {"requests": [REQUEST | {"change": {"caption": REPORT}}]}}
    assert "1 of" in notes_among(study(**asked))[0].fact


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
