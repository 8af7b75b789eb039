"""Studies whose plans run the model in every way: from a real tile, inverted, remade in part, several times, and to predict."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histoloom.config import load_params
from histoloom.config.program import Program
from histoloom.data.inputs import FREE, input_tiles
from histoloom.data.plan import PLAN
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.report.sheets import _in_rows, predicted_sheets
from histoloom.studies.checks.validate import check_study
from histoloom.studies.dvc_yaml import outputs
from histoloom.studies.stage_work import run_stage
from histoloom.studies.stages import STAGES
from tests.build import make_study, tissue_picture

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

SIDE = 64
TAPS = ["network.mid_block", "network.down_blocks.0.resnets.0"]
OWN = {"from": "tile", "strength": 0.4, "noise": "own"}
REQUESTS = [
    {"name": "variations", "tiles": 5, "start": {"from": "tile", "strength": 0.3}},
    {"name": "other-site", "tiles": 5, "where": {"cohort": {"site": "north"}}, "start": {"inverted": True},
     "change": {"cohort": {"site": "south"}}},
    {"name": "same-site", "tiles": 4, "start": {"inverted": True, "strength": 0.5}},
    {"name": "remade", "tiles": 4, "where": {"contains": {"nucleus": 0.01}}, "remake": {"classes": ["nucleus"], "grow_um": 1, "rounds": 2}},
    {"name": "in-another", "tiles": 4, "where": {"label": "stroma"}, "start": {"from": "tile", "strength": 0.9, "where": {"label": "tumour"}},
     "remake": {"centre_um": 6, "blend_um": 0.5}},
    {"name": "thrice", "tiles": 3, "samples": 3},
    {"name": "best", "tiles": 3, "samples": 3, "start": {"from": "tile", "strength": 0.6}, "reduce": {"name": "best", "by": "input"}},
    {"name": "uncertain", "tiles": "all", "samples": 3, "reduce": "mean", "purpose": "predict"},
    {"name": "unlike", "tiles": 4, "start": {"from": "tile", "strength": 0.3}, "reduce": "residual", "purpose": "predict"},
    {"name": "own", "tiles": "all", "where": {"split": "test"}, "purpose": "predict", "start": OWN | {"jump": True}},
    {"name": "own-again", "tiles": "all", "where": {"split": "test"}, "purpose": "predict", "start": OWN | {"jump": True}},
    {"name": "own-in-steps", "tiles": "all", "where": {"split": "test"}, "purpose": "predict", "start": OWN},
    {"name": "own-little", "tiles": "all", "where": {"split": "test"}, "purpose": "predict", "start": OWN | {"strength": 0.001, "jump": True}},
    {"name": "seen", "tiles": 4, "reduce": {"name": "features", "taps": TAPS}, "purpose": "predict"},
]  # fmt: skip


def write_slides(folder: Path) -> list[dict]:
    rows = []
    for number in range(5):
        picture, rng = tissue_picture(SIDE, SIDE, seed=number), np.random.default_rng(number)
        nuclei, (y, x) = np.zeros((SIDE, SIDE), np.uint16), np.mgrid[:SIDE, :SIDE]
        for nucleus, (cy, cx) in enumerate(rng.integers(0, SIDE, (20, 2)), 1):
            nuclei[(np.hypot(y - cy, x - cx) < 4) & (nuclei == 0)] = nucleus
        (folder / "data/slides").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"data/slides/s{number}.png")
        Image.fromarray(nuclei).save(folder / f"data/slides/i{number}.png")
        rows.append(
            {"slide_id": f"s{number}", "path": f"s{number}.png", "patient_id": f"p{number}", "mpp": 0.5,
             "label": ("tumour", "stroma")[number % 2], "instances": f"i{number}.png", "site": ("north", "south")[number % 2],
             "split": ("train", "train", "train", "val", "test")[number]}
        )  # fmt: skip
    return rows


def make(folder: Path, train_denoiser: dict, requests: list[dict], **sections) -> Study:
    make_study(
        folder,
        write_slides(folder),
        {
            "tile_px": 16, "stride_px": 16, "mpp": 0.5, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100},
            "masks": {"source": "raster", "classes": ["nucleus"]},
        },
        train_encoders={"cohort": {"columns": ["site"]}} | sections.pop("train_encoders", {}),
        train_denoiser={"channels": [16, 32], "steps": 6, "batch_size": 8, **train_denoiser},
        plan={"target": "none", "requests": requests, "batch_size": 4, "batches_per_part": 2},
        sample={"steps": 10, "scheduler": "ddim"},
        uplift={"seeds": 0},
        **sections,
    )  # fmt: skip
    (folder / "cluster.yaml").write_text("workers: 0\ntraining_threads: 1\n")
    return Study()


def run(*stages: str) -> None:
    for name in stages:
        run_stage(name)


TRAINED = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    made = make(folder, {"target": "pixels", "conditions": ["label", "cohort", "mask"]}, REQUESTS)
    assert not faults_among(check_study(made))
    run(*TRAINED, "plan", "sample")
    yield made
    patch.undo()


@pytest.fixture(scope="module")
def made(study) -> pd.DataFrame:
    rows = TileStore("data/synthetic").rows()
    return rows.assign(image=[*TileStore("data/synthetic").read(rows)])


def real(refs) -> np.ndarray:
    store = TileStore("data/tiles")
    return store.read(store.rows().set_index("tile_id").loc[refs]).astype(float)


def difference(rows: pd.DataFrame) -> float:
    return np.abs(np.stack(rows["image"]).astype(float) - real(rows["input_ref"])).mean()


def test_a_row_states_how_it_was_made(study, made):
    assert {*made["request"]} == {r["name"] for r in REQUESTS if r.get("purpose") != "predict"}
    assert {*TileStore("data/predicted").rows()["request"]} == {
        r["name"] for r in REQUESTS if r.get("purpose") == "predict"
    }
    simple = made[made["request"] == "thrice"]
    assert len(simple) == 9 and not any(simple["program"]) and simple["input_ref"].isna().all()
    assert simple["seed"].is_unique and simple["condition_ref"].nunique() == 3
    own = made[made["request"] == "variations"].iloc[0]
    assert own["input_ref"] == own["condition_ref"] and Program.read(own["program"]).start.strength == 0.3
    assert (made[made["purpose"] == "augment"]["split"] == "train").all()


def test_the_less_noise_the_nearer_to_the_tile(study, made):
    noise = made[made["request"] == "thrice"].assign(input_ref=lambda rows: rows["condition_ref"])
    assert difference(made[made["request"] == "variations"]) < 0.6 * difference(noise)


def test_an_inverted_tile_comes_back_and_follows_another_condition(study, made):
    assert difference(made[made["request"] == "same-site"]) < 12
    swapped = made[made["request"] == "other-site"]
    assert {json.loads(text)["site"] for text in swapped["cohort"]} == {"south"}
    plan = pd.read_parquet(f"data/plan/{PLAN}")
    stated = plan[plan["request"] == "other-site"]["input_conditions"]
    assert {json.loads(json.loads(text)["cohort"])["site"] for text in stated} == {"north"}


@pytest.mark.parametrize("name", ["remade", "in-another"])
def test_all_else_stays_to_the_bit(study, made, name):
    rows = made[made["request"] == name]
    (part,) = {*rows["part"]}
    free = input_tiles(study.plan, part, FREE)[rows["index"]] > 0
    differs = (np.stack(rows["image"]) != real(rows["input_ref"])).any(-1)
    assert not differs[~free].any() and differs[free].mean() > 0.9 and 0 < free.mean() < 0.9


def test_ancestors_are_those_of_conditions_and_of_the_tile_that_it_begins_from(study, made):
    groups = TileStore("data/tiles").rows().set_index("tile_id")["split_group"]
    for _, row in made.iterrows():
        assert {*row["ancestors"]} == {groups[ref] for ref in (row["condition_ref"], row["input_ref"]) if ref}
    rows = made[made["request"] == "in-another"]
    labels = TileStore("data/tiles").rows().set_index("tile_id")["label"]
    assert {*labels[rows["input_ref"]]} == {"tumour"} and {*rows["label"]} == {"stroma"}


def test_the_best_of_three_is_nearer_than_one(study, made):
    best, one = (made[made["request"] == name] for name in ("best", "variations"))
    assert len(best) == 3 and difference(best) < difference(one) * 3


def test_what_is_predicted_has_arrays_of_its_own(study):
    store = TileStore("data/predicted")
    rows = store.rows()
    every = TileStore("data/tiles").rows()
    uncertain, unlike, seen = (rows[rows["request"] == name] for name in ("uncertain", "unlike", "seen"))
    assert uncertain["condition_ref"].tolist() == every["tile_id"].tolist() and {*uncertain["split"]} == {
        "train",
        "val",
        "test",
    }
    deviation = store.read(uncertain, "deviation")
    assert deviation.shape[1:] == (16, 16, 3) and deviation.dtype == np.float32 and (deviation > 0).mean() > 0.9
    residual = store.read(unlike, "residual")
    own = np.abs(store.read(unlike).astype(float) - real(unlike["input_ref"])).mean(-1)
    np.testing.assert_allclose(residual, own, atol=1e-3)
    vectors = store.read(seen, "vector")
    assert vectors.shape == (4, 32 + 16) and vectors.std(0).max() > 0


def test_a_tile_s_own_noise_is_all_the_noise_there_is(study):
    store = TileStore("data/predicted")
    rows, every = store.rows(), TileStore("data/tiles").rows()
    test = every[every["split"] == "test"]["tile_id"].tolist()
    own = {name: rows[rows["request"] == name] for name in ("own", "own-again", "own-in-steps", "own-little")}
    assert all(of["condition_ref"].tolist() == test for of in own.values())
    assert {*own["own"]["steps"]} == {1} and {*own["own-in-steps"]["steps"]} == {10}
    assert not {*own["own"]["seed"]} & {*own["own-again"]["seed"]}
    tiles = {name: store.read(of).astype(float) for name, of in own.items()}
    assert (tiles["own"] == tiles["own-again"]).all()  # nothing is drawn
    assert (tiles["own"] != tiles["own-in-steps"]).any()
    truth = real(test)
    far, near = (np.abs(tiles[name] - truth).mean() for name in ("own", "own-little"))
    assert near < 2 < far


def columns_of(sheets) -> dict[str, int]:
    """Sheet to how many tiles lie beside one another in its picture."""
    pictures = {s["title"]: Image.open(io.BytesIO(base64.b64decode(s["uri"].partition(",")[2]))) for s in sheets}
    assert all(np.ptp(np.asarray(picture)) > 0 for picture in pictures.values())
    return {title: picture.width // (96 + 4) for title, picture in pictures.items()}


def test_the_report_shows_results_beside_the_tiles_that_were_given(study):
    sheets = predicted_sheets(TileStore("data/tiles"), TileStore("data/predicted"), 8)
    # Beside the tile: image and deviation; image and residual. Masks were given too. Features are no pictures.
    of_own = {name: count for name, count in columns_of(sheets).items() if "own" in name}
    assert len(of_own) == 4
    assert columns_of(sheets).items() - of_own.items() == {("Predicted: uncertain", 6), ("Predicted: unlike", 6)}
    smaller = np.zeros((4, 8, 8, 3), np.uint8)
    assert columns_of([_in_rows("a chain's first", {"given": smaller.repeat(2, 1).repeat(2, 2) + 9, "image": smaller})])


def test_nothing_changes_on_another_run(study):
    plan, before = (
        Path("data/plan/plan.parquet").read_bytes(),
        TileStore("data/synthetic").read(TileStore("data/synthetic").rows()),
    )
    run("plan", "sample")
    assert Path("data/plan/plan.parquet").read_bytes() == plan
    assert (TileStore("data/synthetic").read(TileStore("data/synthetic").rows()) == before).all()


MASKS = [
    {"name": "voted", "tiles": 4, "samples": 5, "reduce": "vote", "purpose": "predict"},
    {"name": "joined", "tiles": 4, "samples": 5, "reduce": "staple", "purpose": "predict"},
    {"name": "nearest", "tiles": 4, "samples": 3, "reduce": "best", "purpose": "predict"},
]


@pytest.mark.parametrize("target", ["masks", {"name": "instances", "coding": "bits"}])
def test_a_model_of_masks_finds_some_and_says_how_far_its_samples_agree(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    study = make(tmp_path, {"target": target, "conditions": ["label"]}, MASKS)
    assert not faults_among(check_study(study))
    run(*TRAINED, "plan", "sample")
    store = TileStore("data/predicted")
    rows = store.rows()
    for name in ("voted", "joined"):
        mine = rows[rows["request"] == name]
        masks, agreement = store.read(mine, "mask"), store.read(mine, "agreement")
        assert masks.shape == agreement.shape == (4, 16, 16) and masks.max() <= 1
        assert agreement.min() >= (0.2 if name == "voted" else 0) and agreement.max() <= 1 and (agreement < 1).any()
    columns = columns_of(predicted_sheets(TileStore("data/tiles"), store, 8))
    assert columns == {
        "Predicted: voted": 6,
        "Predicted: joined": 6,
        "Predicted: nearest": 8,
    }  # the tile, mask, agreement
    nearest = rows[rows["request"] == "nearest"]
    assert store.has("instance", nearest["part"].iloc[0]) == (target != "masks")
    assert json.loads(Path("reports/train_autoencoder/metrics.json").read_text())["equal"]["mask"] == 1
    written = (Path(place) for name in (*TRAINED, "plan", "sample") for place in outputs(STAGES[name]))
    assert not [place for place in written if not place.exists()]  # which DVC would miss


def test_a_model_of_vectors_draws_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = {
        "target": {"name": "vectors", "condition": "label"}, "backbone": "mlp", "conditions": ["cohort"], "channels": [32, 32],
        "steps": 400, "learning_rate": 0.005, "ema_decay": 0.9, "drop": {"cohort": 0.0}, "loss_weight": {"kind": "none"},
    }  # fmt: skip
    requests = [{"name": "labels", "tiles": "all", "purpose": "predict", "samples": 4, "reduce": "mean"}]
    study = make(tmp_path, training, requests)
    assert not faults_among(check_study(study))
    run(*TRAINED, "plan", "sample")
    store = TileStore("data/predicted")
    rows = store.rows()
    vectors = store.read(rows, "vector")
    assert Path("reports/train_autoencoder/reconstruction.png").is_file()
    north = np.array([json.loads(text)["site"] == "north" for text in rows["cohort"]])
    classes = study.params.tile.labels.classes
    assert (np.array(classes)[vectors.argmax(1)] == np.where(north, "tumour", "stroma")).mean() > 0.9


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"start": {"from": "tile"}}, "leaves no trace"),
        ({"start": {"strength": 0.5}}, "state from: tile"),
        ({"tiles": "all"}, "tiles: all is of purpose: predict"),
        ({"reduce": "mean", "samples": 2}, "makes no tiles to augment"),
        ({"reduce": "median"}, "is no reduce; there are each, mean"),
        ({"remake": {"grow_um": 3}}, "names no region"),
        ({"remake": {"blend_um": 2}}, "names no region"),
        ({"remake": {"classes": ["tubule"]}}, "are no tile.masks.classes"),
        ({"change": {"leave_out": ["image"]}}, "'image' is not among"),
        ({"like": {"label": "tumour"}}, "'image' is not among"),
        ({"like": {"split": "val"}}, "like.split is val"),
        ({"like": {}, "counterfactual": True, "change": {"label": "stroma"}}, "leave one out"),
        ({"reduce": "features", "purpose": "predict"}, "features and taps go together"),
        ({"start": {"noise": "own"}}, "state from: tile"),
        ({"start": OWN, "samples": 2}, "all samples would be the same"),
        ({"start": OWN | {"jump": True}, "remake": {"centre_um": 6, "rounds": 2}}, "repeats steps"),
        ({"start": {"inverted": True, "noise": "own"}}, "leave one of them out"),
        ({"start": {"jump": True}}, "state from: tile"),
        ({"where": {"split": "test"}}, "reads train tiles alone"),
        ({"where": {"split": "train"}, "purpose": "evaluate"}, "reads val and test tiles alone"),
        ({"start": {"from": "tile", "strength": 0.5, "where": {"split": "val"}}}, r"start.where.split is val"),
        ({"start": {"inverted": True, "jump": True}}, "that jump leaves out"),
        ({"samples": 2, "counterfactual": True, "change": {"label": "stroma"}}, "made one by one"),
    ],
)
def test_what_has_no_meaning_is_refused(tmp_path, monkeypatch, request_, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HistoloomError, match=message):
        make(tmp_path, {"target": "pixels", "conditions": ["label"]}, [{"name": "x", "tiles": 2, **request_}])
        load_params("params.yaml")


def test_inversion_needs_a_solver_of_first_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(
        tmp_path,
        {"target": "pixels", "conditions": ["label"]},
        [{"name": "x", "tiles": 2, "start": {"inverted": True}}],
    )
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("ddim", "unipc"))
    with pytest.raises(HistoloomError, match="inversion goes back over steps of ddim or euler"):
        load_params("params.yaml")
