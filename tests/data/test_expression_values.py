"""Counts, amounts, logarithms and scores are told apart, and no logarithm is taken twice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.config import Rna
from histoloom.data.expression_values import check_values, kind_of, normalised
from histoloom.errors import faults_among, notes_among

COUNTS = np.random.default_rng(0).negative_binomial(2, 0.02, (20, 60)).astype(np.float32)
TPM = COUNTS / COUNTS.sum(1, keepdims=True) * 1e6
LOGS = np.log1p(COUNTS / COUNTS.sum(1, keepdims=True) * 1e4)
SCORES = (LOGS - LOGS.mean(0)) / LOGS.std(0)
CONFIG = Rna(table="e.parquet")


def _check(array, **options):
    config = Rna(table="e.parquet", **{k: v for k, v in options.items() if k in Rna.model_fields})
    return check_values(pd.DataFrame(array), config, **{k: v for k, v in options.items() if k not in Rna.model_fields})


@pytest.mark.parametrize(
    "values, kind",
    [(COUNTS, "counts"), (np.minimum(COUNTS, 3), "counts"), (TPM, "amounts"), (LOGS, "logarithms"), (np.log2(TPM + 1), "logarithms"),
     (SCORES, "scores"), (np.log2(TPM / 1e6 + 0.001), "scores")],
)  # fmt: skip
def test_values_are_told_apart(values, kind):
    assert kind_of(values) == kind


@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(2, 30))
def test_the_logarithm_of_counts_is_never_taken_for_counts(seed, samples, genes):
    counts = pd.DataFrame(np.random.default_rng(seed).poisson(20, (samples, genes)) + 1.0)
    assert kind_of(counts.to_numpy()) == "counts"
    assert kind_of(normalised(counts, "log_counts").to_numpy()) == "logarithms"


@pytest.mark.parametrize("values", [LOGS, SCORES, np.log2(TPM + 1)])
def test_logarithms_are_a_fault_under_log_counts_and_none_under_none(values):
    (fault,) = _check(values)
    assert fault in faults_among([fault]) and "transform: none" in fault.remedy
    assert _check(values, transform="none") == []


def test_the_layer_of_counts_is_named():
    (fault,) = _check(LOGS, source="X", others={"scaled": "scores", "counts": "counts"}, logged=True)
    assert "uns['log1p']" in fault.problem and "layer: counts" in fault.remedy


def test_what_the_file_calls_logarithms_is_so_also_where_it_is_large_and_counts_stay_counts():
    (fault,) = _check(TPM, logged=True)
    assert "as the file says" in fault.problem
    assert _check(COUNTS, logged=True) == []


def test_who_states_linear_is_believed_and_told():
    (note,) = _check(LOGS, values="linear")
    assert note in notes_among([note])
    assert _check(TPM) == [] and _check(COUNTS) == []
    (fault,) = _check(SCORES, values="linear")
    assert "negative" in fault.problem


def test_counts_that_are_compared_as_they_are_are_said():
    (note,) = _check(COUNTS, transform="none")
    assert note in notes_among([note]) and "depth" in note.fact
    with pytest.raises(ValueError, match="logarithms twice"):
        Rna(values="log")


def test_samples_without_counts_are_counted():
    counts = COUNTS.copy()
    counts[3] = 0
    (note,) = _check(counts)
    assert "1 sample(s)" in note.fact and "'3'" in note.fact


def test_counts_are_compared_at_one_depth_whatever_their_unit():
    table = pd.DataFrame(COUNTS)
    for factor in (7, 1e-6):
        pd.testing.assert_frame_equal(
            normalised(table * factor, "log_counts"), normalised(table, "log_counts"), rtol=1e-4
        )
    assert normalised(table, "none") is table
    assert (normalised(table * 0, "log_counts") == 0).all(None)
