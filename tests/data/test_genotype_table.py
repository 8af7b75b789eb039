"""Genotype tables as people have them: read rightly, or one clear fault each."""

from __future__ import annotations

import pytest

from histoloom.config import Genotype
from histoloom.data.genotype_table import check_genotype, read_genotype
from histoloom.errors import ManifestFaults, faults_among, notes_among


def _genotype(tmp_path, text: str, **options) -> Genotype:
    (tmp_path / "g.csv").write_text(text, encoding="utf-8")
    return Genotype(table=str(tmp_path / "g.csv"), **options)


def _one_fault(tmp_path, text: str, **options):
    (fault,) = faults_among(check_genotype(_genotype(tmp_path, text, **options))[1])
    assert fault.remedy
    return fault


def test_a_genotype_table_as_laboratories_write_it(tmp_path):
    text = "patient_id,TP53,ERBB2,KRAS\np1,R175H P77Gfs*65,AMP,WT\np2,W91*,-2,NS\np3,T125=,0,\np4,E746_A750del,WT,MUT\n"
    found = read_genotype(_genotype(tmp_path, text))
    assert found.to_dict() == {
        "p1": "TP53=altered;ERBB2=amplification;KRAS=wt",
        "p2": "TP53=altered;ERBB2=deep_deletion",
        "p3": "TP53=wt;ERBB2=wt",
        "p4": "TP53=altered;ERBB2=wt;KRAS=altered",
    }
    assert read_genotype(_genotype(tmp_path, text, columns=("KRAS",))).to_dict()["p1"] == "KRAS=wt"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpatient_id , TP53\n p1 ,R175H\np2, WT \n",
        "patient_id,TP53,\np1,R175H,\np2,WT,\n,,\n\n",
        "patient_id;TP53\np1;R175H\np2;WT\n",
        "patient_id\tTP53\r\np1\tR175H\r\np2\tWT\r\n",
    ],
)
def test_blanks_trailing_separators_and_empty_rows_change_nothing(tmp_path, text):
    assert read_genotype(_genotype(tmp_path, text)).to_dict() == {"p1": "TP53=altered", "p2": "TP53=wt"}


def test_gistic_levels_and_what_they_were_taken_for(tmp_path):
    text = "patient_id,ERBB2,CDKN2A,TP53\np1,2,-2,R175H\np2,1,0,WT\np3,0,-1,WT\np4,-1,1,\n"
    genotypes, found = check_genotype(_genotype(tmp_path, text))
    assert genotypes.to_dict() == {
        "p1": "ERBB2=amplification;CDKN2A=deep_deletion;TP53=altered",
        "p2": "ERBB2=gain;CDKN2A=wt;TP53=wt",
        "p3": "ERBB2=wt;CDKN2A=loss;TP53=wt",
        "p4": "ERBB2=loss;CDKN2A=gain",
    }
    (note,) = found
    assert note in notes_among(found) and "'ERBB2', 'CDKN2A'" in note.fact and "numbers: gistic" in note.fact


def test_numbers_that_may_be_either_are_asked_for(tmp_path):
    text = "patient_id,ERBB2,KRAS\np1,-2,1\np2,0,0\n"
    fault = _one_fault(tmp_path, text)
    assert "'KRAS'" in fault.problem and "'ERBB2'" not in fault.problem and "numbers" in fault.remedy
    found = read_genotype(_genotype(tmp_path, text, numbers={"KRAS": "mutation"}))
    assert found["p1"] == "ERBB2=deep_deletion;KRAS=altered"


@pytest.mark.parametrize(
    "column, values",
    [("pT", ["T1", "T2"]), ("grade", ["G1", "G3"]), ("tumour", ["T1A", "M1A"]), ("age", ["1", "0"]), ("years_old", ["63", "58"]),
     ("sex", ["M", "F"]), ("stage", ["2", "1"]), ("AJCC", ["IIIA", "IV"])],
)  # fmt: skip
def test_clinical_columns_are_no_markers(tmp_path, column, values):
    text = f"patient_id,TP53,{column}\np1,R175H,{values[0]}\np2,WT,{values[1]}\n"
    fault = _one_fault(tmp_path, text)
    assert f"'{column}'" in fault.problem and "train_encoders.genotype.columns ('TP53')" in fault.remedy
    assert read_genotype(_genotype(tmp_path, text, columns=("TP53",)))["p1"] == "TP53=altered"


def test_values_that_mean_nothing_are_one_fault_a_column_with_the_first_row(tmp_path):
    fault = _one_fault(tmp_path, "patient_id,TP53\np1,WT\np2,maybe\n\np3,?\np4,maybe\n")
    assert (fault.row, fault.column) == (3, "TP53") and "'maybe', '?'" in fault.problem and "3 row(s)" in fault.problem
    fault = _one_fault(tmp_path, "patient_id,TP53\np1,WT\np2,3\n")
    assert "'3'" in fault.problem and "numbers" in fault.remedy


def test_a_single_column_says_what_its_values_are_and_stages_are_not_read(tmp_path):
    assert _one_fault(tmp_path, "patient_id,TP53\np1,maybe\n").row == 2
    assert "no markers: 'X' holds 'T1A', 'M1A'" in _one_fault(tmp_path, "patient_id,X\np1,T1A\np2,M1A\n").problem


def test_a_patient_who_is_listed_twice_is_one_fault_with_both_rows(tmp_path):
    fault = _one_fault(tmp_path, "patient_id,TP53\np1,WT\np2,WT\np1,R175H\n")
    assert "'p1'" in fault.problem and "rows 2, 4" in fault.problem and fault.column == "patient_id"


@pytest.mark.parametrize(
    "header, problem",
    [
        ("patient_id,HLA=A;B", "holds '=' or ';'"),
        ("patient_id,TP53,TP53", "2 columns have this name"),
        ("patient_id,TP53,TP53.1", "a second 'TP53'"),
        ("Patient ID,TP53,KRAS", "the column is missing"),
        ("gene,TP53,KRAS", "it has genes in rows"),
        ("Gene Symbol,Locus ID,P1", "it has genes in rows"),
        ("patient_id,Hugo_Symbol,HGVSp_Short", "a row for a mutation (MAF)"),
        ("patient_id,gene,state", "a row for a gene"),
    ],
)
def test_headers_of_other_tables_are_one_fault(tmp_path, header, problem):
    row = ",".join(["p1", *["WT"] * header.count(",")])
    fault = _one_fault(tmp_path, f"{header}\n{row}\n")
    assert problem in fault.problem


def test_a_maf_with_comments_says_how_to_make_a_table_of_it(tmp_path):
    text = "#version 2.4\nHugo_Symbol\tTumor_Sample_Barcode\tVariant_Classification\nTP53\tTCGA-1\tMissense_Mutation\n"
    fault = _one_fault(tmp_path, text)
    assert "MAF" in fault.problem and "a row for each patient_id and a column a gene" in fault.remedy


def test_a_column_that_params_name_and_the_table_lacks_is_a_fault(tmp_path):
    assert _one_fault(tmp_path, "patient_id,TP53\np1,WT\n", columns=("IDH1",)).column == "IDH1"
    assert _one_fault(tmp_path, "patient_id,TP53\np1,WT\n", numbers={"IDH1": "gistic"}).column == "IDH1"
    assert "rename 'Patient ID'" in _one_fault(tmp_path, "Patient ID,TP53\np1,WT\n").remedy


def test_markers_that_nobody_was_tested_for_are_said_and_none_at_all_is_a_fault(tmp_path):
    (note,) = check_genotype(_genotype(tmp_path, "patient_id,TP53,KRAS\np1,WT,NA\n"))[1]
    assert "'KRAS'" in note.fact
    assert "no marker was tested" in _one_fault(tmp_path, "patient_id,TP53\np1,NA\n").problem


def test_a_marker_written_in_two_ways_is_one_fault(tmp_path):
    fault = _one_fault(tmp_path, "patient_id,TP53,tp53\np1,MUT,WT\np2,WT,WT\n")
    assert "'tp53' and 'TP53'" in fault.problem and fault.column == "tp53"


def test_genes_that_a_spreadsheet_made_dates_are_said(tmp_path):
    (note,) = check_genotype(_genotype(tmp_path, "patient_id,2-Sep,TP53\np1,MUT,WT\n"))[1]
    assert "'2-Sep'" in note.fact


def test_all_faults_of_a_table_come_at_once(tmp_path):
    with pytest.raises(ManifestFaults) as raised:
        read_genotype(_genotype(tmp_path, "patient_id,TP53,KRAS\np1,WT,?\np1,WT,WT\n,WT,WT\n"))
    assert len(raised.value.faults) == 3
