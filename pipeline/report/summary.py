"""What the stages measured, in a few sentences and in a table, for a reader who reads nothing else."""

from __future__ import annotations

_UPLIFT_COLUMNS = {
    "balanced_accuracy": "balanced accuracy (sd of seeds)", "auroc": "AUROC", "calibration_error": "calibration error",
    "recall": "recall of", "dice": "Dice by patient (sd of seeds)", "dice_of_worst_group": "worst patient", "dice_of_class": "Dice of",
}  # fmt: skip
"""Measure to the title of its column, or the beginning of those of its classes."""


def uplift_table(uplift: dict) -> dict:
    """Titles, and a row an arm, of what is measured of it."""
    columns, rows = [], []
    for arm in uplift.get("arms", []):
        row = {"trained on": arm["arm"], "ratio": f"{arm['ratio']:g}", "real tiles": arm["trained_on"]["real"]}
        row |= {"synthetic": arm["trained_on"]["synthetic"], "models": arm["seeds"]}
        for name, title in _UPLIFT_COLUMNS.items():
            value, spread = arm.get(name), arm.get(f"{name}_std_of_seeds")
            if isinstance(value, dict):
                row |= {f"{title} {key}": f"{v:.2f}" for key, v in value.items()}
            elif value is not None:
                row[title] = f"{value:.3f}" + ("" if spread is None else f" ({spread:.3f})")
        columns = columns or list(row)
        rows.append([row.get(title, "") for title in columns])
    return {"columns": columns, "rows": rows}


def severity(filters: dict) -> list[tuple[str, str, str, str]]:
    """Of each filter, in per cent, what it was to reject of real tiles, and what it rejects of val's and of test's."""
    keys = ("false_rejection_stated", "false_rejection_found", "false_rejection_of_test")
    found = {name: value for name, value in filters.items() if isinstance(value, dict) and keys[0] in value}
    return [(name, *(_percent(value.get(k)) for k in keys)) for name, value in found.items()]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def in_short(measured: dict) -> list[str]:
    """Of what and of whom, what was rejected and why, how it compares, and whether it helped; measured : stage to its metrics."""
    real, filtered, found = measured["tile"], measured["filter"].get("augment"), []
    splits = {name: sum(counts.values()) for name, counts in real["tiles_by_split"].items() if counts}
    said = ", ".join(f"{count:,} {name}" for name, count in splits.items())
    found.append(
        f"{real['tiles']:,} real tiles of {real['patients']} patient(s): {said}. Of them, train alone has taught the generator."
    )
    if filtered and filtered["made"]:
        share = filtered["accepted"] / filtered["made"]
        rejected = sorted(filtered["rejected_for"].items(), key=lambda item: -item[1])
        why = ", ".join(f"{reason} ({count})" for reason, count in rejected if count) or "nothing"
        made = f"{filtered['made']:,} synthetic tiles were made to augment, and {share:.0%} passed the filters."
        found.append(f"{made} Rejected for: {why}.")
    if m := measured["evaluate"].get("unfiltered"):
        value, by_group = f"{m['kid']['mean']:.3f}", m.get("kid_interval")
        if by_group:
            value = "{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})".format(**by_group)
        floor = f"real train tiles have {m['kid_floor']['mean']:.3f}"
        found.append(f"KID of {m['n']['synthetic']} unfiltered samples to held-out real tiles: {value}; {floor}.")
    uplift = measured["uplift"]
    verdicts = [
        arm["verdict"] for arm in uplift.get("arms", []) + uplift.get("beside_classical", []) if "verdict" in arm
    ]
    found += verdicts or ["Whether it helps a model was not measured."]
    return found
