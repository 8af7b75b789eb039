"""Expression and genotype tables: read in either direction, every fault named."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from pipeline.config import Genotype, Rna
from pipeline.data.tables import check_expression, check_genotype, normalised, read_expression, read_genotype
from pipeline.errors import ManifestFaults

COUNTS = pd.DataFrame(
    [[5, 0, 2], [1, 1, 8]], index=pd.Index(["p1", "p2"], name="patient_id"), columns=["ERBB2", "TP53", "ESR1"]
)


def _rna(path, **options) -> Rna:
    return Rna(table=str(path), **options)


@pytest.mark.parametrize("form", ["samples in rows", "genes in rows", "key as a column", "h5ad", "h5ad, key in obs"])
def test_expression_reads_alike_in_every_form(tmp_path, form):
    path = tmp_path / ("e.h5ad" if "h5ad" in form else "e.parquet")
    if form == "samples in rows":
        COUNTS.to_parquet(path)
    elif form == "genes in rows":
        COUNTS.T.rename_axis("gene").to_parquet(path)
    elif form == "key as a column":
        COUNTS.reset_index().to_parquet(path)
    else:
        obs = pd.DataFrame(index=COUNTS.index if form == "h5ad" else ["a", "b"])
        if form != "h5ad":
            obs["patient_id"] = COUNTS.index.to_numpy()
        var = pd.DataFrame(index=COUNTS.columns)
        anndata.AnnData(COUNTS.to_numpy(np.float32), obs=obs, var=var).write_h5ad(path)
    found = read_expression(_rna(path))
    assert found.index.tolist() == ["p1", "p2"] and found.columns.tolist() == COUNTS.columns.tolist()
    assert (found.to_numpy() == COUNTS.to_numpy()).all()


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
    assert "gene 'ERBB2' stands there 2 times" in text
    assert "sample 'p1' has no number for 1 gene(s)" in text and "'TP53'" in text
    assert "negative values" in text and "transform: none" in text
    assert len(raised.value.faults) == 3


def test_a_sample_that_stands_twice_is_a_fault(tmp_path):
    COUNTS.set_axis(pd.Index(["p1", "p1"], name="patient_id")).to_parquet(tmp_path / "e.parquet")
    (fault,) = check_expression(_rna(tmp_path / "e.parquet"))[1]
    assert "sample 'p1' stands there 2 times" in fault.problem and fault.column == "patient_id"


@pytest.mark.parametrize(
    "contents, problem", [(None, "missing"), (b"not a table", "can't be read"), ("no key", "no column 'patient_id'")]
)
def test_a_file_that_is_no_expression_table_says_what_would_be(tmp_path, contents, problem):
    path = tmp_path / "e.parquet"
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    elif contents:
        COUNTS.reset_index(drop=True).to_parquet(path)
    (fault,) = check_expression(_rna(path))[1]
    assert problem in fault.problem and fault.remedy


def test_counts_are_compared_at_one_depth():
    scaled = normalised(COUNTS * 7, "log_counts")
    pd.testing.assert_frame_equal(scaled, normalised(COUNTS, "log_counts"))
    assert normalised(COUNTS, "none") is COUNTS


def _genotype(tmp_path, text: str, **options) -> Genotype:
    (tmp_path / "g.csv").write_text(text, encoding="utf-8")
    return Genotype(table=str(tmp_path / "g.csv"), **options)


def test_a_genotype_table_as_laboratories_write_it(tmp_path):
    text = "patient_id,TP53,ERBB2,KRAS\np1,R175H P77Gfs*65,AMP,WT\np2,W91*,-2,NS\np3,T125=,0,\np4,E746_A750del,WT,MUT\n"
    found = read_genotype(_genotype(tmp_path, text))
    assert found.to_dict() == {
        "p1": "TP53=altered;ERBB2=gain;KRAS=wt",
        "p2": "TP53=altered;ERBB2=loss",
        "p3": "TP53=wt;ERBB2=wt",
        "p4": "TP53=altered;ERBB2=wt;KRAS=altered",
    }
    assert read_genotype(_genotype(tmp_path, text, columns=("KRAS",))).to_dict()["p1"] == "KRAS=wt"


def test_every_fault_of_a_genotype_table_has_its_row_and_remedy(tmp_path):
    faults = check_genotype(_genotype(tmp_path, "patient_id,TP53\np1,maybe\np1,WT\np2,?\n"))[1]
    assert [(f.row, f.column) for f in faults] == [(3, "patient_id"), (2, "TP53"), (4, "TP53")]
    assert all(f.remedy for f in faults) and "'maybe'" in faults[1].problem
    (fault,) = check_genotype(_genotype(tmp_path, "patient_id,TP53\np1,WT\n", columns=("IDH1",)))[1]
    assert fault.column == "IDH1"
