"""The picture of values and intervals shows what was measured, and says where nothing was."""

from __future__ import annotations

import numpy as np
from PIL import Image

from histoloom.quality.interval_picture import Measured, draw_intervals, kid_rows

_PURPLE = np.array([0x5B, 0x3F, 0x9E])


def _purple(path) -> np.ndarray:
    """Rows and columns of pixels of the measure's colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.argwhere(np.abs(pixels - _PURPLE).sum(axis=2) < 30)


def test_distances_that_were_not_measured_are_left_out_and_the_floor_is_told():
    kid = {"mean": 0.5, "std": 0.1, "subset_size": 10}
    interval = {"value": 0.6, "interval": [0.4, 0.8], "over": "tiles"}
    compared = [
        ("left", {"kid": kid, "kid_interval": interval, "kid_floor": kid | {"mean": 0.01}}),
        ("right", {"kid": kid, "kid_interval": {}}),
        ("rare", {}),
    ]
    assert kid_rows(compared) == [Measured("left", 0.6, (0.4, 0.8), 0.01), Measured("right", 0.5)]


def test_a_wider_interval_is_a_longer_line(tmp_path):
    lengths = []
    for half in (0.1, 0.4):
        rows = [Measured("a", 0.5, (0.5 - half, 0.5 + half), 0.0), Measured("fixes the axis", 1.0, (-0.1, 1.1))]
        draw_intervals(rows, "title", "axis", tmp_path / "deep/p.png")
        found = _purple(tmp_path / "deep/p.png")
        first = found[found[:, 0] < found[:, 0].mean()]
        lengths.append(np.ptp(first[:, 1][first[:, 0] == np.bincount(first[:, 0]).argmax()]))
    assert lengths[1] > 2 * lengths[0] > 0


def test_where_nothing_was_measured_that_is_said(tmp_path):
    draw_intervals([Measured("a", float("nan"))], "title", "axis", tmp_path / "p.png")
    assert len(_purple(tmp_path / "p.png")) == 0 and np.asarray(Image.open(tmp_path / "p.png")).std() > 0


def test_an_interval_that_is_not_finite_is_not_drawn(tmp_path):
    draw_intervals([Measured("a", 1.0, (float("nan"), float("nan")))], "title", "axis", tmp_path / "p.png")
    assert len(_purple(tmp_path / "p.png")) > 0
