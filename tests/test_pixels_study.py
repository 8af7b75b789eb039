"""A study that diffuses pixels, as before there were autoencoders: from slides to the emitted set, a woven slide and a package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import zarr
from PIL import Image
from ruamel.yaml import YAML

import histoloom
from histoloom.config import load_params
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.emit.model import Words, package_models
from histoloom.errors import faults_among
from histoloom.studies.checks.validate import check_study
from histoloom.studies.stage_work import run_stage
from tests.build import make_study, tissue_picture

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

STAGES = (
    "tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides",
    "tile_slides", "train_filters", "filter", "evaluate", "emit", "uplift", "report",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "data/slides").mkdir(parents=True)
    rows = []
    for number in range(5):
        Image.fromarray(tissue_picture(96, 96, seed=number)).save(folder / f"data/slides/s{number}.png")
        rows.append(
            {"slide_id": f"s{number}", "path": f"s{number}.png", "patient_id": f"p{number}", "mpp": 0.5,
             "label": ("tumour", "stroma")[number % 2], "split": ("train", "train", "train", "val", "test")[number]}
        )  # fmt: skip
    (folder / "manifests").mkdir()
    (folder / "manifests/genotype.csv").write_text(
        "patient_id,IDH\np0,MUT\np1,WT\np2,MUT\np3,WT\np4,MUT\n", encoding="utf-8"
    )
    make_study(
        folder,
        rows,
        {"tile_px": 16, "stride_px": 16, "mpp": 0.5, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100}},
        train_encoders={"genotype": {"table": "manifests/genotype.csv"}},
        encode={"symmetries": "turns"},
        train_denoiser={
            "target": "pixels", "conditions": ["genotype"], "channels": [16, 32], "steps": 6, "batch_size": 8,
            "prediction": "epsilon", "loss_weight": {"kind": "p2", "gamma": 0.5},
        },
        plan={"target": "none", "evaluation_tiles": 4, "requests": [{"name": "mutant", "tiles": 4, "where": {"genotype": {"IDH": "altered"}}}]},
        sample={"steps": 3},
        sample_slides={"steps": 2, "slides": [{"name": "woven", "width_px": 48, "height_px": 32, "genotype": "IDH=altered"}]},
        filter={"use": ["realism", "near_copy"], "min_yield": 0.0},
        uplift={"seeds": 0},
    )  # fmt: skip
    (folder / "cluster.yaml").write_text("workers: 0\ntraining_threads: 1\n")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setenv("HISTOLOOM_SALT", "a salt for tests")
    assert not faults_among(check_study(Study()))
    for name in STAGES:
        run_stage(name)
    yield folder
    patch.undo()


def test_pixels_are_what_is_diffused(study):
    training = json.loads((study / "models/denoiser/conditions.json").read_text())["training"]
    assert training["target"] == "pixels" and training["shape"] == [3, 16, 16]
    assert {path.name for path in (study / "models/autoencoder").iterdir()} == {"lineage.json"}
    assert json.loads((study / "reports/train_autoencoder/metrics.json").read_text())["psnr_db"] == 100
    assert TileStore("data/synthetic").read(TileStore("data/synthetic").rows()).std() > 1


def test_a_slide_of_pixels_is_woven(study):
    with openslide.open_slide("data/woven/woven/slide.tif") as slide:
        assert np.asarray(slide.read_region((0, 0), 0, (48, 32)))[..., :3].std() > 1


def test_other_formats_are_written_beside_it_without_weaving_again(study):
    before = Path("data/woven/woven/slide.tif").stat()
    yaml = YAML()
    params = yaml.load(Path("params.yaml").read_text(encoding="utf-8"))
    params["sample_slides"]["other_formats"] = ["ome-tiff", "ome-zarr"]
    with Path("params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)
    run_stage("sample_slides")
    assert Path("data/woven/woven/slide.tif").stat().st_ino == before.st_ino
    picture = tifffile.imread("data/woven/woven/slide.tif")
    assert np.array_equal(tifffile.imread("data/woven/woven/slide.ome.tif"), picture)
    levels = zarr.open_group("data/woven/woven/slide.ome.zarr", mode="r")
    assert np.array_equal(levels["0"][:].transpose(1, 2, 0), picture)
    run_stage("tile_slides")


def test_a_package_of_pixels_is_loaded_and_begun_from(study, tmp_path):
    package_models(Study(), tmp_path / "mine", Words("drawn"))
    card = (tmp_path / "mine/README.md").read_text(encoding="utf-8")
    assert "autoencoder" not in card
    model = histoloom.load(tmp_path / "mine")
    assert model.tile_px == 16 and model.conditions == ("genotype",)
    assert np.asarray(model.sample(1, settings=None).images[0]).shape == (16, 16, 3)
    tile = {"manifest": "manifests/slides.csv", "tile_px": 16, "stride_px": 16, "labels": {"source": "none"}}
    (tmp_path / "params.yaml").write_text(
        json.dumps({"tile": tile, "train_denoiser": {"init": str(tmp_path / "mine")}})
    )
    begun = load_params(tmp_path / "params.yaml")
    assert begun.train_denoiser.target.name == "pixels" and begun.train_autoencoder.init == "scratch"
    assert begun.train_denoiser.prediction == "epsilon" and begun.tile.mpp == 0.5


def test_what_latents_alone_have_is_refused(study):
    params = json.loads(json.dumps(Study().params.model_dump(mode="json", exclude_computed_fields=True)))
    params["encode"]["mask_detail"] = 2
    Path("other.yaml").write_text(json.dumps(params))
    with pytest.raises(histoloom.errors.HistoloomError, match="mask_detail must divide"):
        load_params("other.yaml")


def test_its_synthetic_tiles_leave_alone_with_an_audit(study):
    before = Path("params.yaml").read_text()
    Path("params.yaml").write_text(before + "emit: {include: [synthetic]}\n")
    try:
        run_stage("evaluate")
        run_stage("emit")
    finally:
        Path("params.yaml").write_text(before)
    audit = json.loads(Path("reports/evaluate/metrics.json").read_text())["audit"]
    assert {"loss", "nearest_sample"} <= {*audit} and audit["loss"]["train"] >= audit["loss"]["held_out"] > 0
    card = Path("data/dataset/README.md").read_text()
    assert "## Audit" in card and "| train | real |" not in card
