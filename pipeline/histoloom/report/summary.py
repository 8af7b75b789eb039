"""What the stages measured, in a few sentences and a table, for a reader who reads nothing else."""

from __future__ import annotations

from typing import TypedDict

from histoloom.quality.intervals import near_copy_excess

NEAR_COPY = "near-copy of a train tile"
"""The reason that `near_copy` gives (quality/filters/near_copy.py)."""
_UPLIFT_COLUMNS = {
    "balanced_accuracy": "balanced accuracy (sd of seeds)", "auroc": "AUROC", "calibration_error": "calibration error",
    "recall": "recall of", "precision": "precision of", "dice": "Dice by patient (sd of seeds)", "dice_of_worst_group": "worst patient", "dice_of_class": "Dice of",
}  # fmt: skip
"""Measure to the title of its column, or the beginning of those of its classes."""


class Table(TypedDict):
    """rows : a value a column in each."""

    columns: list[str]
    rows: list[list]


def uplift_table(uplift: dict) -> Table:
    """What is measured of each arm, a row an arm."""
    columns: list[str] = []
    rows = []
    for arm in uplift.get("arms", []):
        of = arm["trained_on"]
        row = {"trained on": arm["arm"], "ratio": f"{arm['ratio']:g}", "real tiles": of["real"]}
        row |= {"synthetic": of["synthetic"], "retrieved": of.get("retrieved", 0), "models": arm["seeds"]}
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
    """A row a filter: its name, and the percentages of real tiles that it was to reject, that it rejects of val, and of test."""
    keys = ("false_rejection_stated", "false_rejection_found", "false_rejection_of_test")
    found = {name: value for name, value in filters.items() if isinstance(value, dict) and keys[0] in value}
    return [(name, *(_percent(value.get(k)) for k in keys)) for name, value in found.items()]


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.1%}"


def near_copies(calibrated: dict, unfiltered: dict | None) -> list[str]:
    """How many more samples than real tiles of test the near-copy filter flags: what a model is judged by.

    calibrated : its measures on real tiles; unfiltered : the funnel of the samples to evaluate.
    """
    flagged = (unfiltered or {}).get("rejected_for", {}).get(NEAR_COPY)
    fraction, real = calibrated.get("false_rejection_of_test"), calibrated.get("test_tiles")
    if unfiltered is None or flagged is None or fraction is None or not real:
        return []
    count = unfiltered["synthetic"]
    found = near_copy_excess(flagged, count, fraction, real)
    excess, low, high = (100 * v for v in (found["excess"], *found["interval"]))
    return [
        f"Near-copies of train tiles: {flagged / count:.2%} of {count:,} unfiltered samples are flagged, and {fraction:.2%} of "
        f"{real:,} real test tiles: {excess:+.2f} points ({low:+.2f} to {high:+.2f}, tiles taken as independent)."
    ]


def told_apart(evaluated: dict) -> list[str]:
    """How easily unfiltered samples are told from real tiles, in all: a sentence, where it was measured."""
    overall = evaluated.get("realism", {}).get("overall", {})
    if not overall:
        return []
    samples, floor = overall["samples"], overall["floor"]
    if "auc" not in samples:
        return [f"How easily they are told apart can't be told: {_of_both(samples)} are too few."]
    low, high = samples["interval"]
    said = f"Told apart from real tiles with an AUC of {samples['auc']:.2f} ({low:.2f} to {high:.2f}, by {samples['over']}), unfiltered; 0.5 is chance."
    if "auc" not in floor:
        return [f"{said} Train tiles are too few to be told apart."]
    return [
        f"{said} Real train tiles in their place: {floor['auc']:.2f}, which may be high because these are other regions."
    ]


def _of_both(told: dict) -> str:
    return f"{told['n']['other']:,} samples and {told['n']['real']:,} real tiles"


def told_apart_table(evaluated: dict) -> list[tuple[str, str, str, str, str]]:
    """A row in all and one a class: its name, samples, real tiles, AUC of the samples, and that of train tiles in their place."""
    realism = evaluated.get("realism", {})
    found = {"all": realism["overall"], **realism["by_class"]} if realism else {}
    return [
        (
            name,
            *(f"{told['samples']['n'][k]:,}" for k in ("other", "real")),
            *(_auc(told[k]) for k in ("samples", "floor")),
        )
        for name, told in found.items()
    ]


def refusals(filtered: dict) -> list[str]:
    """The classes of which no tile is accepted, since too little passed, and those of which nobody could tell."""
    found = [
        f"The generator is not good enough for {label}: {y['accepted']} of {y['synthetic']:,} tiles passed the filters, and none is accepted."
        for label, y in filtered.get("refused", {}).items()
    ]
    by_class = filtered.get("augment", {}).get("by_class", {})
    untold = [f"{label} ({y['not_told']})" for label, y in by_class.items() if y.get("not_told")]
    return found + [f"Too few tiles to tell how real they are: {', '.join(untold)}."] * bool(untold)


def _auc(told: dict) -> str:
    if "auc" not in told:
        return "cannot tell"
    return "{auc:.2f} ({interval[0]:.2f} to {interval[1]:.2f})".format(**told)


def _of_no_train_tile(vanished: list[str], planned: dict) -> list[str]:
    """The classes that can't be made, and why."""
    without_source = [name for name, deficit in planned.items() if deficit.get("reason") and name not in vanished]
    said = [f"No train tile shows {', '.join(vanished)}: nothing was learned or made of it."] if vanished else []
    return said + [f"Nothing was made of {', '.join(without_source)}: no train tile has conditions for it."] * bool(
        without_source
    )


def _not_held_out(lacking: dict[str, list[str]]) -> list[str]:
    """The classes that train shows and a held-out split does not."""
    return [
        f"No {split} tile shows {', '.join(names)}, which train shows: nothing is measured of it on {split}. Move a group of it there (tile.split.assign), or add groups."
        for split, names in lacking.items()
    ]


def _predictions(of_requests: dict) -> list[str]:
    """How good predicted masks are on held-out tiles."""
    return [
        f"Masks predicted by the request '{name}': Dice {of['dice']:.2f} on {of['tiles']:,} {of['split']} tiles of {of['groups']} group(s), {of['dice_of_worst_group']:.2f} on the worst group."
        for name, of in of_requests.items()
        if "dice" in of
    ]


def in_short(measured: dict) -> list[str]:
    """Sentences on how easily samples are told from real tiles, on the real tiles, on yields and reasons, and on distances.

    measured : stage to its metrics.
    """
    real, filtered, found = measured["tile"], measured["filter"].get("augment"), told_apart(measured["evaluate"])
    splits = {name: sum(counts.values()) for name, counts in real["tiles_by_split"].items() if counts}
    said = ", ".join(f"{count:,} {name}" for name, count in splits.items())
    found.append(
        f"{real['tiles']:,} real tiles of {real['patients']} patient(s): {said}. Of them, train alone has taught the generator."
    )
    found += _of_no_train_tile(real.get("classes_without_train_tiles", []), measured.get("plan", {}).get("classes", {}))
    found += _not_held_out(real.get("classes_without_held_out_tiles", {}))
    if filtered and filtered["synthetic"]:
        passed = filtered["accepted"] / filtered["synthetic"]
        rejected = sorted(filtered["rejected_for"].items(), key=lambda item: -item[1])
        why = ", ".join(f"{reason} ({count})" for reason, count in rejected if count) or "nothing"
        said = f"{filtered['synthetic']:,} synthetic tiles were made to augment, and {passed:.0%} passed the filters."
        found.append(f"{said} Rejected for: {why}.")
    found += refusals(measured["filter"])
    if m := measured["evaluate"].get("unfiltered"):
        value, by_group = f"{m['kid']['mean']:.3f}", m.get("kid_interval")
        if by_group:
            value = "{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})".format(**by_group)
        floor = f"real train tiles have {m['kid_floor']['mean']:.3f}"
        if rebuilt := measured["evaluate"].get("rebuilt"):
            floor += f", and their own reconstructions {rebuilt['kid']['mean']:.3f}"
        found.append(f"KID of {m['n']['synthetic']} unfiltered samples to held-out real tiles: {value}; {floor}.")
    found += _predictions(measured["evaluate"].get("predictions", {}))
    found += near_copies(measured.get("train_filters", {}).get("near_copy", {}), measured["filter"].get("evaluate"))
    return found
