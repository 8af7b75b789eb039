"""A slide's partner is cut where the slide is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.studies.checks.validate import check_study
from histoloom.studies.stage_work import run_stage
from tests.build import make_study, tissue_picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")


def _study(folder: Path, times: int, form: tuple[int, int] = (64, 64)) -> Study:
    """Three slides; each partner is the slide's negative, `times` as fine."""
    rows = []
    (folder / "data/slides").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        picture = tissue_picture(64, 64, seed=number)
        Image.fromarray(picture).save(folder / f"data/slides/s{number}.png")
        negative = Image.fromarray(255 - picture).resize((form[0] * times, form[1] * times), Image.Resampling.NEAREST)
        negative.save(folder / f"data/slides/n{number}.png")
        rows.append(
            {"slide_id": f"s{number}", "path": f"s{number}.png", "patient_id": f"p{number}", "mpp": 0.5, "label": "tumour",
             "partner": f"n{number}.png", "split": split}
        )  # fmt: skip
    make_study(
        folder, rows,
        {"tile_px": 16, "stride_px": 16, "mpp": 0.5, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100}},
        train_denoiser={"target": "pixels", "conditions": ["partner"], "channels": [8, 16], "steps": 2, "batch_size": 4},
        plan={"target": "none", "requests": [{"name": "as-partner", "tiles": "all", "purpose": "predict"}]},
        sample={"steps": 2}, uplift={"seeds": 0},
    )  # fmt: skip
    (folder / "cluster.yaml").write_text("workers: 0\ntraining_threads: 1\n")
    return Study()


@pytest.mark.parametrize("times", [1, 2])
def test_a_partner_lies_over_the_tile(tmp_path, monkeypatch, times):
    monkeypatch.chdir(tmp_path)
    study = _study(tmp_path, times)
    assert not faults_among(check_study(study))
    run_stage("tile")
    store = TileStore("data/tiles")
    rows = store.rows()
    assert np.abs(255 - store.read(rows).astype(int) - store.read(rows, "partner")).max() <= 1


def test_a_model_learns_from_partners_and_predicts_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _study(tmp_path, 1)
    for name in ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample"):
        run_stage(name)
    assert json.loads(Path("models/denoiser/conditions.json").read_text())["conditions"][0]["name"] == "partner"
    assert len(TileStore("data/predicted").rows()) == len(TileStore("data/tiles").rows())


def test_a_partner_of_another_form_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _study(tmp_path, 1, form=(64, 48))
    with pytest.raises(HistoloomError, match="another form"):
        run_stage("tile")


def test_a_slide_without_a_partner_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = _study(tmp_path, 1)
    path = Path("manifests/slides.csv")
    path.write_text(path.read_text().replace("n1.png", ""))
    (fault,) = faults_among(check_study(study))
    assert fault.column == "partner" and fault.row == 3
