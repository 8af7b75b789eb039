"""A study under all conditions at once: what is stated reaches the picture, and what is not stated does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import torch
from PIL import Image

from histoloom.conditions.encode import batch, null
from histoloom.config import Sample, load_params
from histoloom.data.plan import PLAN, planned_tiles
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.sampling.diffusion_model import generator_sha256, load_diffusion_model
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.studies.checks.validate import check_study
from histoloom.studies.stage_work import run_stage
from tests.build import make_study, tissue_picture

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

CONDITIONS = ("label", "text", "mask", "rna", "genotype", "magnification", "image", "cohort", "number")
VECTORS = ("label", "rna", "genotype", "magnification", "image", "cohort", "number")
SIDE = 128
REQUESTS = [
    {"name": "stroma-please", "tiles": 5, "where": {"label": "stroma"}},
    {"name": "twice-the-nuclei", "tiles": 4, "change": {"mask": {"multiply": {"nucleus": 2.0}}}},
    {"name": "scattered", "tiles": 3, "change": {"mask": {"scatter": True}}},
    {"name": "swapped", "tiles": 3, "change": {"mask": {"swap": {"nucleus": "other"}}}},
    {"name": "high-erbb2", "tiles": 4, "where": {"gene": {"ERBB2": "high"}}},
    {"name": "nuclear", "tiles": 4, "where": {"contains": {"nucleus": 0.05}}},
    {"name": "were-it-mutant", "tiles": 3, "where": {"genotype": {"TP53": "wt"}},
     "change": {"genotype": {"TP53": "altered"}}, "counterfactual": True},
    {"name": "other-hospital", "tiles": 3, "where": {"cohort": {"site": "north"}}, "change": {"cohort": {"site": "south"}},
     "counterfactual": True},
    {"name": "older", "tiles": 3, "change": {"number": {"meta_age": 90.0}}},
    {"name": "no-rna", "tiles": 2, "change": {"leave_out": ["rna", "text"], "label": "stroma"}},
    {"name": "look-of-the-south", "tiles": 9, "where": {"patient_id": "p0"}, "like": {"cohort": {"site": "south"}}},
    {"name": "held-out", "tiles": 3, "where": {"patient_id": "p4"}, "purpose": "evaluate"},
]  # fmt: skip


WOVEN = {
    "name": "fields", "width_px": 96, "height_px": 64, "mask": "manifests/mask.png", "instances": "manifests/nuclei.png",
    "outside": "tissue", "condition_grid": "manifests/field.csv", "label": "tumour",
}  # fmt: skip


def write_canvas(folder: Path) -> None:
    """A mask with its nuclei, and a condition grid: a tile of each of two patients, all of its conditions, and a caption."""
    nuclei = np.asarray(Image.open(folder / "data/slides/i0.png"))[:64, :96]
    Image.fromarray(nuclei).save(folder / "manifests/nuclei.png")
    Image.fromarray((nuclei > 0).astype(np.uint8)).save(folder / "manifests/mask.png")
    (folder / "manifests/field.csv").write_text("row,col,tile_id,caption\n0,0,s0_32_32,\n0,1,,PINK\n0,2,s1_32_32,\n")


def write_inputs(folder: Path) -> list[dict]:
    """Five patients; pictures, nuclei, expression and genotypes. One patient has no profile, one was not tested."""
    rows = []
    for number in range(5):
        picture, rng = tissue_picture(SIDE, SIDE, seed=number), np.random.default_rng(number)
        instances = np.zeros((SIDE, SIDE), np.uint16)
        y, x = np.mgrid[:SIDE, :SIDE]
        for nucleus, (cy, cx) in enumerate(rng.integers(0, SIDE, (60, 2)), 1):
            instances[(np.hypot(y - cy, x - cx) < 5) & (instances == 0)] = nucleus
        (folder / "data/slides").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"data/slides/s{number}.png")
        Image.fromarray(instances).save(folder / f"data/slides/i{number}.png")
        rows.append(
            {"slide_id": f"s{number}", "path": f"s{number}.png", "patient_id": f"p{number}", "mpp": 0.5,
             "label": ("tumour", "stroma")[number % 2], "instances": f"i{number}.png", "caption": f"report of {number}", "site": ("north", "south")[number % 2], "meta_age": str(40 + 5 * number),
             "split": ("train", "train", "train", "val", "test")[number]}
        )  # fmt: skip
    counts = np.random.default_rng(0).poisson(9, (4, 8)) + np.arange(4)[:, None] * 20 * (np.arange(8) < 4)
    table = pd.DataFrame(counts, columns=["ERBB2", *(f"G{n}" for n in range(7))])
    (folder / "manifests").mkdir()
    table.assign(patient_id=["p0", "p1", "p3", "p4"]).to_parquet(folder / "manifests/expression.parquet")
    (folder / "manifests/genotype.csv").write_text(
        "patient_id,TP53,IDH1\np0,R175H,NS\np1,WT,WT\np2,WT,R132H\np3,W91*,WT\n", encoding="utf-8"
    )
    write_canvas(folder)
    return rows


def params(folder: Path, rows: list[dict], **sections):
    tile = {
        "tile_px": 32,
        "stride_px": 16,
        "mpp": 0.5,
        "more_mpp": [1.0],
        "tissue": {"mpp": 4.0, "min_fraction": 0.1},
        "masks": {"source": "raster", "classes": ["nucleus", "other"]},
        "caption": "{label}, {caption}",
        "summarise": "tr a-z A-Z",
    }
    base = {
        "train_encoders": {
            "text": {"image_px": 32, "width": 32, "layers": 1, "steps": 4, "batch_size": 8, "max_tokens": 30},
            "rna": {"table": "manifests/expression.parquet", "hidden": [16], "code": 4, "steps": 10},
            "genotype": {"table": "manifests/genotype.csv"},
            "cohort": {"columns": ["site"]},
            "number": {"columns": ["meta_age"]},
            "image": {"source": "train", "image_px": 32, "width": 8, "size": 8, "steps": 4, "batch_size": 8},
        },
        "train_autoencoder": {"channels": 16, "steps": 4, "decoder_steps": 2, "batch_size": 8},
        "encode": {"edges": True, "symmetries": "turns"},
        "train_denoiser": {"conditions": list(CONDITIONS), "channels": [16, 32], "steps": 6, "batch_size": 8},
        "filter": {"min_yield": 0.0},
        "uplift": {"seeds": 0},
        "plan": {"target": "none", "evaluation_tiles": 3, "batch_size": 8, "requests": REQUESTS},
        "sample": {"steps": 3, "guidance": {"mask": 2.0, "text": 3.0}},
        "sample_slides": {
            "slides": [WOVEN],
            "steps": 3,
            "guidance": {"rna": 2.0},
            "block_latent_px": 16,
            "batch_size": 4,
        },
    }
    return make_study(folder, rows, tile, **{k: base.get(k, {}) | sections.get(k, {}) for k in base | sections})


def run(*stages: str) -> None:
    for name in stages:
        run_stage(name)


@pytest.fixture(scope="module", params=["concat", "spade"])
def study(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"conditions-{request.param}")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    processes = 2 if request.param == "spade" else 1  # that share each training
    cluster = f"workers: 0\ntraining_threads: 1\ntraining_processes: {processes}\n"
    (folder / "cluster.yaml").write_text(cluster)
    params(folder, write_inputs(folder), train_denoiser={"map_input": request.param})
    assert not faults_among(check_study(Study()))
    run("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides")
    yield folder
    patch.undo()


def sampler(study: Path, guidance=1.0):
    """A function of changed arrays to latents; noise and all else stay the same."""
    plan = pd.read_parquet(PLAN_FILE)
    part = plan["part"].iloc[0]
    rows = plan[plan["part"] == part].reset_index(drop=True).head(8)
    models = Path("models")
    model = load_diffusion_model(models, generator_sha256(models), "auto", "cpu")
    arrays = model.conditions.arrays(rows, lambda name: planned_tiles(Path("data/plan"), part, name)[:8])

    def sample(changed: dict | None = None) -> torch.Tensor:
        given = batch(arrays | (changed or {}), model.specs, np.arange(8))
        nulls = null(arrays, model.specs)
        return Drawn(model, Sample(steps=3, guidance=guidance), Rows(rows["seed"].to_numpy(), given, nulls)).data()

    return arrays, sample


PLAN_FILE = Path("data/plan") / PLAN


def changed(arrays: dict, name: str) -> dict:
    """Other values of one condition alone."""
    if name == "text":
        last = len(arrays["text_tokens"]) - 1
        return {"text_index": np.where(arrays["text_index"] == last, 1, last)}
    return {name: np.where(arrays[name] > 0, 0, 1).astype(arrays[name].dtype)}


@pytest.mark.parametrize("name", CONDITIONS)
def test_changing_one_condition_changes_every_picture_and_changing_none_changes_none(study, name):
    arrays, sample = sampler(study)
    before = sample()
    assert torch.equal(sample(), before)
    difference = (sample(changed(arrays, name)) - before).abs().amax((1, 2, 3))
    assert (difference > 1e-4).all(), f"the model ignores '{name}'"


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_whose_scale_is_zero_is_ignored(study, name):
    arrays, sample = sampler(study, {name: 0.0})
    assert torch.equal(sample(changed(arrays, name)), sample())


def test_the_plan_is_what_was_asked_for(study):
    plan, real = pd.read_parquet(PLAN_FILE), TileStore("data/tiles").rows().set_index("tile_id")
    counts = plan["request"].value_counts().to_dict()
    assert counts == {r["name"]: r["tiles"] * (1 + r.get("counterfactual", False)) for r in REQUESTS} | {"evaluate": 3}
    by = dict(list(plan.groupby("request")))
    assert set(by["stroma-please"]["label"]) == {"stroma"}
    assert set(by["high-erbb2"]["rna"]) == {"p1"}
    assert set(by["no-rna"]["label"]) == {"stroma"} and by["no-rna"][["rna", "caption"]].isna().all(axis=None)
    assert set(by["held-out"]["split"]) == {"test"} and set(by["held-out"]["purpose"]) == {"evaluate"}
    augment = plan[plan["purpose"] == "augment"]
    assert set(real.loc[augment["condition_ref"], "split"]) == {"train"}
    assert set(plan["mpp"]) == {0.5, 1.0}


def test_pairs_differ_in_what_is_changed_alone(study):
    plan = pd.read_parquet(PLAN_FILE)
    pairs = plan[plan["request"] == "were-it-mutant"].sort_values("tile_id")
    as_is, other = (pairs[pairs["tile_id"].str.endswith(end)].reset_index(drop=True) for end in ("-as-is", "-changed"))
    same = ["seed", "label", "caption", "rna", "condition_ref", "mpp"]
    pd.testing.assert_frame_equal(as_is[same], other[same])
    assert all("TP53=wt" in text for text in as_is["genotype"])
    assert [text.replace("TP53=wt", "TP53=altered") for text in as_is["genotype"]] == other["genotype"].tolist()


def planned(request: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a request's tiles are given, and what the tiles that their conditions are taken from have."""
    plan, store = pd.read_parquet(PLAN_FILE), TileStore("data/plan/conditions")
    rows = plan[plan["request"] == request]
    sources = TileStore("data/tiles").rows().set_index("tile_id", drop=False).loc[rows["condition_ref"]]
    given = np.concatenate(
        [store.array(part, name)[:][place] for part, place in zip(rows["part"], _place(plan, rows))], dtype=np.int32
    ).reshape(len(rows), 32, 32, *([3] if name == "image" else []))
    return given, TileStore("data/tiles").read(sources, name).astype(np.int32)


def _place(plan: pd.DataFrame, rows: pd.DataFrame) -> list[int]:
    place = plan.groupby("part").cumcount()
    return place.loc[rows.index].tolist()


def test_masks_are_edited_as_asked(study):
    given, source = planned("twice-the-nuclei", "mask")
    assert (given > 0).sum() > 1.2 * (source > 0).sum() and (given[source > 0] == 1).all()
    given, source = planned("swapped", "mask")
    assert (given == np.where(source == 1, 2, source)).all()
    given, source = planned("scattered", "mask")
    assert (given != source).any((1, 2)).all()
    given, source = planned("stroma-please", "edge")
    assert (given == source).all()


def test_a_tile_is_given_the_embedding_of_another_and_all_else_of_its_own(study):
    plan, real = pd.read_parquet(PLAN_FILE), TileStore("data/tiles")
    rows, tiles = plan[plan["request"] == "look-of-the-south"], real.rows().set_index("tile_id", drop=False)
    given, _ = planned("look-of-the-south", "image")
    assert (given == real.read(tiles.loc[rows["like_ref"]])).all() and set(rows["like_group"]) == {"p1"}
    assert tiles.loc[rows["like_ref"], "mpp"].tolist() == rows["mpp"].tolist() and rows["mpp"].nunique() == 2
    given, source = planned("look-of-the-south", "mask")
    assert (given == source).all() and set(rows["split_group"]) == {"p0"} and rows["cohort"].str.contains("north").all()
    assert plan[plan["request"] != "look-of-the-south"]["like_ref"].isna().all()
    made = TileStore("data/synthetic").rows().query("request == 'look-of-the-south'")
    assert {tuple(row) for row in made["ancestors"]} == {("p0", "p1")} and set(made["like_ref"]) == set(
        rows["like_ref"]
    )


def test_synthetic_tiles_keep_the_masks_that_they_were_given(study):
    synthetic, asked = TileStore("data/synthetic"), TileStore("data/plan/conditions")
    for part in synthetic.parts:
        for name in ("mask", "instance", "edge"):
            assert (synthetic.array(part, name)[:] == asked.array(part, name)[:]).all()
    rows = synthetic.rows()
    mask, text = ({"condition": name, "scale": scale} for name, scale in (("mask", 2.0), ("text", 3.0)))
    for guidance in rows["guidance"]:
        assert [g for g in guidance if g["condition"] == "mask"] == [mask | {"start": 0.2, "end": 0.6}]
        assert [g for g in guidance if g["condition"] == "text"] == [text | {"start": 0.0, "end": 1.0}]
        assert all(g["scale"] == 1 for g in guidance if g["condition"] not in ("mask", "text"))
    assert rows[["scheduler", "steps", "precision"]].drop_duplicates().to_numpy().tolist() == [
        ["dpmsolver++", 3, "fp32"]
    ]
    assert rows["window_layout"].isna().all()


def test_captions_are_summarised_once_and_long_ones_read_in_chunks(study):
    rows = TileStore("data/tiles").rows()
    assert set(rows["caption"].str.split(", ").str[1]) == {f"REPORT OF {n}" for n in range(5)}
    assert len(list(Path(".work/tile/shared/summaries").iterdir())) == 5
    spec = next(s for s in json.loads(Path("data/encoded/conditions.json").read_text()) if s["name"] == "text")
    assert spec["shape"] == "sequence"
    assert TileStore("data/tiles").rows()["tile_id"].is_unique


def test_what_was_measured_of_the_encoders_is_written(study):
    metrics = json.loads(Path("reports/train_encoders/metrics.json").read_text())
    assert metrics["rna"]["train_samples"] == 2 and metrics["rna"]["tiles_without_profile"] > 0
    assert metrics["genotype"]["tested"] == {"TP53": 3, "IDH1": 2}
    assert metrics["genotype"]["altered"] == {"TP53 altered": 1, "IDH1 altered": 1}
    assert metrics["genotype"]["other_ids_without_row"] == 1 and metrics["rna"]["train_ids_without_row"] == 1
    assert any(key.startswith("recall_at") for key in metrics["text"])


def test_the_rest_of_the_way_takes_such_tiles(study, monkeypatch):
    monkeypatch.setenv("HISTOLOOM_SALT", "a salt for tests")
    run("tile_slides", "train_filters", "filter", "evaluate", "emit", "uplift", "report")
    page = Path("reports/index.html").read_text(encoding="utf-8")
    assert "train_encoders: rna kl" not in page and "rna explained_variance_train" in page
    assert all(f"<td>{r['name']}</td>" in page for r in REQUESTS)
    assert "Masks, and the tiles under them" in page and "Counterfactual pairs" in page


def test_a_slide_is_woven_under_every_condition_at_once(study):
    facts = json.loads(Path("data/woven/fields/canvas.json").read_text())
    assert facts["ancestors"] == ["p0", "p1"]
    with openslide.open_slide("data/woven/fields/slide.tif") as slide:
        assert np.asarray(slide.read_region((0, 0), 0, (96, 64)))[..., :3].std() > 1


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"where": {"patient_id": "p4"}}, "held out (test), and purpose is augment"),
        ({"where": {"patient_id": "p9"}}, "no patient_id 'p9'"),
        ({"like": {"patient_id": "p4"}}, "held out (test), and purpose is augment"),
    ],
)
def test_validate_names_requests_that_cannot_be(study, tmp_path, monkeypatch, request_, message):
    monkeypatch.chdir(tmp_path)
    params(tmp_path, write_inputs(tmp_path), plan={"requests": [{"name": "r", "tiles": 1} | request_]})
    (fault,) = faults_among(check_study(Study()))
    assert message in fault.problem and fault.remedy and fault.column.startswith("plan.requests[0]")


def test_validate_lists_the_faults_of_every_table_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = write_inputs(tmp_path)
    del rows[1]["caption"]
    Image.fromarray(np.ones((9, 9), np.uint16)).save(tmp_path / "data/slides/i2.png")
    (tmp_path / "manifests/genotype.csv").write_text("patient_id,TP53\np0,maybe\n", encoding="utf-8")
    table = pd.read_parquet(tmp_path / "manifests/expression.parquet")
    table.assign(G3=np.nan).to_parquet(tmp_path / "manifests/expression.parquet")
    params(tmp_path, rows)
    text = "\n".join(map(str, check_study(Study())))
    for expected in (
        "row 3, column 'caption'",
        "row 4, column 'path'",
        "9 x 9 px",
        "row 2, column 'TP53'",
        "no number for some genes: 'p0'",
    ):
        assert expected in text


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"sample": {"guidance": {"label": 2.0}}, "train_denoiser": {"conditions": ["text"]}}, "sample.guidance names"),
        ({"train_denoiser": {"conditions": ["label", "label"]}}, "a condition twice"),
        ({"train_encoders": {"rna": {"key": "spot_id"}}}, "labels.source is not spots"),
        ({"plan": {"requests": [{"name": "a b", "tiles": 1}]}}, "plan.requests.0.name"),
        ({"plan": {"requests": [{"name": "tumour", "tiles": 1}]}}, "names of classes"),
        ({"plan": {"requests": [{"name": "r", "tiles": 1}] * 2}}, "plan.requests names 'r' twice"),
        ({"plan": {"requests": [{"name": "r", "tiles": 1, "counterfactual": True}]}}, "it is empty"),
        ({"plan": {"requests": [{"name": "r", "tiles": 1, "where": {"label": "bone"}}]}}, "no tile.labels.classes"),
        ({"plan": {"requests": [{"name": "r", "tiles": 1, "where": {"contains": {"fat": 0.1}}}]}}, "no tile.masks"),
    ],
)
def test_params_that_contradict_each_other_are_named(tmp_path, monkeypatch, sections, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HistoloomError, match=message):
        params(tmp_path, [{"slide_id": "s"}], **sections)
        load_params()
