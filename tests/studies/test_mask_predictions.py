"""`evaluate` measures the masks that requests predict of annotated test tiles, and how far samples that agree can be trusted."""

from __future__ import annotations

import numpy as np
import pytest

from histoloom.config import Params
from histoloom.data.commit import commit_part
from histoloom.data.schema import SYNTHETIC_ROW, write_rows
from histoloom.data.store import UNKNOWN, TileStore, TileWriter, specs_of
from histoloom.studies.mask_predictions import measured_predictions, told_the_mask
from tests.build import make_part, synthetic_rows, tile_rows, tiles

SIDE, SPLITS = 8, ["train"] * 4 + ["val"] * 8 + ["test"] * 8
CLASSES = ("nucleus",)


def _truth() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 2, (len(SPLITS), SIDE, SIDE), dtype=np.uint8)


def _real(folder, masks: np.ndarray, **columns) -> TileStore:
    groups = [f"{split}-{n % 2}" for n, split in enumerate(SPLITS)]
    rows = tile_rows(len(SPLITS), split=SPLITS, split_group=groups, label=None, **columns)
    make_part(folder / "tiles", "s.0", rows, tiles(len(SPLITS), SIDE), masks=masks)
    return TileStore(folder / "tiles")


def _predicted(folder, real: TileStore, places: np.ndarray, *, begun: bool = False, **arrays: np.ndarray) -> TileStore:
    sources = real.rows()["tile_id"].to_numpy()[places]
    rows = synthetic_rows(len(places), tile_id=[f"predicted-{n}" for n in range(len(places))], condition_ref=sources)
    rows = rows.assign(input_ref=sources if begun else None)
    rows = rows.assign(request="nuclei", purpose="predict", split="", masked=True)
    pictures = {name: values[places] for name, values in arrays.items()}

    def write(into) -> None:
        with TileWriter(into, specs_of(pictures)) as writer:
            for number in range(len(places)):
                writer.add(**{name: values[number] for name, values in pictures.items()})
        write_rows(rows, into / "rows.parquet", SYNTHETIC_ROW)

    commit_part(folder / "predicted", "predict.0", write)
    return TileStore(folder / "predicted")


def _found(folder, masks: np.ndarray, places=None, drawn: np.ndarray | None = None, **arrays: np.ndarray) -> dict:
    real = _real(folder, _truth() if drawn is None else drawn)
    places = np.arange(len(SPLITS)) if places is None else places
    predicted = _predicted(folder, real, places, mask=masks, **arrays)
    return measured_predictions(real, predicted, CLASSES, 100).get("nuclei", {})


def test_masks_that_are_right_have_a_dice_of_one(tmp_path):
    found = _found(tmp_path, _truth())
    assert found == {
        "split": "test",
        "tiles": 8,
        "groups": 2,
        "dice": 1,
        "dice_of_worst_group": 1,
        "dice_of_class": {"nucleus": 1},
    }


def test_test_tiles_alone_are_counted_and_unknown_pixels_are_not(tmp_path):
    masks, drawn = _truth(), _truth()
    masks[: SPLITS.index("test")] = 1 - masks[: SPLITS.index("test")]
    drawn[-1, :4] = UNKNOWN
    masks[-1, :4] = 1 - masks[-1, :4]
    assert _found(tmp_path, masks, drawn=drawn)["dice"] == 1


def test_agreement_that_promises_too_much_is_measured_and_val_corrects_it(tmp_path):
    rng = np.random.default_rng(0)
    wrong = rng.random(_truth().shape) < 0.3
    masks = np.where(wrong, 1 - _truth(), _truth()).astype(np.uint8)
    found = _found(tmp_path, masks, agreement=np.ones(masks.shape, np.float32))
    assert found["error"] == pytest.approx(0.3, abs=0.05)
    assert found["calibration_error_as_said"] == pytest.approx(found["error"])
    assert found["calibration_error"] < 0.06
    assert found["certainty"]["said"][-1] == 1 and found["certainty"]["right"][-1] == pytest.approx(0.7, abs=0.05)


def test_without_val_tiles_agreement_is_measured_and_not_corrected(tmp_path):
    of_test = np.flatnonzero(np.array(SPLITS) == "test")
    found = _found(tmp_path, _truth(), of_test, agreement=np.ones(_truth().shape, np.float32))
    assert found["calibration_error_as_said"] == 0 and "certainty" not in found


@pytest.mark.parametrize(
    "masks, arrays",
    [
        (_truth()[:, ::2, ::2], {}),
        (_truth(), {"image": tiles(len(SPLITS), SIDE)}),
    ],
    ids=["another size", "given beside a picture"],
)
def test_what_is_no_prediction_of_the_mask_is_left_out(tmp_path, masks, arrays):
    assert _found(tmp_path, masks, **arrays) == {}


def test_tiles_that_nobody_annotated_are_left_out(tmp_path):
    real = _real(tmp_path, _truth(), masked=False)
    predicted = _predicted(tmp_path, real, np.arange(len(SPLITS)), mask=_truth())
    assert measured_predictions(real, predicted, CLASSES, 100) == {}


def test_test_tiles_that_show_nothing_have_no_dice(tmp_path):
    assert _found(tmp_path, _truth(), drawn=np.zeros_like(_truth())) == {"split": "test", "tiles": 8, "groups": 2}


def test_masks_that_were_begun_from_masks_are_no_evidence_and_that_is_said(tmp_path, capsys):
    real = _real(tmp_path, _truth())
    predicted = _predicted(tmp_path, real, np.arange(len(SPLITS)), begun=True, mask=_truth())
    assert measured_predictions(real, predicted, CLASSES, 100) == {}
    assert "begun from masks" in capsys.readouterr().err


def test_masks_of_a_model_that_was_given_them_are_no_evidence_and_that_is_said(tmp_path, capsys):
    real = _real(tmp_path, _truth())
    predicted = _predicted(tmp_path, real, np.arange(len(SPLITS)), mask=_truth())
    assert measured_predictions(real, predicted, CLASSES, 100, {"nuclei"}) == {}
    assert "given the tiles' own masks" in capsys.readouterr().err


@pytest.mark.parametrize(
    "conditions, told", [(["picture"], set()), (["picture", "counts"], {"nuclei"}), (["mask"], {"nuclei"})]
)
def test_requests_whose_model_is_given_the_mask_are_known(conditions, told):
    params = Params.model_validate({
        "tile": {"mpp": 0.5, "labels": {"source": "none"}, "masks": {"source": "raster", "classes": list(CLASSES)}},
        "train_denoiser": {"target": {"name": "masks"}, "conditions": conditions},
        "plan": {"target": "none", "requests": [{"name": "nuclei", "tiles": 4, "purpose": "predict"}]},
    })  # fmt: skip
    assert told_the_mask(params) == told


def test_a_later_model_that_is_given_the_tile_s_own_mask_is_known_and_one_that_is_not_is_not():
    shared = {
        "tile": {"mpp": 0.5, "labels": {"source": "none"}, "masks": {"source": "raster", "classes": list(CLASSES)}}
    }
    clean = {"train_denoiser": {"target": "pixels", "conditions": ["picture"]}}
    nuclei = {"train_denoiser": {"target": {"name": "masks"}, "conditions": ["picture", "counts"]}}
    request = {"name": "nuclei", "tiles": 4, "purpose": "predict"}
    chain = {
        "models": {"clean": clean, "segment": nuclei},
        "sample": {"chain": ["clean", "segment"]},
        "plan": {"target": "none", "requests": [request]},
    }
    assert told_the_mask(Params.model_validate(shared | chain)) == {"nuclei"}
    alone = shared | nuclei | {"plan": chain["plan"], "sample": {"guidance": {"counts": 0, "picture": 1.0}}}
    assert told_the_mask(Params.model_validate(alone)) == set()


def test_a_tile_counts_once_however_many_samples_are_kept(tmp_path):
    found = _found(tmp_path, _truth(), np.repeat(np.arange(len(SPLITS)), 3))
    assert found["tiles"] == 8 and found["dice"] == 1


def test_parts_without_masks_hide_no_other(tmp_path):
    make_part(tmp_path / "tiles", "a.0", tile_rows(2, tile_id=["a0", "a1"], split="train", label=None), tiles(2, SIDE))
    real = _real(tmp_path, _truth())
    order = np.concatenate([np.flatnonzero(~real.rows()["masked"]), np.flatnonzero(real.rows()["masked"])])
    masks = np.concatenate([np.zeros((2, SIDE, SIDE), np.uint8), _truth()])
    assert real.rows()["part"].iloc[0] == "a.0"
    predicted = _predicted(tmp_path, real, order, mask=masks)
    assert measured_predictions(real, predicted, CLASSES, 100)["nuclei"]["dice"] == 1


def test_without_a_test_split_val_is_measured_and_corrects_nothing(tmp_path):
    groups = [f"{split}-{n % 2}" for n, split in enumerate(SPLITS)]
    rows = tile_rows(len(SPLITS), split=["train"] * 4 + ["val"] * 16, split_group=groups, label=None)
    make_part(tmp_path / "tiles", "s.0", rows, tiles(len(SPLITS), SIDE), masks=_truth())
    real = TileStore(tmp_path / "tiles")
    sure = np.ones(_truth().shape, np.float32)
    predicted = _predicted(tmp_path, real, np.arange(len(SPLITS)), mask=_truth(), agreement=sure)
    found = measured_predictions(real, predicted, CLASSES, 100)["nuclei"]
    assert found["split"] == "val" and found["tiles"] == 16 and "certainty" not in found
