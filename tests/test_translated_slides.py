"""Whole slides that are translated to another cohort: inverted under their own, and run under the other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histoloom.config import load_params
from histoloom.errors import HistoloomError, faults_among
from histoloom.studies.checks.validate import check_study
from tests.test_programs_study import SIDE, TRAINED, make, run

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]


def _woven(name: str) -> np.ndarray:
    with Image.open(f"data/woven/{name}/slide.tif") as picture:
        return np.asarray(picture).astype(float)


def test_a_whole_slide_is_translated_and_under_its_own_cohort_comes_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = {"slide_id": "s0", "width_px": SIDE, "height_px": SIDE, "inverted": True}
    slides = [
        {"name": site, "width_px": SIDE, "height_px": SIDE, "cohort": {"site": site}, "image": image}
        for site in ("north", "south")
    ]
    woven = {
        "scheduler": "ddim",
        "steps": 20,
        "guidance": 1.0,
        "block_latent_px": 32,
        "slides": slides,
        "compression": "deflate",
    }
    training = {"target": "pixels", "conditions": ["cohort"], "steps": 120, "learning_rate": 2e-3, "ema_decay": 0.9}
    study = make(tmp_path, training, [{"name": "few", "tiles": 2}], sample_slides=woven)
    assert not faults_among(check_study(study))
    run(*TRAINED, "sample_slides")
    with Image.open("data/slides/s0.png") as picture:
        real = np.asarray(picture.convert("RGB")).astype(float)
    north, south = _woven("north"), _woven("south")
    assert north.shape == real.shape
    contrast = np.abs(real - real.mean((0, 1))).mean()
    assert np.abs(north - real).mean() < min(np.abs(south - real).mean(), 0.3 * contrast)
    assert np.abs(south - real).mean() < 0.5 * contrast  # what is there stays there
    assert json.loads(Path("data/woven/south/canvas.json").read_text())["ancestors"] == ["p0"]
    before, manifest = Path("data/woven/south/slide.tif").read_bytes(), Path("manifests/slides.csv")
    table = pd.read_csv(manifest)
    table.loc[table["slide_id"] == "s0", "site"] = "south"  # what it is inverted under
    table.to_csv(manifest, index=False)
    run("sample_slides")
    assert Path("data/woven/south/slide.tif").read_bytes() != before


@pytest.mark.parametrize(
    ("woven", "image", "message"),
    [
        ({"scheduler": "unipc"}, {}, "steps of ddim"),
        ({"scheduler": "ddim", "eta": 0.5}, {}, "steps of ddim"),
        ({"scheduler": "ddim"}, {"strength": 0.5}, "translated as a whole"),
        ({"scheduler": "ddim"}, {"width_px": 32}, "smaller than the slide"),
    ],
)
def test_what_can_t_be_inverted_is_refused(tmp_path, monkeypatch, woven, image, message):
    monkeypatch.chdir(tmp_path)
    image = {"slide_id": "s0", "width_px": SIDE, "height_px": SIDE, "inverted": True} | image
    slide = {"name": "a", "width_px": SIDE, "height_px": SIDE, "image": image}
    requests, slides = [{"name": "few", "tiles": 2}], woven | {"slides": [slide]}
    with pytest.raises(HistoloomError, match=message):
        make(tmp_path, {"target": "pixels", "conditions": ["cohort"]}, requests, sample_slides=slides)
        load_params("params.yaml")
