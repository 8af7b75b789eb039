"""What validate knows of tables: keys against the study's ids, and what requests name."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from histoloom.config import Params, Rna
from histoloom.data.keys import StudyKeys
from histoloom.data.tables import check_fit, check_tables, with_conditions
from histoloom.errors import faults_among, notes_among

STUDY = StudyKeys(frozenset({"P1", "P2", "P3"}), frozenset({"P1", "P2", "P3", "P4"}))
TILE = {"mpp": 0.5, "tile_px": 64, "stride_px": 64, "labels": {"classes": ["t"]}}


def _params(tmp_path, condition: str, table: str, **parts) -> Params:
    (tmp_path / "t.csv").write_text(table)
    encoders = {condition: {"table": str(tmp_path / "t.csv")} | parts.pop("encoder", {})}
    return Params.model_validate(
        {"tile": TILE, "train_encoders": encoders, "train_denoiser": {"conditions": [condition]}, **parts}
    )


def _found(params: Params):
    return check_tables(params, lambda key: STUDY)


GENOTYPES = "patient_id,TP53\nP1,R175H\nP2,WT\nP3,WT\nP4,WT\n"


def test_a_table_that_matches_has_no_faults_and_gives_tiles_their_genotype(tmp_path):
    params = _params(tmp_path, "genotype", GENOTYPES.replace("P1,", "P1 ,"))
    assert _found(params) == []
    rows = with_conditions(pd.DataFrame({"patient_id": ["P1", "P3", "P9"]}), params)
    assert rows["genotype"].tolist()[:2] == ["TP53=altered", "TP53=wt"] and pd.isna(rows["genotype"][2])


@pytest.mark.parametrize("condition, table", [("genotype", "patient_id,TP53\n{}"), ("rna", "patient_id,A,B\n{}")])
def test_keys_are_matched_with_the_study_in_every_table(tmp_path, condition, table):
    values = {"genotype": ",WT", "rna": ",3,4"}[condition]
    barcodes = table.format("".join(f"P{n}-01A{values}\n" for n in (1, 2, 3)))
    (fault,) = faults_among(_found(_params(tmp_path, condition, barcodes)))
    pattern = "^([^-]+)"
    assert f"train_encoders.{condition}.key_pattern: '{pattern}'" in fault.remedy
    stated = _params(tmp_path, condition, barcodes, encoder={"key_pattern": pattern})
    (note,) = _found(stated)
    assert note in notes_among([note]) and "3 of the train split's 3" in note.fact and "0 of 1 others" in note.fact


def test_samples_in_columns_are_told_from_keys_that_are_wrong(tmp_path):
    (fault,) = faults_among(_found(_params(tmp_path, "rna", "patient_id,P1,P2,P3\nA,1,2,3\nB,3,4,5\n")))
    assert "its columns are the study's ids" in fault.problem and "'gene'" in fault.remedy


def _request(**parts) -> dict:
    return {"plan": {"requests": [{"name": "r", "tiles": 1, **parts}]}}


@pytest.mark.parametrize(
    "parts, problem",
    [
        ({"where": {"genotype": {"TP53": "gain"}}}, "'TP53=gain'"),
        ({"change": {"genotype": {"KRAS": "altered"}}}, "'KRAS=altered'"),
        ({"where": {"genotype": {"TP53": "altered"}}, "change": {"genotype": {"TP53": "not_tested"}}}, None),
    ],
)
def test_states_that_requests_name_are_the_tables(tmp_path, parts, problem):
    found = _found(_params(tmp_path, "genotype", GENOTYPES, **_request(**parts)))
    assert [problem in fault.problem for fault in found] == ([] if problem is None else [True])


@pytest.mark.parametrize(
    "parts, problem",
    [
        ({"where": {"gene": {"ERBB2": "high"}}}, "no gene 'ERBB2'"),
        ({"change": {"rna": "P7"}}, "no profile 'P7'"),
        ({"where": {"gene": {"A": "high"}}, "change": {"rna": "P2"}}, None),
    ],
)
def test_genes_and_profiles_that_requests_name_are_the_tables(tmp_path, parts, problem):
    table = "patient_id,A,B\n" + "".join(f"P{n},{n},4\n" for n in (1, 2, 3, 4))
    found = _found(_params(tmp_path, "rna", table, **_request(**parts)))
    assert [problem in fault.problem for fault in found] == ([] if problem is None else [True])


def test_an_encoder_that_is_loaded_fits_its_table(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"genes": ["A", "B"], "transform": "log_counts"}))
    table = pd.DataFrame(np.ones((1, 2)), columns=["A", "B"])
    config = Rna(table="e.csv", init="small")
    assert check_fit(config, table, tmp_path) == []
    (fault,) = check_fit(Rna(table="e.csv", init="small", transform="none"), table, tmp_path)
    assert "log_counts" in fault.problem and fault.column == "train_encoders.rna.transform"
    (fault,) = faults_among(check_fit(config, table.set_axis(["ENSG1", "ENSG2"], axis=1), tmp_path))
    assert "none of the genes" in fault.problem and "'ENSG1'" in fault.problem
    (note,) = check_fit(config, table.set_axis(["A", "C"], axis=1), tmp_path)
    assert "lacks 1 of the encoder's 2" in note.fact
