"""A whole study without a slide: from a folder of tiles through DVC to encoded data and a plan."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from histoloom.data.store import TileStore
from tests.build import write_csv
from tests.studies.tile_sets import CLASSES, PX, Tiles, encoded, write_set
from tests.tiny_study import TINY, dvc, edit_yaml, run

pytestmark = pytest.mark.long
HISTOLOOM = str(Path(sys.executable).with_name("histoloom"))


def _make_study(folder: Path) -> Path:
    tile = {"mpp": 1.0, "tile_px": PX, "stride_px": PX, "labels": {"source": "slide", "classes": [*CLASSES]}}
    masks = {"source": "raster", "classes": ["nucleus", "clear"]}
    recipe = {key: TINY[key] for key in ("train_autoencoder",)} | {
        "tile": tile | {"masks": masks},
        "train_encoders": {"cohort": {"columns": ["site"]}, "number": {"columns": ["meta_age"]}},
        "train_denoiser": TINY["train_denoiser"] | {"conditions": ["label", "mask", "cohort", "number"]},
        "plan": {"target": 20, "evaluation_tiles": 4, "batch_size": 8, "batches_per_part": 1},
    }
    with folder.with_suffix(".recipe.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(recipe, stream)
    run(folder.parent, HISTOLOOM, "init", str(folder), "--recipe", str(folder.with_suffix(".recipe.yaml")))
    tiles = Tiles(48)
    tiles.patients = [f"P{n % 8}" for n in range(48)]
    tiles.names = [f"{patient}_{n:03d}" for n, patient in enumerate(tiles.patients)]
    write_set(tiles, folder / "data/cut", "image_folder")
    rows = [
        {
            "path": f"{label}/{name}.png",
            "patient_id": patient,
            "site": "north" if patient < "P4" else "south",
            "meta_age": 40 + n % 8,
        }
        for n, (label, name, patient) in enumerate(zip(tiles.labels, tiles.names, tiles.patients))
    ]
    write_csv(folder / "data/cut/pictures/metadata.csv", rows)
    stated = {"path": "data/cut/pictures", "masks": "data/cut/masks", "name": "set", "mpp": 1.0}
    edit_yaml(folder / "params.yaml", tile={"manifest": None, "sets": [stated]})
    edit_yaml(folder / "cluster.yaml", workers=0, training_threads=1)
    return folder


def test_a_study_of_tiles_runs_and_runs_again_only_where_a_tile_changed(tmp_path):
    study = _make_study(tmp_path / "study")
    said = run(study, HISTOLOOM, "validate", check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    dvc(study, "repro", "encode", "plan")
    rows = TileStore(study / "data/tiles").rows()
    assert len(rows) == 48 and rows["masked"].all() and {*rows["split"]} == {"train", "val", "test"}
    plan = pd.concat(pd.read_parquet(path) for path in (study / "data/plan").rglob("*.parquet"))
    train = rows[rows["split"] == "train"]
    augment = plan[plan["purpose"] == "augment"]
    assert len(augment) and {*augment["condition_ref"]} <= {*train["tile_id"]}
    assert {*augment["split_group"]} <= {*train["split_group"]}
    assert {json.loads(text)["site"] for text in augment["cohort"]} <= {"north", "south"}
    assert all(isinstance(json.loads(text)["meta_age"], float) for text in augment["number"])
    assert "Stage 'tile' didn't change" in dvc(study, "repro", "tile").stdout
    changed = study / f"data/cut/pictures/{CLASSES[0]}/P0_000.png"
    changed.write_bytes(encoded(Tiles(1, seed=9).images[0]))
    dvc(study, "repro", "tile")
    store = TileStore(study / "data/tiles")
    mine = store.rows().query("tile_id == 'set_stroma.P0_000'")
    assert (store.read(mine)[0] == np.asarray(Image.open(changed))).all()
    shutil.rmtree(study / "data/cut/masks")
    said = run(study, HISTOLOOM, "validate", check=False)
    assert said.returncode == 1 and "masks names 'data/cut/masks', which is no folder" in said.stdout + said.stderr
