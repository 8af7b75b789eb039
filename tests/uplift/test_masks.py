"""The experiment on masks: Dice by hand, an arm that pays for what a filter takes out, and a command of one's own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histoloom.config import Params
from histoloom.data import mapped
from histoloom.data.schema import SYNTHETIC_ROW
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.errors import HistoloomError
from histoloom.training import loop
from histoloom.uplift import tiles as tiles_of_uplift
from histoloom.uplift import trial
from histoloom.uplift.tasks import MaskTask, counted
from tests.build import make_part, synthetic_rows, tile_rows, tiles, write_synthetic_lineage, write_verdicts
from tests.uplift.studies import CLASSES, params_of, run_uplift, write_study

pytestmark = pytest.mark.long


def test_dice_by_patient_by_hand():
    stated = np.zeros((3, 2, 2), int)
    stated[0, 0], stated[1, 0], stated[2, :, 0] = 1, 1, 2
    found = stated.copy()
    found[0, 0, 0], found[2, 0, 0] = 0, 0
    counts = counted(found, stated, 2)
    task = MaskTask(("nucleus", "gland"), np.array(["a", "a", "b"]))
    measures = task.measures(counts)
    assert counts[0].tolist() == [1, 1, 2, 0, 0, 0] and counts[2].tolist() == [0, 0, 0, 1, 1, 2]
    of_a, of_b = 2 * 3 / (3 + 4), 2 * 1 / (1 + 2)
    assert measures["dice"] == pytest.approx((of_a + of_b) / 2) and measures["dice_of_worst_group"] == pytest.approx(
        of_b
    )
    assert measures["dice_of_class"] == {"nucleus": pytest.approx(of_a), "gland": pytest.approx(of_b)}
    evidence = task.evidence(counts)
    assert task.score(evidence, np.ones(3)) == pytest.approx(measures["dice"])
    assert task.score(evidence, np.array([0.0, 0, 1])) == pytest.approx(of_b)
    assert task.score(evidence, np.array([2.0, 2, 1])) == pytest.approx((2 * of_a + of_b) / 3)
    assert np.isnan(task.score(evidence, np.zeros(3)))
    found[0, 0, 1] = (
        2  # a class that the patient lacks takes nothing from the mean over classes, but from the class that it hides
    )
    worse = task.measures(counted(found, stated, 2))
    assert worse["dice"] == pytest.approx((2 * 2 / (2 + 4) + of_b) / 2)
    lone = MaskTask(("nucleus", "never"), np.array(["a", "a"]))
    assert lone.measures(counted(found[:2], stated[:2], 2))["dice_of_class"].keys() == {"nucleus"}


def _write_masks(folder: Path) -> None:
    """Dark squares on noise, and their masks; most synthetic tiles show their square elsewhere than their mask says."""
    rng, count = np.random.default_rng(0), 120

    def drawn(n: int, right: bool):
        images, masks = rng.integers(150, 256, (n, 24, 24, 3), np.uint8), np.zeros((n, 24, 24), np.uint8)
        for image, mask, (y, x) in zip(images, masks, rng.integers(0, 14, (n, 2))):
            mask[y : y + 10, x : x + 10] = 1
            image[mask == 1] = rng.integers(20, 100, (100, 3))
        return images, masks if right else masks[::-1]

    for split in ("train", "val", "test"):
        rows = tile_rows(12, split=split, split_group=split, masked=True).assign(
            tile_id=[f"{split}-{n}" for n in range(12)]
        )
        images, masks = drawn(12, True)
        make_part(folder / "data/tiles", split, rows, images, masks=masks)
    rows = synthetic_rows(count, split_group="train", masked=True)
    good, bad = drawn(20, True), drawn(count - 20, False)
    images, masks = (np.concatenate(parts) for parts in zip(good, bad))
    make_part(folder / "data/synthetic", "augment-00000", rows, images, SYNTHETIC_ROW, masks=masks)
    write_synthetic_lineage(folder / "data/synthetic")
    write_verdicts(folder / "data/verdicts/augment-00000", rows, [n < 20 for n in range(count)])


def _mask_params(**uplift) -> Params:
    params = params_of(task="mask", **uplift)
    masks = params.tile.masks.model_copy(update={"source": "raster", "classes": ("square",)})
    return params.model_copy(update={"tile": params.tile.model_copy(update={"masks": masks})})


def test_masks_are_learnt_and_an_unfiltered_arm_pays_for_what_a_filter_takes_out(folder):
    _write_masks(folder)
    arms = ["real", "real+synthetic", "real+unfiltered", "synthetic"]
    found = run_uplift(_mask_params(arms=arms, ratios=[1.5], seeds=1, steps=60, learning_rate=3e-3, batch_size=16))
    by_arm = {arm["arm"]: arm for arm in found["arms"]}
    assert found["primary_measure"] == "dice" and by_arm["real"]["dice"] > 0.8
    assert (
        by_arm["real+unfiltered"]["trained_on"]
        == by_arm["real+synthetic"]["trained_on"]
        == {"real": 12, "synthetic": 18}
    )
    assert by_arm["synthetic"]["trained_on"] == {"real": 0, "synthetic": 20}
    assert found["filtering"][0]["difference"] > 0 and "points of Dice" in found["filtering"][0]["verdict"]


def test_tiles_of_a_broken_off_run_are_deleted_when_params_change(folder, monkeypatch):
    _write_masks(folder)
    step = loop._Loop.step

    def broken(self, number: int):
        raise KeyboardInterrupt

    def unpacked() -> list[Path]:
        return sorted(Path(".work/uplift").rglob("*.npy"))

    given = {"arms": ["real"], "ratios": [1.0], "seeds": 1, "batch_size": 4}
    left = Path(".work/uplift/shared/training/pretraining@0-tiles")  # of a pretraining
    left.mkdir(parents=True)
    (left / "tiles.npy").touch()
    monkeypatch.setattr(loop._Loop, "step", broken)
    for steps in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run_uplift(_mask_params(**given, steps=steps))
        assert len(unpacked()) == 2, "pictures and masks of one model"
    before = [path.stat().st_ino for path in unpacked()]
    with pytest.raises(KeyboardInterrupt):
        run_uplift(_mask_params(**given, steps=3))
    assert [path.stat().st_ino for path in unpacked()] == before, "found again"
    monkeypatch.setattr(loop._Loop, "step", step)
    run_uplift(_mask_params(**given, steps=3))
    assert not unpacked()


def test_a_store_of_an_earlier_version_has_no_column_that_labels_never_needed(folder):
    labels = list(CLASSES) * 10
    write_study(folder, labels, labels)
    for path in Path("data").rglob("rows.parquet"):
        rows = pd.read_parquet(path)
        rows.drop(columns=["masked", "predicted", "request"], errors="ignore").to_parquet(path)
    found = run_uplift(params_of(arms=["real", "strong+synthetic"], seeds=1, steps=2, learning_rate=1e-3))
    assert [arm["trained_on"] for arm in found["arms"]] == [{"real": 24, "synthetic": 0}, {"real": 24, "synthetic": 20}]


def test_a_tile_whose_mask_is_unknown_is_not_learnt_from(folder):
    _write_masks(folder)
    rows = tile_rows(5, split="train", split_group="train", masked=False).assign(tile_id=[f"u{n}" for n in range(5)])
    make_part(folder / "data/tiles", "unknown", rows, tiles(5, 24), masks=np.full((5, 24, 24), UNKNOWN, np.uint8))
    found = run_uplift(_mask_params(arms=["real"], ratios=[1.0], seeds=1, steps=2, batch_size=4))
    assert found["arms"][0]["trained_on"] == {"real": 12, "synthetic": 0}


def test_a_tile_whose_mask_a_model_predicted_is_retrieved_and_not_taken_for_annotated(folder):
    _write_masks(folder)
    rows = tile_rows(5, split="train", split_group="other", masked=False, predicted=True)
    make_part(folder / "data/tiles", "predicted", rows.assign(tile_id=[f"p{n}" for n in range(5)]), tiles(5, 24),
              masks=np.ones((5, 24, 24), np.uint8))  # fmt: skip
    arms = ["real", "strong+retrieval"]
    found = run_uplift(_mask_params(arms=arms, ratios=[1.0], seeds=1, steps=2, batch_size=4, learning_rate=1e-3))
    assert [arm["trained_on"]["real"] for arm in found["arms"]] == [12, 12] and not found["left_out"]


@pytest.fixture
def at_once(monkeypatch) -> dict[str, int]:
    """The most tiles whose pixels are read together, five being asked for, and the most models whose tiles lie unpacked on the disk."""
    most, read = {"tiles": 0, "models": 0}, TileStore.read

    def watched(store: TileStore, rows: pd.DataFrame, name: str = "image") -> np.ndarray:
        unpacked = [*Path(".work/uplift").glob("**/training/*/tiles")]
        most.update(tiles=max(most["tiles"], len(rows)), models=max(most["models"], len(unpacked)))
        return read(store, rows, name)

    monkeypatch.setattr(TileStore, "read", watched)
    for module, name in ((mapped, "AT_ONCE"), (tiles_of_uplift, "AT_ONCE"), (trial, "AT_ONCE"), (trial, "_PREDICTED")):
        monkeypatch.setattr(module, name, 5)
    return most


def test_unlabelled_tiles_are_retrieved_with_masks_that_a_teacher_finds(folder, at_once):
    _write_masks(folder)
    rows = tile_rows(9, split="train", split_group="more", masked=False).assign(tile_id=[f"u{n}" for n in range(9)])
    make_part(folder / "data/tiles", "unknown", rows, tiles(9, 24), masks=np.full((9, 24, 24), UNKNOWN, np.uint8))
    arms = ["real", "strong", "strong+retrieval", "strong+ssl", "strong+synthetic"]
    told = {"steps": 2, "batch_size": 8}
    found = run_uplift(_mask_params(arms=arms, ratios=[0.5], seeds=1, steps=4, batch_size=4, pretraining=told))
    by_arm = {arm["arm"]: arm for arm in found["arms"]}
    assert [*by_arm] == arms and by_arm["strong+retrieval"]["trained_on"] == {
        "real": 12,
        "synthetic": 0,
        "retrieved": 6,
    }
    assert found["gain"][0]["against"].split(",")[0] in ("strong", "strong+retrieval", "strong+ssl")
    assert len([*Path(".work/uplift").rglob("encoder.safetensors")]) == 1
    assert at_once == {"tiles": 5, "models": 1}, "however many tiles and models there are"


MY_MASKS = """
import io, sys
from pathlib import Path
import numpy as np, pandas as pd
from PIL import Image
dataset, output = Path(sys.argv[1]), sys.argv[2]
train = sorted((dataset / "train/images").iterdir())
assert [p.name for p in train] == [p.name for p in sorted((dataset / "train/masks").iterdir())]
def mask(path):
    out = io.BytesIO()
    Image.fromarray((np.asarray(Image.open(path)).mean(2) < 125).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()
tests = sorted((dataset / "test").glob("*.png"))
open("calls", "a").write(f"{len(tests)} ")
pd.DataFrame({"tile_id": [p.stem for p in tests], "mask": [mask(p) for p in tests]}).to_parquet(output)
"""


def test_a_command_finds_masks_and_what_is_none_is_told(folder):
    _write_masks(folder)
    Path("mine.py").write_text(MY_MASKS)
    command = f"{sys.executable} mine.py {{dataset}} {{predictions}}"
    given = {"arms": ["real"], "seeds": 1, "learner": "command", "command": command}
    assert run_uplift(_mask_params(**given))["arms"][0]["dice"] == 1
    assert Path("calls").read_text() == "24 ", "once, with the tiles of test and of val"
    Path("mine.py").write_text(MY_MASKS.replace("out.getvalue()", "b'no picture'"))
    with pytest.raises(HistoloomError, match="`mask`, a PNG's bytes"):
        run_uplift(_mask_params(**given | {"steps": 13}))


def test_without_a_synthetic_tile_to_augment_the_arms_with_synthetic_tiles_are_left_out(folder):
    _write_masks(folder)
    path = next(Path("data/verdicts").rglob("rows.parquet"))
    pd.read_parquet(path).assign(purpose="evaluate").to_parquet(path)
    found = run_uplift(_mask_params(arms=["real", "real+synthetic"], seeds=1, steps=2))
    assert (
        found["left_out"]
        == {"real+synthetic": "no tile with a mask was made to augment (see plan.target and plan.requests)"}
        and len(found["arms"]) == 1
    )


def test_masks_that_show_nothing_can_t_be_found(folder):
    _write_masks(folder)
    params = _mask_params(arms=["real"], seeds=1, steps=2)
    masks = params.tile.masks.model_copy(update={"classes": ("square", "circle")})
    images, blank = tiles(12, 24), np.zeros((12, 24, 24), np.uint8)
    rows = tile_rows(12, split="test", split_group="test", masked=True).assign(tile_id=[f"test-{n}" for n in range(12)])
    shutil.rmtree("data/tiles/test")
    make_part(folder / "data/tiles", "test", rows, images, masks=blank)
    with pytest.raises(HistoloomError, match="No test tile's mask shows any of square, circle"):
        run_uplift(params.model_copy(update={"tile": params.tile.model_copy(update={"masks": masks})}))


def test_masks_that_are_not_there_can_t_be_learnt(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    with pytest.raises(HistoloomError, match="no train tiles with masks"):
        run_uplift(_mask_params(arms=["real"]))
