"""The same stages on real slides, from the folder that HISTOLOOM_REAL_DATA names (docs/how-to/develop.md)."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
from PIL import Image

from histoloom.data.store import TileStore
from tests.tiny_study import TINY, dvc, edit_yaml, run, stage

DATA = Path(os.environ.get("HISTOLOOM_REAL_DATA", "/nowhere"))
pytestmark = [pytest.mark.long, pytest.mark.skipif(not DATA.is_dir(), reason="HISTOLOOM_REAL_DATA names no folder")]
SMALL = {name: TINY[name] for name in TINY if name not in ("tile", "plan", "sample_slides")}
SMALL["train_denoiser"] = {name: value for name, value in SMALL["train_denoiser"].items() if name != "conditions"}
SMALL["filter"] = {"min_yield": 0.0}
SPLITS = {"C2": "train", "C3": "val", "C4": "test", "C5": "train"}


def make_study(folder: Path, recipe: str, slides: Path) -> Path:
    histoloom = str(Path(sys.executable).with_name("histoloom"))
    run(folder.parent, histoloom, "init", str(folder), "--recipe", recipe, "--slides", str(slides))
    edit_yaml(folder / "params.yaml", **SMALL, plan={"max_per_class": 8, "evaluation_tiles": 12, "batch_size": 8})
    return folder


def write_manifest(folder: Path, rows: list[dict]) -> None:
    with (folder / "manifests/slides.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def her2st_rows(*sections: str) -> list[dict]:
    return [{"slide_id": s, "path": f"{s}.tif", "patient_id": "HER2ST-C", "split": SPLITS[s]} for s in sections]


def monuseg_rows() -> list[dict]:
    table = pd.read_csv(DATA / "monuseg/images.csv")
    return [
        {"slide_id": Path(r.image).stem, "path": r.image, "patient_id": r.patient_id, "mpp": r.mpp, "label": r.organ,
         "instances": r.instances}
        for r in table.itertuples()
    ]  # fmt: skip


@pytest.fixture
def her2st(tmp_path) -> Path:
    folder = make_study(tmp_path / "her2st", "her2st", DATA / "her2st/slides")
    for name in ("spots.csv", "expression.parquet"):
        shutil.copy(DATA / "her2st" / name, folder / "manifests" / name)
    write_manifest(folder, her2st_rows("C2", "C3", "C4"))
    region = {"slide_id": "C2", "x_level0_px": 3000, "y_level0_px": 3000, "width_px": 160, "height_px": 128}
    weave(folder, {"name": "again", "width_px": 160, "height_px": 128, "image": region | {"strength": 0.5}})
    return folder


def weave(folder: Path, slide: dict) -> None:
    edit_yaml(folder / "params.yaml", sample_slides={"slides": [slide], "steps": 4})


@pytest.fixture
def monuseg(tmp_path) -> Path:
    folder = make_study(tmp_path / "monuseg", "monuseg", DATA / "monuseg")
    write_manifest(folder, monuseg_rows())
    nuclei = np.asarray(Image.open(DATA / "monuseg" / monuseg_rows()[0]["instances"]))[:128, :160]
    (folder / "manifests/canvases").mkdir()
    Image.fromarray((nuclei > 0).astype(np.uint8)).save(folder / "manifests/canvases/mask.png")
    Image.fromarray(nuclei.astype(np.uint16)).save(folder / "manifests/canvases/nuclei.png")
    slide = {"name": "nuclei", "width_px": 160, "height_px": 128, "outside": "tissue", "purpose": "evaluate"}
    files = {"mask": "manifests/canvases/mask.png", "instances": "manifests/canvases/nuclei.png"}
    weave(folder, slide | files | {"source_groups": [monuseg_rows()[0]["patient_id"]]})
    return folder


def test_one_section_more_cuts_one_section(her2st):
    stage(her2st, "tile")
    before = {p: p.read_bytes() for p in her2st.glob("data/tiles/*/commit.json")}
    assert len(before) == 3
    write_manifest(her2st, her2st_rows("C2", "C3", "C4", "C5"))
    assert "1 slide(s) cut, 3 taken as they were" in stage(her2st, "tile").stderr
    assert all(path.read_bytes() == contents for path, contents in before.items())
    rows = TileStore(her2st / "data/tiles").rows()
    assert set(rows["label"]) == {"cancer", "immune", "other"} and set(rows["split_group"]) == set(SPLITS)


def test_thirty_plain_images_are_slides_too(monuseg):
    stage(monuseg, "tile")
    store = TileStore(monuseg / "data/tiles")
    rows = store.rows()
    assert rows["slide_id"].nunique() == 30 and store.has("mask") and store.has("instance")
    assert rows.groupby("patient_id")["split"].nunique().max() == 1
    sample = rows.sample(50, random_state=0)
    masks, instances = store.read(sample, "mask"), store.read(sample, "instance")
    assert ((instances > 0) == (masks > 0)).all() and 0.05 < masks.mean() < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["her2st", "monuseg"])
def test_repro_runs_the_whole_way(name, request):
    folder = request.getfixturevalue(name)
    dvc(folder, "repro")
    metrics = json.loads((folder / "reports/emit/metrics.json").read_text())
    assert metrics["counts"]["train"]["real"] and (folder / "reports/index.html").is_file()
    (slide,) = (folder / "data/woven").glob("*/slide.tif")
    with openslide.open_slide(str(slide)) as woven:
        assert woven.dimensions == (160, 128)
    assert any((folder / "data/woven_tiles").glob("*/commit.json"))
