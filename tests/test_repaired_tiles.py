"""Pen on train tiles, made anew before anything is trained: marked, counted, and the repairing model's patients among the ancestors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histoloom.config import load_params
from histoloom.config.tile import Repair
from histoloom.data.lineage import read_lineage
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.sampling.repair import repair_of
from histoloom.studies.checks.validate import check_study
from tests.build import make_study, tissue_picture
from tests.test_programs_study import TRAINED, make, run

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]
INK, SIDE, PX = (20, 60, 160), 256, 32


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Those of another study, of patients p0 to p2, that know pictures alone."""
    folder = tmp_path_factory.mktemp("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make(folder, {"target": "pixels", "conditions": []}, [{"name": "x", "tiles": 2}])
        run(*TRAINED)
    return folder / "models"


def _study(folder: Path, **repair) -> None:
    """Two slides, the second held out, each with a stroke of pen over its tissue."""
    rows = []
    (folder / "data/slides").mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train", "test")):
        picture = np.array(tissue_picture(SIDE, SIDE, seed=20 + number))
        picture[:, 108:172] = INK
        Image.fromarray(picture).save(folder / f"data/slides/q{number}.png")
        Image.fromarray(np.ones((SIDE, SIDE), np.uint8)).save(folder / f"data/slides/mask{number}.png")
        rows.append({"slide_id": f"q{number}", "path": f"q{number}.png", "mask": f"mask{number}.png", "patient_id": f"q{number}", "mpp": 0.5, "split": split, "label": "a"})  # fmt: skip
    tile = {
        "tile_px": PX, "stride_px": PX, "mpp": 0.5, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100},
        "labels": {"source": "slide", "classes": ["a"]}, "masks": {"source": "raster", "classes": ["all"]}, "repair": {"steps": 4, "rounds": 2, "max_pen": 0.7, **repair},
    }  # fmt: skip
    make_study(folder, rows, tile, train_denoiser={"target": "pixels", "conditions": []}, uplift={"seeds": 0})
    (folder / "cluster.yaml").write_text("workers: 0\ntraining_threads: 1\n")


def _tiles() -> tuple[pd.DataFrame, dict]:
    metrics = json.loads(Path("reports/tile/metrics.json").read_text())["tissue_left_out"]
    return TileStore(Path("data/tiles")).rows().set_index("tile_id", drop=False), metrics


def test_pen_on_train_tiles_is_made_anew_and_marked(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    _study(tmp_path)
    run("tile")
    before, counted = _tiles()
    assert (before["repaired"] == 0).all() and counted["train_tiles_with_pen"] > 0 and counted["tiles_repaired"] == 0
    assert not (tmp_path / "data/tiles/lineage.json").exists()
    _study(tmp_path, model=str(models))
    run("tile")
    after, found = _tiles()
    repaired = after[after["repaired"] > 0]
    assert len(repaired) == found["tiles_repaired"] == found["train_tiles_with_pen"] == counted["train_tiles_with_pen"]
    assert {*repaired["split"]} == {"train"} and len(after) > len(before)
    store = TileStore(Path("data/tiles"))
    for _, row in repaired.iterrows():
        x, y = row["x_level0_px"], row["y_level0_px"]
        scanned = np.asarray(Image.open("data/slides/q0.png"))[y : y + PX, x : x + PX]
        shown = store.read(after.loc[[row["tile_id"]]])[0]
        changed = (shown != scanned).any(-1)
        assert 0 < changed.mean() <= row["repaired"] < 1
        assert not ((scanned == INK).all(-1) & ~changed).any()  # no ink is left
        mask = store.read(after.loc[[row["tile_id"]]], "mask")[0]
        assert {*mask[~changed]} <= {1, UNKNOWN} and (mask[changed] == UNKNOWN).all(), "nobody knows what is there"
        assert (mask == UNKNOWN).mean() == row["repaired"]
    assert {"p0", "p1", "p2"} <= {*read_lineage(Path("data/tiles")).groups}
    parts = {path: path.stat().st_mtime_ns for path in Path("data/tiles").glob("*/rows.parquet")}
    run("tile")
    assert {path: path.stat().st_mtime_ns for path in parts} == parts


def test_a_model_that_saw_a_held_out_patient_is_refused(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    _study(tmp_path, model=str(models))
    manifest = Path("manifests/slides.csv")
    manifest.write_text(manifest.read_text().replace("q1,q1.png,q1", "q1,q1.png,p1"))
    assert any("tile.repair.model" in fault.problem for fault in faults_among(check_study(Study())))


def test_what_repair_can_t_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _study(tmp_path, model="nowhere")
    with pytest.raises(HistoloomError, match="names no model: nowhere"):
        run("tile")
    assert any("names no model" in fault.problem for fault in faults_among(check_study(Study())))
    text = Path("params.yaml").read_text()
    for more, said in (("stain: macenko", "would read those under the pen"), ("more_mpp: [1.0]", "repair or more_mpp")):
        Path("params.yaml").write_text(text.replace("  mpp: 0.5", f"  mpp: 0.5\n  {more}"))
        with pytest.raises(HistoloomError, match=said):
            load_params("params.yaml")


def test_a_model_of_another_scale_or_of_masks_is_refused(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HistoloomError, match=r"learnt tiles of 0.5 µm/px, and tile.mpp is 1"):
        repair_of(Repair(model=str(models)), 1.0, 0)
    shutil.copytree(models.parent, tmp_path / "study")
    record = tmp_path / "study/models/denoiser/conditions.json"
    record.write_text(record.read_text().replace('"pixels"', '"masks"'))
    (tmp_path / "study/models/autoencoder").mkdir(exist_ok=True)
    (tmp_path / "study/models/autoencoder/target.json").write_text('{"classes": 1}')
    with pytest.raises(HistoloomError, match="makes masks, no pictures"):
        repair_of(Repair(model=str(tmp_path / "study/models")), 0.5, 0)
