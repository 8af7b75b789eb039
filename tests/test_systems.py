"""Every published system's recipe runs on drawn data and measures something; and what it comes to is in the range that it states."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML

from benchmarks.studies import change_params
from benchmarks.systems import measured_once
from benchmarks.systems_page import pages
from benchmarks.systems_picture import write_picture
from histoloom import registry, systems
from histoloom.cli.init import SystemStudy, make_study
from histoloom.cli.recipe import merge
from histoloom.config import load_params
from histoloom.data.drawn import write_drawn
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.studies.checks.validate import check_study
from histoloom.studies.stage_work import run_stage

FEW = {"SEEDS": 1, "STEPS": 2, "EACH": 3}
"""What a system's own measure repeats, so that it takes moments."""


def make_tiny(name: str, folder: Path, recipes: tuple[str, ...] = ()) -> Study:
    """A system's study whose trainings take two steps."""
    make_study(folder, recipes, system=SystemStudy(name))
    (folder / "cluster.yaml").write_text("workers: 0\ntraining_threads: 1\n")
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path.read_text())
    merge(params, {"train_encoders": {"rna": {"steps": 4}, "text": {"steps": 2}, "image": {"steps": 2}}})
    merge(params, {"train_filters": {"segmenter_steps": 2}, "plan": {"batch_size": 16}})
    for model in (params, *(params.get("models") or {}).values()):
        denoiser = model.setdefault("train_denoiser", {})
        if denoiser.get("steps", 1) and "init" not in params["train_denoiser"]:
            merge(denoiser, {"channels": [8, 16]})
        if denoiser.get("steps", 1):
            denoiser["steps"] = 2
        if "steps" in (model.get("train_autoencoder") or {}):
            model["train_autoencoder"]["steps"] = min(2, model["train_autoencoder"]["steps"])
        if "prior" in denoiser:
            merge(denoiser["prior"], {"tiles": 4, "steps": 2})
    for section in ("sample", "sample_slides", "uplift"):
        params[section]["steps"] = 2
    for request in params["plan"]["requests"]:
        request["tiles"] = 12
    with path.open("w") as stream:
        yaml.dump(params, stream)
    return Study(folder)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
@pytest.mark.parametrize("name", systems.names())
def test_a_recipe_runs_and_measures(name, tmp_path, monkeypatch):
    monkeypatch.setattr("histoloom.data.drawn.write_drawn.__defaults__", (14, 64, 0))
    study, code = make_tiny(name, tmp_path / name), systems.code_of(name)
    monkeypatch.chdir(study.root)
    assert not faults_among(check_study(Study()))
    for stage in code.STAGES:
        run_stage(stage, Study())
    for constant, value in FEW.items():
        if hasattr(code, constant):
            monkeypatch.setattr(code, constant, value)
    found = code.measure([Study()])
    assert {*found} == {*systems.Measured.__annotations__} and found["n"] > 0
    assert all(isinstance(number, float) for number in found["more"].values())
    assert math.isfinite(found["value"]) and math.isfinite(found["baseline"])
    write_picture(code, Study(), Path("picture.jpg"))
    assert Path("picture.jpg").stat().st_size > 1000


@pytest.mark.parametrize("name", systems.names())
def test_params_of_full_size_hold(name, tmp_path, monkeypatch):
    monkeypatch.setattr("histoloom.data.drawn.write_drawn.__defaults__", (14, 64, 0))
    make_study(tmp_path / "study", system=SystemStudy(name))
    full = YAML(typ="safe").load((systems.folder_of(name) / systems.FULL).read_text(encoding="utf-8"))
    change_params(tmp_path / "study/params.yaml", full)
    load_params(tmp_path / "study/params.yaml")


def test_real_data_change_what_real_yaml_states(tmp_path):
    data = tmp_path / "her2st"
    (data / "slides").mkdir(parents=True)
    for name in ("C2", "C3", "C4", "C5"):
        (data / f"slides/{name}.tif").write_bytes(b"")
    (data / "spots.csv").write_text("spot_id,slide_id,x_level0_px,y_level0_px,label\n")
    make_study(tmp_path / "study", system=SystemStudy("diffinfinite", data, 0))
    params = load_params(tmp_path / "study/params.yaml")
    assert (params.tile.masks.source, params.tile.mpp) == ("spots", 1.38)
    assert pd.read_csv(tmp_path / "study/manifests/slides.csv")["split"].tolist() == ["train", "train", "val", "test"]


def test_summarised_reports_are_params_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("histoloom.data.drawn.write_drawn.__defaults__", (14, 64, 0))
    make_study(tmp_path / "study", system=SystemStudy("pathldm"))
    overlay = YAML(typ="safe").load((systems.folder_of("pathldm") / "summarised.yaml").read_text(encoding="utf-8"))
    change_params(tmp_path / "study/params.yaml", overlay)
    assert load_params(tmp_path / "study/params.yaml").tile.summarise
    assert (tmp_path / "study/summarise.py").is_file()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
def test_a_section_between_two_is_made_and_measured(tmp_path, monkeypatch):
    recipe, code = systems.folder_of("emdiffuse") / "between.yaml", systems.code_of("emdiffuse")
    study = make_tiny("emdiffuse", tmp_path / "study", (str(recipe),))
    monkeypatch.chdir(study.root)
    assert not faults_among(check_study(Study()))
    for stage in code.STAGES:
        run_stage(stage, Study())
    found = code.measure([Study()])
    assert found["n"] > 0 and math.isfinite(found["value"]) and found["more"]["psnr_nearest"] < found["baseline"]
    assert {len(tiles) for tiles in code.shown(Study()).values()} == {10}


def test_no_place_of_real_sections_is_both_learnt_and_held_out(tmp_path):
    raw = np.broadcast_to(np.arange(8)[:, None, None] * 30 + np.arange(256) // 128 * 15, (8, 256, 256)).astype(np.uint8)
    np.savez(tmp_path / "sections.npz", raw=raw)
    middles = systems.code_of("emdiffuse")._middles(tmp_path)
    seen = {split: set() for split in ("train", "test")}
    for _, split, place, three in middles:
        assert three.ndim == 3 and len(three) == 3 and place.startswith("left" if split == "train" else "right")
        seen[split] |= set(np.unique(three).tolist())
    assert not seen["train"] & seen["test"]
    assert {place for _, split, place, _ in middles if split == "test"} == {"right_000", "right_032"}


@pytest.mark.parametrize("name", systems.names())
def test_a_system_s_folder_is_whole(name):
    text = (systems.folder_of(name) / systems.PAGE).read_text(encoding="utf-8")
    for heading in ("## The paper", "## What differs here", "## Run it", "## Measured"):
        assert heading in text
    stated = systems.expected(name)
    assert {"value", "seconds", "measured"} <= {*stated} and {*stated["measured"]} == {
        "value",
        "baseline",
        "interval",
        "better",
        "unit",
        "data",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", systems.names())
def test_a_system_comes_to_what_it_states(name):
    """It takes minutes each. What was measured is kept in .work/systems, so that a run that was broken off is gone on with."""
    if systems.expected(name)["value"] is None:
        pytest.skip(f"{name} has not been measured yet")
    found = measured_once(name)
    low, high = systems.expected(name)["value"]
    assert low <= found["value"] <= high


def test_a_translated_tile_without_a_partner_is_left_out():
    made = pd.DataFrame({"input_ref": [f"03_{n}_north_0_0" for n in range(3)]})
    rows, names = systems.code_of("ddib").with_partners(made, pd.Index(["03_0_south_0_0", "03_2_south_0_0"]))
    assert rows["input_ref"].tolist() == ["03_0_north_0_0", "03_2_north_0_0"]
    assert names.tolist() == ["03_0_south_0_0", "03_2_south_0_0"]


def _diffmic():
    registry.extend({"learner": {"diffmic": f"{systems.folder_of('diffmic') / 'learner.py'}:DiffMIC"}})
    return sys.modules[registry.registered("learner", "diffmic").__module__]


def test_a_label_noised_towards_a_prior_is_the_engine_s_process_of_what_is_left():
    code, generator = _diffmic(), torch.Generator().manual_seed(0)
    y0, yhat = torch.eye(4), torch.rand(4, 4, generator=generator)
    noise, times = torch.randn(4, 4, generator=generator), torch.tensor([0, 10, 500, 999])
    alpha, sigma = code.PROCESS.scales_of(times, 2)
    paper = alpha * y0 + (1 - alpha) * yhat + sigma * noise
    ours = code.PROCESS.noised(y0 - yhat, noise, code.PROCESS.scales_of(times, 2)) + yhat
    torch.testing.assert_close(ours, paper)


def test_the_most_salient_patches_lie_apart_the_best_first():
    maps = torch.zeros(1, 2, 12, 12)
    maps[0, 1, 8:, :4], maps[0, 1, :4, 8:] = 9.0, 5.0
    rows, columns = _diffmic().salient_places(maps, 96, 32, 2)
    assert (rows.tolist(), columns.tolist()) == ([[8, 0]], [[0, 8]])


@pytest.mark.parametrize("steps", [1, 10])
def test_an_attack_keeps_to_its_bound_and_to_grey_levels(steps):
    code = systems.code_of("mdda")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    tiles = code.Tiles(images, np.zeros(3, int), np.array(["a", "b", "c"]))
    found = code.attacked(lambda x, truth: x - 128, tiles, 4, steps)
    moved = found.astype(int) - images
    assert found.dtype == np.uint8 and np.abs(moved).max() == 4
    assert (np.sign(moved) * np.sign(images.astype(int) - 128))[abs(images.astype(int) - 128) > 8].min() >= 0


def test_cleaning_at_several_scales_keeps_an_even_tile():
    code, even = systems.code_of("mdda"), np.full((2, 32, 32, 3), 200, np.uint8)
    assert (code.defended(even, lambda tiles, noise: tiles, "x") == even).all()


def test_a_system_that_is_not_there_is_told():
    with pytest.raises(HistoloomError, match=r"There is no system .nobody.\. There are: akrout, "):
        systems.folder_of("nobody")


def test_the_pages_are_what_the_folders_say():
    stale = [
        place for place, text in pages().items() if not place.exists() or place.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "write them anew: python -m benchmarks.systems --page"
    assert {*Path("docs/systems").glob("*.md")} < {*pages()}


def test_drawn_patients_show_what_their_tables_say(tmp_path):
    from PIL import Image

    write_drawn(tmp_path, 8, 96)
    slides = pd.read_csv(tmp_path / "manifests/slides.csv")
    genotype = pd.read_csv(tmp_path / "manifests/genotype.csv").set_index("patient_id")["IDH1"]
    size = {}
    for name in slides["patient_id"].unique():
        numbers = np.asarray(Image.open(tmp_path / f"data/slides/{name}_nuclei.png"))
        size[name] = (numbers > 0).sum() / numbers.max()
    altered = [size[name] for name in size if genotype[name] == "MUT"]
    assert min(altered) > max(size[name] for name in size if genotype[name] == "WT")
    assert {*slides.groupby("patient_id")["split"].nunique()} == {1} and len(slides) == 16
