"""From any manifest to the tiles that leave: nothing of them comes from a group of val or test."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pandas as pd
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from histoloom.config import Params
from histoloom.data.groups import split_groups
from histoloom.data.lineage import Lineage
from histoloom.data.lineage_match import grid_of
from histoloom.data.manifest import read_manifest
from histoloom.data.plan import make_plan
from histoloom.data.tables import with_conditions
from histoloom.emit.leak_gate import check_ancestors
from histoloom.errors import HistoloomError
from histoloom.studies.sample import rows_of
from histoloom.studies.tile import study_splits
from tests.build import tile_rows

CLASSES = ("tumour", "stroma")
splits = st.sampled_from(["", "train", "val", "test"])


@st.composite
def manifests(draw) -> tuple[pd.DataFrame, str]:
    """slides.csv with any patients, splits and labels, well stated or not; and what it is split by."""
    group = draw(st.sampled_from(["patient", "slide", "region"]))
    patients = draw(st.integers(2, 4)) if group == "patient" else draw(st.sampled_from([1, 1, 1, 2]))
    by_patient = draw(st.lists(splits, min_size=patients, max_size=patients))
    rows = []
    for number in range(draw(st.integers(2, 7))):
        patient = draw(st.integers(0, patients - 1))
        of_slide = draw(splits) if draw(st.integers(0, 9)) == 0 or group == "slide" else by_patient[patient]
        row = {"slide_id": f"s{number}", "path": f"s{number}.svs", "patient_id": f"p{patient}", "split": of_slide}
        rows.append(row | {"label": draw(st.sampled_from(CLASSES))})
    return pd.DataFrame(rows), group


def tiles_of(manifest, params: Params, seed: int) -> pd.DataFrame:
    """The rows that `tile` writes of these slides, three of each group, and the split of each."""
    config = params.tile
    of_group, parts = study_splits(manifest, config, seed), []
    for entry in manifest.slides:
        for group in split_groups(entry, config):
            part = tile_rows(3, split_group=group, split=of_group[group], label=entry.label, slide_id=entry.slide_id)
            names = [f"{entry.slide_id}_{group}_{n}" for n in range(3)]
            parts.append(part.assign(tile_id=names, patient_id=entry.patient_id))
    return pd.concat(parts, ignore_index=True)


@given(manifests(), st.integers(0, 99), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_whatever_manifest_no_held_out_group_reaches_an_emitted_tile(stated, seed, evaluation):
    table, group = stated
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("data/slides").mkdir(parents=True)
            Path("manifests").mkdir()
            for name in table["path"]:
                Path("data/slides", name).touch()
            table.to_csv("manifests/slides.csv", index=False)
            tile = {"mpp": 1.0, "labels": {"source": "slide", "classes": CLASSES}, "split": {"group": group}}
            plan = {"target": 60, "evaluation_tiles": evaluation, "batch_size": 4}
            params = Params.model_validate({"seed": seed, "tile": tile, "plan": plan})
            try:
                real = tiles_of(read_manifest(params.tile), params, seed)
                synthetic = make_plan(with_conditions(real, params), params, lambda _: None)
            except HistoloomError as error:
                event(f"refused: {str(error)[:90]}")
                return
            synthetic = rows_of(synthetic, params, "g", "cpu", masked=False)
        finally:
            os.chdir(before)
    emitted, train = synthetic[synthetic["purpose"] == "augment"], real[real["split"] == "train"]
    assume(len(emitted))
    event(f"emitted, split by {group}")
    grid = grid_of(params.tile.split)
    assert (
        check_ancestors(emitted, {"g": Lineage.trained_on(train, grid).record}, real, allow_unknown=False, grid=grid)
        == []
    )
    sources = set(emitted["ancestors"].explode())
    assert set(real.loc[real["split_group"].isin(sources), "split"]) == {"train"}
    if group != "region":
        named = table.set_index("slide_id").loc[sorted(set(real.loc[real["split_group"].isin(sources), "slide_id"]))]
        assert set(named["split"]) <= {"", "train"}, "what the manifest holds out stays out"
