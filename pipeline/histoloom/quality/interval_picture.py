"""A picture of measured values with their intervals, for `dvc plots`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from histoloom.quality.metrics import Comparison

_COLOUR, _FLOOR = "#5b3f9e", "#777777"


@dataclass(frozen=True)
class Measured:
    """One row of the picture.

    value : what was measured. interval : of 95 %; None where nothing can be said. floor : what real tiles come to.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    floor: float | None = None


def kid_rows(compared: Iterable[tuple[str, Comparison]]) -> list[Measured]:
    """The kernel distances of comparisons by name, those left out that were too small to be measured."""
    out = []
    for name, found in compared:
        if "kid" not in found:
            continue
        measured, floor = found.get("kid_interval", {}), found.get("kid_floor")
        interval = measured.get("interval")
        out.append(
            Measured(
                name,
                measured.get("value", found["kid"]["mean"]) if interval else found["kid"]["mean"],
                (interval[0], interval[1]) if interval else None,
                floor["mean"] if floor else None,
            )
        )
    return out


def draw_intervals(rows: Sequence[Measured], title: str, axis_title: str, path: Path) -> None:
    """Draw a row for each value, its interval as a line, its floor as a mark, and a line at 0. Where there are none, that is said."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if math.isfinite(row.value)]
    figure = Figure(figsize=(7, 1.3 + 0.36 * max(len(rows), 1)), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title, fontsize=10, loc="left")
    for place, row in enumerate(rows):
        if row.interval is not None and all(map(math.isfinite, row.interval)):
            axis.plot(row.interval, (place, place), color=_COLOUR, linewidth=2)
        axis.plot(row.value, place, "o", color=_COLOUR, label="measured, and its 95 % interval" if place == 0 else None)
        if row.floor is not None:
            axis.plot(row.floor, place, "|", color=_FLOOR, markersize=14, markeredgewidth=2)
    if any(row.floor is not None for row in rows):
        axis.plot(
            [], [], "|", color=_FLOOR, markersize=10, markeredgewidth=2, linestyle="none", label="real against real"
        )
    if rows:
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel(axis_title, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        axis.text(0.5, 0.5, "nothing was measured", ha="center", va="center", fontsize=9, transform=axis.transAxes)
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
