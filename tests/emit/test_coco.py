"""COCO as its own tools read it: masks exact, what isn't known left out and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from histoloom.config import Params
from histoloom.data.commit import commit_part
from histoloom.data.schema import SYNTHETIC_ROW, TILE_ROW, write_rows
from histoloom.data.store import UNKNOWN, TileStore, TileWriter, cut_arrays
from histoloom.emit.coco import annotations_of, run_lengths
from histoloom.errors import HistoloomError
from histoloom.studies.emit import emit_dataset
from tests.build import make_part, synthetic_rows, tile_rows, tiles, write_synthetic_lineage, write_verdicts
from tests.stages import study_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
SIDE = 16


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_those_that_its_tools_read(where):
    found = run_lengths(where)
    assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(found, *where.shape)), where)


@given(
    arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, UNKNOWN])),
    arrays(np.int32, (6, 7), elements=st.integers(0, 4)),
)
def test_every_known_pixel_of_a_class_is_in_one_annotation(mask, instances):
    found = list(annotations_of(mask, instances, 2))
    decoded = [coco_mask.decode(coco_mask.frPyObjects(one["segmentation"], *mask.shape)) for one in found]
    covered = np.sum(decoded, 0) if found else np.zeros(mask.shape)
    assert covered.max(initial=0) <= 1
    assert (covered[(mask == 1) | (mask == 2)] == 1).all()
    for one, where in zip(found, decoded):
        assert one["area"] == where.sum() and one["category_id"] in (1, 2)
        left, top, width, height = one["bbox"]
        assert where[top : top + height, left : left + width].sum() == where.sum()
        assert where[top].any() and where[:, left + width - 1].any()


def test_an_object_has_the_class_of_most_of_its_pixels_and_the_rest_is_one_region():
    mask = np.zeros((4, 6), np.uint8)
    mask[:, :2], mask[0, 0], mask[:, 4:] = 1, 2, 2
    instances = np.zeros((4, 6), np.int32)
    instances[:2, :2], instances[2:, :2] = 7, 3
    found = [(one["category_id"], one["area"], one["bbox"]) for one in annotations_of(mask, instances, 2)]
    assert found == [(1, 4, [0, 2, 2, 2]), (1, 4, [0, 0, 2, 2]), (2, 8, [4, 0, 2, 4])]


def _masks(count: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 3, (count, SIDE, SIDE)).astype(np.uint8)
    drawn[:, 0, :3] = UNKNOWN
    return drawn


def _part_with_nuclei(split: str, count: int, seed: int) -> np.ndarray:
    """A part of tiles whose nuclei are told apart, the first without a known mask; the masks."""
    rows = tile_rows(count, tile_id=[f"{split}_{n}" for n in range(count)], split=split, split_group=split, label=None)
    rows["masked"] = [False] + [True] * (count - 1)
    masks, nuclei = _masks(count, seed), np.zeros((count, SIDE, SIDE), np.int32)
    nuclei[:, 4:7, 4:7], masks[:, 4:7, 4:7] = 1, 1
    nuclei[:, 9:11, 2:8], masks[:, 9:11, 2:8] = 5, 1

    def write(folder: Path) -> None:
        given = {"image": tiles(count, SIDE, seed), "mask": masks, "instance": nuclei}
        with TileWriter(folder, cut_arrays(SIDE, given)) as writer:
            for number in range(count):
                writer.add(**{name: array[number] for name, array in given.items()})
        write_rows(rows, folder / "rows.parquet", TILE_ROW)

    commit_part(Path("data/tiles"), split, write)
    return masks


def _params(**emit) -> Params:
    tile = {
        "mpp": 0.5, "tile_px": SIDE, "labels": {"source": "none"}, "masks": {"source": "raster", "classes": ["nucleus", "clear"]},
    }  # fmt: skip
    return Params.model_validate({"tile": tile, "emit": {"formats": ["coco"]} | emit})


def _read(split: str) -> COCO:
    return COCO(f"out/coco/annotations/{split}.json")


def test_an_emitted_set_has_the_masks_of_real_and_accepted_tiles(folder, capsys):
    masks = {split: _part_with_nuclei(split, 3, seed) for seed, split in enumerate(("train", "val", "test"))}
    rows, made = synthetic_rows(3, split="train", label=None), _masks(3, 9)
    make_part("data/synthetic", "s", rows, tiles(3, SIDE, 9), SYNTHETIC_ROW, made)
    write_verdicts("data/verdicts/s", rows.assign(masked=True), [True, False, True])
    write_synthetic_lineage("data/synthetic")
    said = emit_dataset(study_of(_params(licence="CC0")), Path("out"), b"a salt for tests, sixteen and more")
    assert said["counts"]["train"] == {"real": {"unlabelled": 2}, "synthetic": {"unlabelled": 2}}
    assert {p.name for p in Path("out/coco").iterdir()} == {"annotations", "train", "val", "test"}
    train = _read("train")
    assert [c["name"] for c in train.loadCats(train.getCatIds())] == ["nucleus", "clear"]
    expected = {**_by_pixels("train", masks["train"][1:], 0, 1), **_by_pixels("made", made[[0, 2]], 9, [0, 2])}
    found = {_pixels(f"out/coco/train/{i['file_name']}"): i for i in train.dataset["images"]}
    assert set(found) == set(expected) and {i["source"] for i in found.values()} == {"real", "synthetic"}
    for pixels, image in found.items():
        mask, of_image = expected[pixels], train.loadAnns(train.getAnnIds(image["id"]))
        seen = np.sum([train.annToMask(one) * one["category_id"] for one in of_image], 0)
        assert np.array_equal(seen, np.where(mask == UNKNOWN, 0, mask))
        unknown = coco_mask.decode(coco_mask.frPyObjects(image["unknown"], SIDE, SIDE))
        assert np.array_equal(unknown, mask == UNKNOWN)
        nuclei = [one for one in of_image if one["category_id"] == 1]
        assert len(nuclei) == (3 if image["source"] == "real" else 1)
    assert len(_read("val").imgs) == 2 and "emit coco val: 1 of 3 tiles are left out" in capsys.readouterr().err


def _by_pixels(split: str, masks: np.ndarray, seed: int, which) -> dict[bytes, np.ndarray]:
    images = tiles(3, SIDE, seed)[1:] if which == 1 else tiles(3, SIDE, seed)[which]
    return {image.tobytes(): mask for image, mask in zip(images, masks, strict=True)}


def _pixels(path: str) -> bytes:
    return np.asarray(Image.open(path)).tobytes()


def test_without_masks_it_is_refused(folder):
    with pytest.raises(ValueError, match="coco, which holds masks"):
        Params.model_validate({"tile": {"mpp": 0.5, "labels": {"source": "none"}}, "emit": {"formats": ["coco"]}})
    rows = tile_rows(3, split=["train", "val", "test"], split_group=["a", "b", "c"], label=None)
    make_part("data/tiles", "t", rows, tiles(3, SIDE))
    with pytest.raises(HistoloomError, match="no tile has a mask"):
        emit_dataset(study_of(_params()), Path("out"), b"a salt for tests, sixteen and more")


def test_what_a_learner_predicted_does_not_leave_as_a_mask(folder):
    rows = tile_rows(3, split=["train", "val", "test"], split_group=["a", "b", "c"], label=None)
    rows = rows.assign(masked=[False, True, True], predicted=[True, False, False])
    make_part("data/tiles", "t", rows, tiles(3, SIDE), masks=_masks(3, 0))
    assert TileStore("data/tiles").rows()["predicted"].sum() == 1
    emit_dataset(study_of(_params()), Path("out"), b"a salt for tests, sixteen and more")
    assert {p.stem for p in Path("out/coco/annotations").iterdir()} == {"val", "test"}
    said = json.loads(Path("out/coco/annotations/val.json").read_text())
    assert said["licenses"][0]["name"] == "unknown"
