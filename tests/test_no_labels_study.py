"""A study without labels, as the page of tiles states it: the block is the recipe, and every stage runs with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from histoloom.cli.recipe import merge
from histoloom.config import Params
from histoloom.studies.checks.params import check_stages
from histoloom.studies.stage_work import run_stage
from histoloom.studies.stages import STAGES
from tests.stages import study_of
from tests.studies.tile_sets import PX, Tiles, encoded

ROOT = Path(__file__).parents[1]
TINY = {
    "tile": {"mpp": 1.0, "tile_px": PX, "stride_px": PX, "manifest": None},
    "train_autoencoder": {"channels": 16, "down_factor": 4, "steps": 4, "batch_size": 4},
    "train_denoiser": {"channels": [16, 32], "steps": 4, "batch_size": 8},
    "plan": {"evaluation_tiles": 4, "batch_size": 8, "batches_per_part": 1},
    "sample": {"steps": 2},
    "evaluate": {"kid_subsets": 2},
}


def _block() -> dict:
    page = (ROOT / "docs/how-to/bring-your-own-tiles.md").read_text(encoding="utf-8")
    section = page.partition("## No labels at all")[2]
    return YAML(typ="safe").load(re.search(r"```yaml\n(.*?)```", section, re.DOTALL)[1])


def _recipe(name: str) -> dict:
    return YAML(typ="safe").load((ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8"))


def test_the_page_s_block_is_the_recipe():
    assert _block() == _recipe("no-labels")


@pytest.mark.long
def test_every_stage_runs_without_a_label(folder):
    cut, place = Tiles(48), folder / "in"
    place.mkdir()
    for image, name in zip(cut.images, cut.names):
        (place / f"{name}.png").write_bytes(encoded(image))
    stated = {"path": str(place), "mpp": 1.0, "patterns": {"patient_id": r"^(P\d)"}}
    tiny = {**TINY, "tile": TINY["tile"] | {"sets": [stated]}}
    few = {"plan": {"requests": [{"name": "more", "tiles": 8}], "evaluation_tiles": 4}}
    found: dict = {}
    for overlay in (_recipe("study"), tiny, _block(), few):
        merge(found, overlay)
    study = study_of(Params.model_validate(found))
    assert check_stages(study.params, study.cluster, study.reviews) == []
    for name in [name for name, stage in STAGES.items() if not stage.demo and name != "resolve"]:
        run_stage(name, study)
    written = {path.parent.name: path for path in (folder / "reports").glob("*/metrics.json")}
    metrics = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in written.items()}
    assert (
        metrics["tile"]["tiles_by_split"]["train"].keys() == {"unlabelled"}
        and study.real().rows()["label"].isna().all()
    )
    assert metrics["plan"]["augment"] == 8 and metrics["uplift"] == {"left_out": "uplift.seeds is 0"}
    assert study.synthetic_stores()[0].rows()["request"].isin(["more", "evaluate"]).all()
    assert (folder / "reports/index.html").is_file()
