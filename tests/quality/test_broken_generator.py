"""A generator that is broken on purpose, through the stages: the filter or the metric that is for it says so."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from histoloom.config import Params
from histoloom.config.extractors import JUDGE
from histoloom.data.commit import link_tree
from histoloom.data.lineage import read_lineage
from histoloom.data.plan import EVALUATION
from histoloom.data.schema import SYNTHETIC_ROW
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.studies.evaluate import _also
from tests.build import (
    OTHER_STAINS,
    STAINS,
    make_part,
    synthetic_rows,
    tile_rows,
    tissue_picture,
    write_synthetic_lineage,
)
from tests.conditions.test_towers import transformers_clip
from tests.stages import run, study_of

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def judge(monkeypatch):
    """The judge's own network takes half a minute for these tiles."""
    monkeypatch.setattr("histoloom.studies.evaluate.JUDGE", "efficientnet-lite0")


SIDE, LABELS, COUNT = 48, ("plain", "other"), 80


def tissue(seed: int, count: int = COUNT) -> np.ndarray:
    """Tiles of two stains in turn, none overlapping another."""
    pictures = [tissue_picture(640, 640, 100 * seed + n, stains) for n, stains in enumerate((STAINS, OTHER_STAINS))]
    places = [(y, x) for y in range(80, 528, SIDE) for x in range(80, 528, SIDE)]
    return np.stack([pictures[n % 2][y : y + SIDE, x : x + SIDE] for n, (y, x) in enumerate(places[:count])])


def _params(features: str = "efficientnet-lite0") -> Params:
    labels = {"source": "slide", "classes": list(LABELS)}
    return Params.model_validate(
        {
            "tile": {"mpp": 1.0, "tile_px": SIDE, "labels": labels},
            "train_denoiser": {"conditions": ["label"]},
            "filter": {"use": ["quality", "label", "near_copy"], "min_yield": 0},
            "train_filters": {"features": features},
            "evaluate": {"kid_subsets": 10, "features": features},
        }
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Real tiles of twelve train patients, and of others, and filters fitted to them."""
    folder = tmp_path_factory.mktemp("study")
    for seed, split in enumerate(("train", "val", "test")):
        rows = tile_rows(COUNT, split=split, label=[LABELS[n % 2] for n in range(COUNT)]).assign(
            tile_id=[f"{split}-{n}" for n in range(COUNT)], split_group=[f"{split}-{n // 2 % 12}" for n in range(COUNT)]
        )
        make_part(folder / "data/tiles", split, rows, tissue(seed))
    run("train_filters", study_of(_params(), folder))
    return folder


def filtered(
    study: Path,
    folder: Path,
    images: np.ndarray,
    labels: list[str],
    request: list[str] | str = EVALUATION,
    params: Params | None = None,
) -> dict:
    """The metrics of the stage `filter` on what a generator gave."""
    ancestors = [["train-0"]] * len(images)
    rows = synthetic_rows(len(images), label=labels, request=request, purpose="evaluate", ancestors=ancestors)
    make_part(folder / "data/synthetic", "evaluate-00000", rows, images, SYNTHETIC_ROW)
    write_synthetic_lineage(folder / "data/synthetic")
    if not (folder / "data/tiles").exists():
        link_tree(study / "data/tiles", folder / "data/tiles")
    if not (folder / "models/filters").exists():
        link_tree(study / "models/filters", folder / "models/filters")
    return run("filter", study_of(params or _params(), folder))["evaluate"]


def measured(folder: Path, of: str = "unfiltered") -> dict:
    """The metrics of the stage `evaluate` on what was filtered."""
    return evaluated(folder, _params())[of]


def evaluated(folder: Path, params: Params) -> dict:
    return run("evaluate", study_of(params, folder))


OWN = [LABELS[n % 2] for n in range(COUNT)]


def _jpeg(image: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=60)
    return np.asarray(Image.open(out))


def noise(_: np.ndarray):
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8), OWN


def blurred(_: np.ndarray):
    return np.stack([gaussian_filter(image, (3, 3, 0)) for image in tissue(7)]), OWN


def wrong_labels(_: np.ndarray):
    return tissue(7), OWN[::-1]


def copies(train: np.ndarray):
    return np.stack([_jpeg(np.rot90(image)) for image in train]), OWN


@pytest.mark.parametrize(("broken", "reason", "least"), [
    (noise, "low tissue quality", 0.95), (blurred, "low tissue quality", 0.95), (copies, "near-copy of a train tile", 0.95),
    (wrong_labels, "does not show its label", 0.5),  # at a threshold that lets 95 % of right ones of unseen patients pass
])  # fmt: skip
def test_what_is_broken_is_rejected_for_that(broken, reason, least, study, folder):
    train = TileStore(study / "data/tiles")
    rows = train.rows()
    found = filtered(study, folder, *broken(train.read(rows[rows["split"] == "train"])))["rejected_for"]
    others = {name: count for name, count in found.items() if name != reason}
    assert found[reason] >= least * COUNT, found
    if broken in (wrong_labels, copies):
        assert max(others.values()) < 0.2 * COUNT, found


def test_how_easily_samples_are_told_from_real_tiles(study, folder):
    """Blurred ones by everybody, and fresh tissue of the same process about as hardly as real train tiles."""
    filtered(study, folder, tissue(7), OWN)
    fresh = measured(folder, "realism")
    assert fresh["overall"]["samples"]["interval"][0] < fresh["overall"]["floor"]["interval"][1]
    assert fresh["by_class"]["plain"] == {k: {"n": {"real": 40, "other": 40}} for k in ("samples", "floor")}
    filtered(study, folder / "blurred", *blurred(tissue(7)))
    found = measured(folder / "blurred", "realism")["overall"]
    assert found["samples"]["auc"] > 0.99 > 0.9 > found["floor"]["auc"]
    assert found["floor"] == fresh["overall"]["floor"]


def test_the_labels_mix_tells_nothing(study, folder):
    """Of nothing but one label samples are compared with real tiles of that label alone, which are too few here."""
    one = [n for n in range(COUNT) if n % 2 == 0]
    filtered(study, folder, tissue(7)[one], [OWN[n] for n in one])
    assert measured(folder, "realism")["overall"]["samples"] == {"n": {"real": 40, "other": 40}}


@pytest.mark.slow
def test_the_judge_looks_through_a_network_of_its_own(study, folder, monkeypatch):
    monkeypatch.setattr("histoloom.studies.evaluate.JUDGE", JUDGE)
    filtered(study, folder, *blurred(tissue(7)))
    found = measured(folder, "realism")
    assert found["extractor"]["name"] == "efficientnet-lite2" and found["overall"]["samples"]["auc"] > 0.99


def test_fresh_tissue_passes_and_measures_as_real_tiles_do(study, folder):
    found = filtered(study, folder, tissue(7), OWN)
    assert found["accepted"] >= 0.85 * COUNT, found
    told = measured(folder)
    low, high = told["kid_interval"]["interval"]
    assert low < 0 < high and told["kid_interval"]["over"] == "split groups"
    assert told["recall"] > 0.5 * told["floor"]["recall"]


def test_one_image_repeated_is_told_by_recall_and_coverage(study, folder):
    filtered(study, folder, np.concatenate([tissue(7)[:2]] * (COUNT // 2)), OWN)
    told = measured(folder)
    assert told["recall"] < 0.1 < told["floor"]["recall"]
    assert told["coverage"] < 0.5 * told["floor"]["coverage"]
    assert told["kid"]["mean"] > 2 * abs(told["kid_floor"]["mean"])


def test_tiles_of_a_request_are_measured_apart(study, folder):
    """Half of the tiles were asked for as noise; what is drawn as held-out tiles are is measured as if they weren't there."""
    images = np.concatenate([tissue(7), noise(images := tissue(7))[0]])
    filtered(study, folder, images, OWN * 2, [EVALUATION] * COUNT + ["as-noise"] * COUNT)
    drawn, asked = measured(folder), measured(folder, "requests")["as-noise"]
    assert drawn["n"]["synthetic"] == asked["n"]["synthetic"] == COUNT
    assert asked["kid"]["mean"] > drawn["kid"]["mean"] + 1


def test_a_generator_that_saw_the_tiles_it_is_measured_by_is_refused(study, folder):
    filtered(study, folder, tissue(7), OWN)
    record = {"g": {"groups": ["train-0", "test-3"], "slides": [], "unknown": []}}
    (folder / "data/synthetic/lineage.json").write_text(json.dumps(record))
    with pytest.raises(HistoloomError, match="trained on held-out groups or slides: test-3"):
        measured(folder)


def test_filters_and_distances_look_through_the_network_that_params_name(study, folder, tmp_path):
    transformers_clip(tmp_path)
    params = _params(str(tmp_path))
    link_tree(study / "data/tiles", folder / "data/tiles")
    run("train_filters", study_of(params, folder))
    assert read_lineage(folder / "models/filters").unknown == (str(tmp_path),)  # whose tissue it saw nobody here knows
    filtered(study, folder, tissue(7), OWN)
    ours, usual = evaluated(folder, params), evaluated(folder, _params())
    assert ours["extractor"]["name"] == str(tmp_path) and "inception_score" not in ours["unfiltered"]
    assert ours["extractor_also"] == usual["extractor_also"] == ["what the filters look through"]
    assert usual["unfiltered"]["inception_score"]["mean"] > 1
    both = params.model_copy(update={"train_filters": _params().train_filters})
    assert evaluated(folder, both)["extractor_also"] == []


@pytest.mark.parametrize("source, flattered", [("efficientnet-lite0", True), ("train", False)])
def test_an_encoder_of_the_study_s_own_does_not_look_through_the_judge_s_network(source, flattered):
    stated = {"train_denoiser": {"conditions": ["image"]}, "train_encoders": {"image": {"source": source}}}
    judge = {"evaluate": {"features": "efficientnet-lite0"}}
    params = Params.model_validate({"tile": {"mpp": 1.0, "labels": {"classes": ["a", "b"]}}, **stated, **judge})
    assert ("the encoder of the image condition" in _also(params)) == flattered
