"""A study that is opened from another folder is the same study: it validates, resolves and is tiled as from its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from histoloom.config.package import root
from histoloom.data.study_folder import Study
from histoloom.errors import faults_among
from histoloom.studies.checks.validate import check_study
from histoloom.studies.resolve import write_resolved
from histoloom.studies.stage_work import run_stage
from tests.build import box_ring, feature, make_slide, make_study, write_csv, write_geojson

pytestmark = pytest.mark.long

SPLITS = ("train", "val", "test")


@pytest.fixture
def study(folder) -> Path:
    """A study that names a manifest, annotations, a table, a model's folder, an extractor's, and a woven slide's mask."""
    place = folder / "a study"
    rows = []
    for seed, split in enumerate(SPLITS):
        make_slide(place / f"data/slides/{split}.tif", width=128, height=128, seed=seed)
        write_geojson(place / f"manifests/annotations/{split}.geojson", feature("tumour", box_ring(0, 0, 128, 128)))
        row = {"slide_id": split, "path": f"{split}.tif", "patient_id": split, "split": split, "label": "tumour"}
        rows.append(row | {"annotations": f"{split}.geojson"})
    write_geojson(place / "manifests/woven.geojson", feature("tumour", box_ring(0, 0, 100, 100)))
    write_csv(place / "genes.csv", [{"patient_id": split, "TP53": "MUT"} for split in SPLITS])
    shutil.copytree(root() / "histoloom-base", place / "models/mine")
    slide = {"name": "w", "width_px": 512, "height_px": 512, "mask": "manifests/woven.geojson", "outside": "tissue"}
    make_study(
        place,
        rows,
        {"masks": {"source": "polygons", "classes": ["tumour"]}},
        train_denoiser={"init": "models/mine", "conditions": ["label", "text", "mask", "genotype"]},
        train_encoders={"genotype": {"table": "genes.csv"}},
        sample_slides={"slides": [slide | {"source_groups": ["train"]}]},
        emit={"allow_unknown_ancestors": True},
    )
    (place / "cluster.yaml").write_text("workers: 0\n", encoding="utf-8")
    return place


def _done(study: Study) -> tuple[list[str], dict, dict[str, bytes]]:
    """What validate says, what is resolved, and the names of tiles' parts with their rows."""
    said = [str(each).replace(f"{study.root}/", "") for each in check_study(study)]
    write_resolved(study)
    run_stage("tile", study)
    tiles = {p.parent.name: p.read_bytes() for p in study.tiles.glob("*/rows.parquet")}
    parts = sorted(p.name for p in (study.work("tile") / "shared/parts").iterdir())
    return said, YAML(typ="safe").load(study.resolved.read_text(encoding="utf-8")), tiles | dict.fromkeys(parts, b"")


@pytest.mark.parametrize("relative", [True, False])
def test_a_study_from_elsewhere_is_the_same_study(study, monkeypatch, relative):
    monkeypatch.chdir(study)
    said, resolved, tiles = _done(Study())
    assert not faults_among(check_study(Study())) and resolved["tile"]["manifest"] == "manifests/slides.csv"
    assert len(tiles) == 2 * len(SPLITS) and resolved["files"]["tile"]["slides"]
    monkeypatch.chdir(study.parent)
    (study.parent / "models").mkdir()  # of the same name as the study's, and not it
    elsewhere = Study(Path(study.name) if relative else study)
    assert _done(elsewhere) == (said, resolved, tiles)


def test_a_missing_file_is_said_by_the_place_where_it_was_looked_for(study, monkeypatch):
    (study / "genes.csv").unlink()
    monkeypatch.chdir(study.parent)
    text = "\n".join(map(str, check_study(Study(Path(study.name)))))
    assert "a study/genes.csv" in text
