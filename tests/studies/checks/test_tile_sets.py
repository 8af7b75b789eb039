"""What `validate` finds in sets of tiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.config import Params
from histoloom.data.manifest import check_manifest
from histoloom.errors import faults_among, lines_of, notes_among
from histoloom.studies.checks.tile_sets import classes_of_sets, open_sets
from histoloom.studies.checks.validate import _check_slides_and_splits
from tests.stages import study_of
from tests.studies.tile_sets import LABELS, MASKS, PX, Tiles, params_of, write_set


def check(params: Params) -> tuple[str, str]:
    """Faults and notes of pictures and splits."""
    manifest, _ = check_manifest(params.tile)
    found = [*open_sets(manifest, params.tile), *_check_slides_and_splits(study_of(params), params, manifest, {})]
    return "\n".join(lines_of(faults_among(found))), "\n".join(lines_of(notes_among(found)))


def test_pictures_are_looked_at(folder):
    stated = write_set(Tiles(), folder / "in", "image_folder")
    assert check(params_of(stated, **MASKS)) == ("", "")
    path = min(Path("in/pictures").rglob("*.png"))
    Image.fromarray(np.zeros((PX, 8, 3), np.uint8)).save(path)
    words = f"1 of 24 pictures that were looked at can't be used: 'stroma/{path.stem}'; it is 8 x 32 px"
    assert words in check(params_of(stated))[0]
    assert words in check(params_of(stated, max_bad_tiles=1))[1]


def test_masks_are_looked_at(folder):
    tiles = Tiles()
    tiles.masks = tiles.masks * 100
    faults, _ = check(params_of(write_set(tiles, folder / "in", "hdf5"), **MASKS))
    assert "its mask holds 200, and there are 2 classes: state mask_values" in faults


def test_a_class_that_no_train_tile_has_is_said(folder):
    tiles = Tiles()
    tiles.labels = ["tumour" if patient == "P0" else "stroma" for patient in tiles.patients]
    stated = write_set(tiles, folder / "in", "npz")
    manifest, _ = check_manifest(params_of(stated, **MASKS).tile)
    classes = classes_of_sets(manifest, params_of(stated, **MASKS).tile)
    assert classes["P0"].labels == {"tumour"} and classes["P1"].masks == {"nucleus", "clear"}
    split = {"split": {"assign": {f"P{n}": "train" if n else "test" for n in range(6)}}}
    _, notes = check(params_of(stated, **split))
    assert "1 test slide(s), and no train slide, show 'tumour': it can't be learned or made" in notes


def test_a_request_for_a_patient_of_a_set_is_known(folder):
    params = params_of(write_set(Tiles(), folder / "in", "npz"), split={"assign": {"P0": "test", "P1": "train"}})
    asked = [{"name": "a", "tiles": 2, "where": {"patient_id": patient}} for patient in ("P0", "P1", "P9")]
    plan = params.plan.model_validate({"requests": asked})
    faults, _ = check(params.model_copy(update={"plan": plan}))
    assert "'P0' is held out (test), and purpose is augment" in faults and "there is no patient_id 'P9'" in faults
    assert "'P1'" not in faults


def test_a_set_that_is_gone_is_a_fault_and_no_more(folder):
    stated = write_set(Tiles(), folder / "in", "image_folder")
    shutil.rmtree("in/pictures")
    manifest, found = check_manifest(params_of(stated, labels=LABELS).tile)
    assert not manifest.stated and "nothing lies there" in str(faults_among(found)[0])
