"""Studies of several models: layouts, then tiles; small tiles, then larger ones; codes, then tiles; and masks found in pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from histoloom.config import load_params
from histoloom.data.pixel_box import PixelBox
from histoloom.data.plan import CONDITIONS
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.slides.rasters import read_raster
from histoloom.studies.checks.validate import check_study
from histoloom.studies.dvc_yaml import study_yaml
from histoloom.studies.named_files import resolved
from histoloom.studies.stage_work import run_stage
from histoloom.studies.stages import STAGES
from tests.stages import study_of
from tests.test_programs_study import TRAINED, make, run

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

LAYOUTS = {
    "layouts": {"train_denoiser": {"target": "instances", "conditions": ["label"]}, "sample": {"steps": 6}},
    "tiles": {"train_denoiser": {"conditions": ["label", "mask"]}, "encode": {"edges": True}},
}
REQUESTS = [{"name": "tumours", "tiles": 6, "where": {"label": "tumour"}}]


def make_chain(folder: Path, models: dict, chain: list[str], requests: list[dict] = REQUESTS, **sections) -> Study:
    make(folder, {"target": "pixels", "conditions": ["label"]}, REQUESTS, **sections)
    params = YAML(typ="safe").load((folder / "params.yaml").read_text())
    params |= {"models": models, "sample": params["sample"] | {"chain": chain}}
    params["plan"]["requests"] = requests
    (folder / "params.yaml").write_text(json.dumps(params))
    return Study()


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    study = make_chain(folder, LAYOUTS, ["layouts", "tiles"])
    assert not faults_among(check_study(study))
    run(*TRAINED, "plan", "sample")
    yield study
    patch.undo()


@pytest.mark.parametrize("name", ["plan", "sample", "sample_slides", "evaluate"])
def test_which_models_are_run_counts_for_what_runs_them(layouts, name):
    assert {"models", "sample.chain"} <= {*STAGES[name].keys(several=True)}
    other = layouts.stated.model_copy(update={"sample": layouts.stated.sample.model_copy(update={"chain": ("tiles",)})})
    before, after = (
        resolved(study_of(params, layouts.root), ("models", "sample.chain")) for params in (layouts.stated, other)
    )
    assert before != after


def test_each_model_has_folders_of_its_own_and_states_what_it_has_otherwise(layouts):
    for name, target in (("layouts", "instances"), ("tiles", "pixels")):
        record = json.loads(Path(f"models/{name}/denoiser/conditions.json").read_text())
        assert record["training"]["target"] == target
        assert Path(f"data/encoded/{name}").is_dir() and Path(f"reports/train_denoiser/{name}/metrics.json").is_file()
    assert (
        layouts.params.of("layouts").train_denoiser.channels
        == layouts.params.of("tiles").train_denoiser.channels
        == (16, 32)
    )
    assert layouts.params.of("layouts").sample.steps == 6 and layouts.params.of("tiles").sample.steps == 10


def test_a_tile_is_painted_over_the_layout_that_was_made_for_it(layouts):
    store = TileStore("data/synthetic")
    rows = store.rows()
    assert rows["masked"].all() and {*rows["label"]} == {"tumour"}
    masks, images = store.read(rows, "mask"), store.read(rows)
    assert masks.std() > 0 and images.std() > 1 and store.has("edge") and store.has("instance")
    assert not (Path("data/plan") / CONDITIONS).exists()  # no mask of a real tile is lent
    lineage = json.loads(Path("data/synthetic/lineage.json").read_text())
    assert [*lineage] == [rows["generator_sha256"].iloc[0]]


def test_a_run_of_one_model_alone_leaves_the_other(layouts):
    before = {path: path.stat().st_mtime_ns for path in Path("models").rglob("*.safetensors")}
    run_stage("train_denoiser", model="tiles")
    changed = {path.parts[1] for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert changed == {"tiles"}
    with pytest.raises(HistoloomError, match="its models are layouts, tiles"):
        run_stage("train_denoiser", model="upscaler")
    with pytest.raises(HistoloomError, match="all models share it"):
        run_stage("plan", model="tiles")


def test_nothing_changes_on_another_run(layouts):
    before = TileStore("data/synthetic").read(TileStore("data/synthetic").rows())
    run("sample")
    assert (TileStore("data/synthetic").read(TileStore("data/synthetic").rows()) == before).all()


def test_dvc_reads_the_stages_of_each_model(layouts, tmp_path):
    shutil.copy("params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text(study_yaml(("layouts", "tiles")))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {"train_denoiser@layouts", "train_denoiser@tiles", "encode@tiles", "sample"} <= {*listed}
    assert "train_denoiser" not in listed
    text = (tmp_path / "dvc.yaml").read_text()
    assert "models.${item}.train_denoiser" in text and "models/layouts/denoiser" in text


def test_the_other_stages_take_what_the_chain_made(layouts):
    run("sample_slides", "tile_slides", "train_filters", "filter", "evaluate", "emit", "uplift", "report")
    assert "train_denoiser" in Path("reports/index.html").read_text(encoding="utf-8")


def test_a_slide_is_woven_by_the_last_model(layouts):
    params = json.loads(Path("params.yaml").read_text())
    before = Path("params.yaml").read_text()
    params["sample_slides"] = {
        "steps": 2,
        "slides": [{"name": "woven", "width_px": 48, "height_px": 32, "label": "stroma"}],
    }
    Path("params.yaml").write_text(json.dumps(params))
    assert not faults_among(check_study(Study()))
    run("sample_slides", "tile_slides")
    Path("params.yaml").write_text(before)
    assert len(TileStore("data/woven_tiles").rows())


def _generated(study: Study, **slide) -> None:
    params = json.loads((study.root / "params.yaml").read_text())
    slide = {
        "name": "made",
        "width_px": 48,
        "height_px": 32,
        "label": "tumour",
        "mask": "generated",
        "outside": "tissue",
    } | slide
    params["sample_slides"] = {"steps": 2, "block_latent_px": 16, "slides": [slide]}
    (study.root / "params.yaml").write_text(json.dumps(params))


def test_a_slide_is_woven_from_a_label_alone_over_a_mask_that_is_made_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = {
        "layouts": {"train_denoiser": {"target": {"name": "masks", "least_px": 4}, "conditions": ["label"]}},
        "tiles": {"train_denoiser": {"conditions": ["mask"]}},
    }
    study = make_chain(tmp_path, models, ["layouts", "tiles"])
    _generated(study)
    assert not faults_among(check_study(Study()))
    run(*TRAINED, "sample_slides", "tile_slides")
    facts = json.loads(Path("data/woven/made/canvas.json").read_text())
    lineage = json.loads(Path("data/woven/lineage.json").read_text())
    assert [*lineage] == [facts["generator_sha256"]] and not facts["ancestors"]
    mask = Path("data/woven/made/condition.tif")
    ids = read_raster(mask, 48, 32).read(PixelBox(0, 0, 48, 32))
    assert 0 < (ids > 0).mean() < 1
    assert TileStore("data/woven_tiles").read(TileStore("data/woven_tiles").rows(), "mask").any()
    assert facts["generator_sha256"] not in json.loads(Path("models/tiles/denoiser/lineage.json").read_text())
    before = mask.read_bytes(), Path("data/woven/made/slide.tif").read_bytes()
    shutil.rmtree(".work")
    run("sample_slides")
    assert (mask.read_bytes(), Path("data/woven/made/slide.tif").read_bytes()) == before


def test_a_mask_is_generated_by_a_model_of_masks_for_one_that_reads_them(layouts):
    before = Path("params.yaml").read_text()
    for chain, message in ((["layouts", "tiles"], "encode.edges"), (["tiles"], "no model of masks")):
        _generated(layouts)
        params = json.loads(Path("params.yaml").read_text())
        params["sample"]["chain"] = chain
        Path("params.yaml").write_text(json.dumps(params))
        with pytest.raises(HistoloomError, match=message):
            load_params("params.yaml")
        Path("params.yaml").write_text(before)


SMALL = {"name": "pixels", "factor": 4}


def test_small_tiles_are_enlarged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = {
        "small": {"train_denoiser": {"target": SMALL, "channels": [16]}},
        "large": {
            "train_denoiser": {"conditions": ["picture"], "augment": {"picture": 0.5}},
            "train_encoders": {"picture": {"factor": 4}},
            "sample": {"augment": {"picture": 0.2}},
        },
    }
    requests = [*REQUESTS, {"name": "enlarged", "tiles": "all", "purpose": "predict", "chain": ["large"]}]
    study = make_chain(tmp_path, models, ["small", "large"], requests)
    assert not faults_among(check_study(study))
    run(*TRAINED, "plan", "sample")
    store = TileStore("data/synthetic")
    assert store.read(store.rows()).shape == (6, 16, 16, 3)
    assert json.loads(Path("models/small/denoiser/conditions.json").read_text())["training"]["shape"] == [3, 4, 4]
    (picture,) = json.loads(Path("models/large/denoiser/conditions.json").read_text())["conditions"]
    assert picture["channels"] == ["red", "green", "blue", "noise"]
    predicted, real = TileStore("data/predicted"), TileStore("data/tiles")
    assert len(predicted.rows()) == len(real.rows())


def test_masks_are_found_in_the_tile_s_own_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    requests = [{"name": "found", "tiles": "all", "purpose": "predict", "samples": 3, "reduce": "vote"}]
    training = {"target": "masks", "conditions": ["picture"], "steps": 150, "drop": {"picture": 0.0}, "prediction": "sample",
                "loss_weight": {"kind": "none"}, "learning_rate": 0.003, "ema_decay": 0.9}  # fmt: skip
    study = make(tmp_path, training, requests)
    assert not faults_among(check_study(study))
    run(*TRAINED, "plan", "sample")
    store, real = TileStore("data/predicted"), TileStore("data/tiles")
    rows = store.rows()
    stated = real.read(real.rows().set_index("tile_id").loc[rows["condition_ref"]], "mask")
    assert store.read(rows, "mask").shape == stated.shape


def test_a_code_is_drawn_then_a_tile_of_that_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = {
        "codes": {
            "train_denoiser": {
                "target": {"name": "vectors", "condition": "cohort"},
                "backbone": "mlp",
                "conditions": ["label"],
            }
        },
        "tiles": {"train_denoiser": {"conditions": ["cohort"]}},
    }
    study = make_chain(tmp_path, models, ["codes", "tiles"])
    assert not faults_among(check_study(study))
    run(*TRAINED, "plan", "sample")
    store = TileStore("data/synthetic")
    assert store.read(store.rows(), "vector").shape == (6, 2) and store.read(store.rows()).std() > 1


@pytest.mark.parametrize(
    ("models", "chain", "message"),
    [
        (LAYOUTS, [], "name in sample.chain"),
        (LAYOUTS, ["layouts", "nobody"], "sample.chain names \\['nobody'\\]"),
        ({}, ["layouts"], "states none"),
        ({"filters": {}}, ["filters"], "are names of other folders"),
        ({"a": {"train_denoiser": {"stepz": 1}}}, ["a"], "models.a.train_denoiser.stepz: there is no such key"),
        ({"a": {"train_denoiser": {"conditions": ["label", "label"]}}}, ["a"], "models.a: train_denoiser.conditions names"),
        ({"a": {"train_denoiser": {"target": "masks"}}}, ["a"], "makes masks, and no pictures"),
        ({"a": {"train_denoiser": {"augment": {"picture": 0.1}}}}, ["a"], "augment names \\['picture'\\], which conditions"),
        ({"a": {"sample": {"augment": {"picture": 0.1}}}}, ["a"], "adds more noise to picture than train_denoiser.augment"),
    ],
)  # fmt: skip
def test_what_can_t_be_a_chain_is_refused(tmp_path, monkeypatch, models, chain, message):
    monkeypatch.chdir(tmp_path)
    make_chain(tmp_path, models, chain)
    with pytest.raises(HistoloomError, match=message):
        load_params("params.yaml")
