"""The expression encoder finds what varies, and says what of a table it can't use."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from histoloom.conditions.expression_encoder import load_expression_encoder
from histoloom.config import Rna
from histoloom.errors import HistoloomError
from histoloom.training.expression_encoder import explained_variance, train_expression
from histoloom.training.run import TrainingRun

GENES = [f"G{n}" for n in range(40)]


def profiles(count: int, seed: int = 0) -> pd.DataFrame:
    """Counts in which two programmes of twenty genes vary."""
    rng = np.random.default_rng(seed)
    amounts = rng.normal(size=(count, 2))
    rates = np.exp(3 + np.repeat(amounts, 20, axis=1))
    return pd.DataFrame(rng.poisson(rates), index=[f"s{n}" for n in range(count)], columns=GENES).astype(np.float32)


def fit(tmp_path, table: pd.DataFrame, **options):
    config = Rna(table="e.parquet", hidden=(32,), code=4, steps=300, learning_rate=3e-3, **options)
    run = TrainingRun("rna", config.steps, config.learning_rate, 0, tmp_path / "checkpoints", 100)
    return train_expression(config, table, run), run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("rna"), profiles(200))


def test_codes_give_back_what_varies_also_in_samples_that_were_not_seen(fitted):
    encoder, run = fitted
    assert explained_variance(encoder, profiles(100, seed=1)) > 0.6
    assert {"reconstruction", "kl"} <= set(run.history[-1][1])
    codes = encoder.codes(profiles(200)).to_numpy()
    used = codes.std(0) > 0.5
    assert used.sum() >= 2 and np.allclose(codes[:, used].std(0), 1, atol=1e-3)


def test_depth_of_sequencing_does_not_change_a_code(fitted):
    deeper = fitted[0].codes(profiles(5) * 50)
    np.testing.assert_allclose(deeper, fitted[0].codes(profiles(5)), atol=1e-4)


def test_missing_genes_are_filled_and_counted_and_unknown_ones_are_counted(fitted):
    table = profiles(5).drop(columns=GENES[:3]).assign(NEW=1.0)
    encoder = fitted[0]
    assert encoder.fit_of(table) == {"genes": 40, "genes_missing": 3, "genes_unknown": 1}
    assert np.isfinite(encoder.codes(table).to_numpy()).all()
    assert (encoder.standardised(table)[:, [encoder.genes.index(g) for g in GENES[:3]]] == 0).all()


def test_an_encoder_is_loaded_as_it_was_saved(fitted, tmp_path):
    fitted[0].save(tmp_path)
    pd.testing.assert_frame_equal(load_expression_encoder(tmp_path).codes(profiles(7)), fitted[0].codes(profiles(7)))


def test_the_most_variable_genes_are_kept(tmp_path):
    table = profiles(50)
    table[GENES[20:]] = 20
    encoder, _ = fit(tmp_path, table, max_genes=5, transform="none")
    assert len(encoder.genes) == 5 and set(encoder.genes) <= set(GENES[:20])


@pytest.mark.parametrize("table", [profiles(1), profiles(5) * 0, profiles(0)])
def test_what_cannot_be_learnt_from_says_why(tmp_path, table):
    with pytest.raises(HistoloomError, match="needs two samples of the train split that differ"):
        fit(tmp_path, table)


def test_a_folder_without_an_encoder_says_what_to_name(tmp_path):
    with pytest.raises(HistoloomError, match=r"rna\.init.*holds no expression encoder"):
        load_expression_encoder(tmp_path / "none")
