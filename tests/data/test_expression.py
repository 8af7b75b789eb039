"""Expression tables: read alike in every form, every fault named."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histoloom.config import Rna
from histoloom.data.expression import check_expression, read_expression
from histoloom.errors import ManifestFaults, faults_among, notes_among

COUNTS = pd.DataFrame(
    [[5, 0, 2], [1, 1, 8]], index=pd.Index(["p1", "p2"], name="patient_id"), columns=["ERBB2", "TP53", "ESR1"]
)


def _rna(path, **options) -> Rna:
    return Rna(table=str(path), **options)


def _one_fault(path, **options):
    (fault,) = faults_among(check_expression(_rna(path, **options))[1])
    assert fault.remedy
    return fault


def _h5ad(path, x, **parts):
    counts = COUNTS.to_numpy(np.float32)
    obs, var = pd.DataFrame(index=COUNTS.index.rename(None)), pd.DataFrame(index=COUNTS.columns)
    x = {"counts": counts, "logs": np.log1p(counts), "sparse": sparse.csr_matrix(counts), None: None}[x]
    anndata.AnnData(x, obs=obs, var=var, **parts).write_h5ad(path)
    return path


FORMS = [
    "samples in rows",
    "genes in rows",
    "key as a column",
    "csv",
    "csv, genes in rows",
    "h5ad",
    "h5ad, key in obs",
    "h5ad, sparse",
]


@pytest.mark.parametrize("form", FORMS)
def test_expression_reads_alike_in_every_form(tmp_path, form):
    path = tmp_path / ("e." + ("h5ad" if "h5ad" in form else "csv" if "csv" in form else "parquet"))
    if form == "samples in rows":
        COUNTS.to_parquet(path)
    elif form == "genes in rows":
        COUNTS.T.rename_axis("gene").to_parquet(path)
    elif form == "key as a column":
        COUNTS.reset_index().to_parquet(path)
    elif form == "csv":
        COUNTS.rename(index={"p1": " p1 "}).to_csv(path)
    elif form == "csv, genes in rows":
        COUNTS.T.rename_axis("Hugo_Symbol").to_csv(path, sep=";")
    elif form == "h5ad, key in obs":
        obs = pd.DataFrame({"patient_id": pd.Categorical(COUNTS.index)}, index=["a", "b"])
        anndata.AnnData(COUNTS.to_numpy(np.float32), obs=obs, var=pd.DataFrame(index=COUNTS.columns)).write_h5ad(path)
    else:
        _h5ad(path, "sparse" if "sparse" in form else "counts")
    found = read_expression(_rna(path))
    assert found.index.tolist() == ["p1", "p2"] and found.columns.tolist() == COUNTS.columns.tolist()
    assert (found.to_numpy() == COUNTS.to_numpy()).all() and found.to_numpy().dtype == np.float32


def test_an_h5ad_may_be_named_in_capitals(tmp_path):
    assert read_expression(_rna(_h5ad(tmp_path / "E.H5AD", "counts"))).index.tolist() == ["p1", "p2"]


def test_an_h5ad_of_logarithms_gives_its_counts_once_the_layer_is_named(tmp_path):
    path = _h5ad(tmp_path / "e.h5ad", "logs", layers={"counts": COUNTS.to_numpy(np.float32)}, uns={"log1p": {}})
    fault = _one_fault(path)
    assert "uns['log1p']" in fault.problem and "layer: counts" in fault.remedy and "transform: none" in fault.remedy
    assert (read_expression(_rna(path, layer="counts")).to_numpy() == COUNTS.to_numpy()).all()
    logs = read_expression(_rna(path, transform="none")).to_numpy()
    assert np.allclose(logs, np.log1p(COUNTS.to_numpy()))


def test_logarithms_without_a_word_in_the_file_are_asked_about(tmp_path):
    assert "logarithms" in _one_fault(_h5ad(tmp_path / "e.h5ad", "logs")).problem
    np.log1p(COUNTS).to_parquet(tmp_path / "e.parquet")
    assert "values: linear" in _one_fault(tmp_path / "e.parquet").remedy
    np.log1p(COUNTS).to_csv(tmp_path / "e.csv")
    assert "transform: none" in _one_fault(tmp_path / "e.csv").remedy
    assert read_expression(_rna(tmp_path / "e.csv", values="linear")).shape == (2, 3)


def test_an_h5ad_without_x_names_its_layers_and_raw_is_one(tmp_path):
    path = _h5ad(tmp_path / "e.h5ad", None, layers={"counts": COUNTS.to_numpy(np.float32)})
    fault = _one_fault(path)
    assert "no X" in fault.problem and "'counts'" in fault.problem and "layer" in fault.remedy
    data = anndata.read_h5ad(_h5ad(tmp_path / "r.h5ad", "counts"))
    data.raw = data
    data = data[:, ["ERBB2", "TP53"]].copy()
    data.X = np.log1p(data.X)
    data.write_h5ad(tmp_path / "r.h5ad")
    assert "layer: raw" in _one_fault(tmp_path / "r.h5ad").remedy
    assert read_expression(_rna(tmp_path / "r.h5ad", layer="raw")).columns.tolist() == COUNTS.columns.tolist()
    assert "no layer 'none'" in _one_fault(tmp_path / "r.h5ad", layer="none").problem


def test_every_fault_of_an_expression_table_is_named(tmp_path):
    path = tmp_path / "e.parquet"
    rows = pd.DataFrame(
        [["ERBB2", 1.0, 2.0, 1.0], ["TP53", np.nan, 0.0, 1.0], ["ERBB2", 0.0, -1.0, 1.0]],
        columns=["gene", "p1", "p2", "p3"],
    )
    rows.to_parquet(path)
    with pytest.raises(ManifestFaults) as raised:
        read_expression(_rna(path))
    text = str(raised.value)
    assert "1 gene(s) stand there several times: 'ERBB2'" in text
    assert "1 sample(s) have no number for some genes: 'p1'" in text and "'TP53'" in text
    assert "negative values" in text and "transform: none" in text
    assert len(raised.value.faults) == 3


def test_many_repeated_genes_are_one_fault(tmp_path):
    names = [f"G{n // 2}" for n in range(40)]
    pd.DataFrame(np.ones((2, 40)), index=COUNTS.index, columns=names).T.rename_axis("gene").reset_index().to_parquet(
        tmp_path / "e.parquet"
    )
    fault = _one_fault(tmp_path / "e.parquet")
    assert "20 gene(s)" in fault.problem and "and 15 more" in fault.problem


def test_a_sample_that_stands_twice_is_a_fault(tmp_path):
    COUNTS.set_axis(pd.Index(["p1", "p1 "], name="patient_id")).to_parquet(tmp_path / "e.parquet")
    fault = _one_fault(tmp_path / "e.parquet")
    assert "'p1'; the first 2" in fault.problem and fault.column == "patient_id"


def test_what_is_no_expression_is_named(tmp_path):
    path = tmp_path / "e.csv"
    COUNTS.assign(age=[60, 70]).to_csv(path)
    assert "'age' stands among the genes" in _one_fault(path).problem
    COUNTS.T.rename_axis("gene").assign(Entrez_Gene_Id=[2064, 7157, 2099]).to_csv(path)
    assert "'Entrez_Gene_Id' stands among the samples" in _one_fault(path).problem
    COUNTS.assign(site=["a", "b"]).to_csv(path)
    fault = _one_fault(path)
    assert "'site'" in str(fault) and "no number" in fault.problem
    COUNTS.assign(site=["a", "b"]).to_parquet(tmp_path / "e.parquet")
    assert "'site'" in _one_fault(tmp_path / "e.parquet").problem
    path.write_text('patient_id,A\np1,"0,5"\np2,3\n')
    assert "'0,5'" in faults_among(check_expression(_rna(path))[1])[0].problem


def test_a_long_table_and_a_table_without_key_say_what_to_do(tmp_path):
    long = COUNTS.reset_index().melt("patient_id", var_name="gene")
    long.to_parquet(tmp_path / "e.parquet")
    assert "pivot" in _one_fault(tmp_path / "e.parquet").remedy
    COUNTS.rename_axis("Patient_ID").to_csv(tmp_path / "e.csv")
    assert "rename 'Patient_ID'" in _one_fault(tmp_path / "e.csv").remedy
    COUNTS.to_parquet(tmp_path / "e.parquet")
    assert "only an h5ad has layers" in _one_fault(tmp_path / "e.parquet", layer="counts").problem


def test_genes_written_in_two_ways_are_said(tmp_path):
    COUNTS.set_axis(["TP53", "tp53", "ESR1"], axis=1).to_csv(tmp_path / "e.csv")
    (note,) = notes_among(check_expression(_rna(tmp_path / "e.csv"))[1])
    assert "1 gene(s)" in note.fact and "'tp53' and 'TP53'" in note.fact


def test_genes_that_a_spreadsheet_made_dates_are_said(tmp_path):
    COUNTS.set_axis(["2-Sep", "Mar-01", "TP53"], axis=1).to_csv(tmp_path / "e.csv")
    (note,) = notes_among(check_expression(_rna(tmp_path / "e.csv"))[1])
    assert "2 gene(s): '2-Sep', 'Mar-01'" in note.fact


@pytest.mark.parametrize(
    "name, contents", [("e.parquet", None), ("e.parquet", b"no table"), ("e.h5ad", b"no table"), ("e.csv", b"")]
)
def test_a_file_that_is_no_expression_table_says_what_would_be(tmp_path, name, contents):
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    assert _one_fault(tmp_path / name).where == str(tmp_path / name)
