"""How easily two sets of tiles are told apart, by features that are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from histoloom.quality.realism import LEAST, Sample, fit_two_sample, told_apart


def drawn(seed: int, count: int, shift: float = 0.0, groups: int = 12, between: float = 0.0, axes: int = 20) -> Sample:
    """Features of unit variance about `shift` on the first axis; each group has a centre of its own, so far off."""
    rng = np.random.default_rng(seed)
    of = np.arange(count) % groups
    features = rng.normal(size=(count, axes)) + between * rng.normal(size=(groups, axes))[of]
    features[:, 0] += shift
    return Sample(
        features, np.array([f"{seed}-{n}" for n in range(count)]), np.array([f"{seed}-group-{g}" for g in of])
    )


def test_what_is_alike_is_told_apart_by_chance_alone():
    found = told_apart(drawn(0, 400), drawn(1, 400), 0)
    assert found["interval"][0] < 0.5 < found["interval"][1] and abs(found["auc"] - 0.5) < 0.06
    assert found["over"] == "split groups" and found["n"] == {"real": 400, "other": 400}


@pytest.mark.parametrize("shift, auc", [(1.0, 0.76), (2.0, 0.92), (4.0, 0.998)])
def test_the_auc_is_that_of_the_best_rule(shift, auc):
    """Of normal distributions so far apart it is Phi(shift / sqrt(2))."""
    found = told_apart(drawn(0, 1000, shift), drawn(1, 1000), 0)
    assert found["auc"] == pytest.approx(auc, abs=0.03) and found["interval"][0] < auc + 0.02


def test_patients_that_a_classifier_knows_do_not_count():
    """Real tiles lie about their patients' centres, which say nothing of patients that weren't seen."""
    real, other = drawn(0, 400, groups=20, between=3.0), drawn(1, 400, groups=400, between=3.0)
    by_tile = told_apart(real._replace(groups=real.ids), other, 0)
    by_group = told_apart(real, other, 0)
    assert by_group["auc"] < by_tile["auc"] - 0.1


def test_the_log_ratio_is_that_of_the_densities():
    """Of two normal distributions it is linear: shift * x - shift^2 / 2; sets of unequal size change nothing."""
    real, other = drawn(0, 3000, 1.0, axes=4), drawn(1, 1000, 0.0, axes=4)
    for tiles in (real, other):
        found = fit_two_sample(real, other).log_ratios(tiles)
        assert np.abs(found - (tiles.features[:, 0] - 0.5)).mean() < 0.15


def test_too_few_tiles_tell_nothing():
    assert told_apart(drawn(0, LEAST - 1), drawn(1, 400), 0) == {"n": {"real": LEAST - 1, "other": 400}}


def test_a_tile_is_judged_by_a_classifier_that_it_did_not_teach():
    """What one tile is doesn't move its own ratio, but those of others."""
    real, other = drawn(0, 60), drawn(1, 60)
    changed = other._replace(features=other.features.copy())
    changed.features[7] += 5
    before, after = fit_two_sample(real, other), fit_two_sample(real, changed)
    fold = before.folds_of(other)[7]
    alike = before.weights[:, fold] / np.linalg.norm(before.weights[:, fold])  # up to the scale, which all tiles set
    assert np.allclose(alike, after.weights[:, fold] / np.linalg.norm(after.weights[:, fold]))
    assert not np.allclose(before.weights[:, fold - 1], after.weights[:, fold - 1])


def test_one_group_s_tiles_are_dealt_out_one_by_one():
    real = drawn(0, 200, 2.0, groups=1)
    found = told_apart(real, drawn(1, 200), 0)
    assert found["over"].startswith("tiles") and found["auc"] > 0.85
    assert len(set(fit_two_sample(real, drawn(1, 200)).folds_of(real))) == 5


def test_tiles_made_under_a_real_tile_s_conditions_lie_in_its_fold():
    real, other = drawn(0, 100, groups=10), drawn(1, 100, groups=10)
    twins = other._replace(groups=real.groups)
    found = fit_two_sample(real, twins)
    assert (found.folds_of(real) == found.folds_of(twins)).all()
