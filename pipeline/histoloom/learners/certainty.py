"""How sure a learner of masks is of a pixel: whether it is right as often, and what makes it so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

_BINS, _LEVELS = 10, 256


class Calibration(TypedDict):
    """error : share of pixels that are wrong. error_of_surest : of the nine tenths that are surest.
    calibration_error : mean gap between how sure pixels are and how many are right, over bins, weighted by their counts.
    """

    error: float
    error_of_surest: float
    calibration_error: float


def calibration_of(sure: np.ndarray, right: np.ndarray) -> Calibration:
    """Of pixels (n,): how sure each is, from 0 to 1, and whether it is right."""
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    gaps = np.bincount(place, sure, _BINS) - np.bincount(place, right, _BINS)
    _, of = np.unique(sure, return_inverse=True)  # pixels that are as sure as each other count alike
    total, wrong = np.bincount(of)[::-1], np.bincount(of, ~right)[::-1]
    wanted, before = 0.9 * len(sure), np.cumsum(total) - total
    taken = np.clip(wanted - before, 0, total)
    return {
        "error": float((~right).mean()),
        "error_of_surest": float((wrong / total * taken).sum() / wanted),
        "calibration_error": float(np.abs(gaps).sum() / counts.sum()),
    }


class Checked(TypedDict, total=False):
    """`error` and `error_of_surest` as of a calibration. calibration_error_as_said : of what was said; calibration_error : of what it was
    corrected to, where it was."""

    error: float
    error_of_surest: float
    calibration_error_as_said: float
    calibration_error: float


def checked(sure: np.ndarray, right: np.ndarray, corrected: np.ndarray | None) -> Checked:
    """Of pixels (n,) that nothing was fitted to: how sure each is, whether it is right, and how sure it is after correction."""
    said = calibration_of(sure, right)
    found: Checked = {
        "error": said["error"],
        "error_of_surest": said["error_of_surest"],
        "calibration_error_as_said": said["calibration_error"],
    }
    if corrected is not None:
        found["calibration_error"] = calibration_of(corrected, right)["calibration_error"]
    return found


@dataclass(frozen=True)
class Certainty:
    """What a learner says of how sure it is, to how often pixels are right of which it says so: lines between points, which rise.

    said, right : (k,) from 0 to 1.
    """

    said: tuple[float, ...]
    right: tuple[float, ...]

    def __call__(self, sure: np.ndarray) -> np.ndarray:
        """Of what is said of pixels (...) from 0 to 1, how often it is right."""
        return np.interp(sure, self.said, self.right)


def fit_certainty(sure: np.ndarray, right: np.ndarray) -> Certainty | None:
    """By isotonic regression (Zadrozny & Elkan 2002), of pixels (n,) that the learner was not fitted to; None where there are none."""
    from sklearn.isotonic import IsotonicRegression

    if not len(sure):
        return None
    level = np.rint(sure * (_LEVELS - 1)).astype(int)
    count = np.bincount(level, minlength=_LEVELS)
    told = np.flatnonzero(count)
    share = np.bincount(level, right, _LEVELS)[told] / count[told]
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(told / (_LEVELS - 1), share, count[told])
    said, often = ([float(value) for value in values] for values in (fitted.X_thresholds_, fitted.y_thresholds_))
    return Certainty(tuple(said), tuple(often))
