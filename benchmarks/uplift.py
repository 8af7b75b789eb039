"""Whether synthetic tiles gain anything over strong augmentation, pretraining and retrieval, on real data, by the stages that a user runs.

Three questions (benchmarks/questions.py). `rare`: atypical mitoses, of which few are labelled. `scanner`: mitoses on a scanner that was not labelled.
`hospital`: nuclei of a hospital that was not labelled; `hospital_reversed` is the same with the two sets exchanged. A gain is over the best arm without
synthetic tiles, which val chooses. Arm and label fraction that each claim is about are named in that file. It needs the real data that
HISTOLOOM_REAL_DATA names; with --smoke it draws slides of its own, and its figures mean nothing.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks.findings import finding_of, write_findings
from benchmarks.folds import CHANGE, Predicted, between, chosen, measured, predicted, together
from benchmarks.inputs import drawn_slides
from benchmarks.questions import QUESTIONS, study_of
from benchmarks.run import arguments, flat, report
from benchmarks.studies import Study
from histoloom.cli.recipe import merge
from histoloom.uplift.advice import Finding
from histoloom.uplift.analysis import ArmKey

PARTS = tuple(QUESTIONS)
STAGES = (
    "tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides", "tile_slides", "train_filters",
    "filter", "uplift",
)  # fmt: skip


def drawn(root: Path, name: str, fold: int) -> Study:
    """A tiny study of a question's kind, its slides drawn here."""
    rows, tile = drawn_slides(root)
    for row in rows:
        row["split"] = ("train", "train", "train", "train", "val", "test")[(int(row["slide_id"][1:]) + 2 * fold) % 6]
    small = {
        "train_autoencoder": {"channels": 16, "down_factor": 4, "steps": 6, "batch_size": 8},
        "train_denoiser": {"channels": [16, 32], "steps": 6, "batch_size": 8},
        "plan": {"target": "none", "requests": [{"name": "more", "tiles": 24}]},
        "sample": {"steps": 2},
        "train_filters": {"segmenter_steps": 4},
        "filter": {"use": [], "min_yield": 0},
        "uplift": {
            "arms": ["real", "strong", "strong+synthetic", "strong+unfiltered"], "seeds": 1, "steps": 2, "image_px": 32, "learning_rate": [1e-3, 1e-4],
            "pretraining": {"steps": 2, "batch_size": 8},
        },
    }  # fmt: skip
    if name.startswith("hospital"):
        tile |= {"masks": {"source": "raster", "classes": ["nucleus"]}}
        merge(small, {"train_denoiser": {"conditions": ["mask"]}, "uplift": {"task": "mask"}})
    else:
        rows = [{k: v for k, v in row.items() if k != "instances"} for row in rows]
        merge(small, {"train_denoiser": {"conditions": ["label"]}})
    merge(tile, {"labels": {"fraction": 0.5, "fraction_of": "tile", "unlabelled": "keep"}})
    return Study(root / f"{name}-{fold}", {"tile": tile} | small, rows, {}, 0)


def keys_of(found: dict, studies: list[Study], seen: float | None, on: str) -> dict:
    """Of each arm its measure and its difference: of arms with synthetic tiles from the best other arm, of others from real tiles alone."""
    measure, out = found["primary_measure"], {}
    for arm in [*found["arms"], *found.get("gain", [])]:
        keys = {key: arm[key] for key in CHANGE if key in arm}
        if measure in arm:
            keys |= {"mean": arm[measure], "std_of_seeds": arm[f"{measure}_std_of_seeds"]}
            keys |= {kind: sum(_trained_on(study, arm)[kind] for study in studies) for kind in ("real", "synthetic")}
        out[arm["arm"]] = out.get(arm["arm"], {}) | keys
    augment = [measured(study, "filter")["augment"] for study in studies]
    made = sum(a["synthetic"] for a in augment)
    out |= {
        "accepted_of_made": sum(a["accepted"] for a in augment) / made,
        "detectable": seen,
        "best_other_chosen_on": on,
    }
    return out | {key: found[key] for key in ("test_groups", "test_tiles", "comparisons")}


def taken_out(name: str, found: Predicted, comparisons: int, without: dict[str, Predicted]) -> dict[str, dict]:
    """What the arm that the question is about loses without each of its ingredients, at equal counts of tiles, but for `ratio`."""
    question = QUESTIONS[name]
    asked, lost = _key_of(found, question.asked), {}
    assert asked is not None, "each question is asked about one of its arms"
    for lacks, arm in question.others.items():
        if other := _key_of(found, arm):
            lost[lacks] = between(found, asked, found, other, comparisons)
    for lacks, of in without.items():
        if other := _key_of(of, question.asked):
            lost[lacks] = between(found, asked, of, other, comparisons)
    return {lacks: {key: change[key] for key in CHANGE} for lacks, change in lost.items()}  # type: ignore[literal-required]


def _key_of(found: Predicted, arm: str) -> ArmKey | None:
    return next((key for key in found.arms if key[0] == arm), None)


def drawn_differences(found: dict[str, dict], words: str) -> Figure:
    """Each arm's difference from the first, with its interval and, thinly, that of all; a panel for each label fraction."""
    figure = Figure(figsize=(6.4 * len(found), 4.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(found), sharex=True))
    for axis, (fraction, result) in zip(axes, found.items()):
        arms = [arm for arm in result["arms"] if "difference" in arm][::-1]
        for place, arm in enumerate(arms):
            low, high = (100 * v for v in arm["interval"])
            colour = "#2f7d5b" if low > 0 else "#a03030" if high < 0 else "#6d6274"
            axis.plot([low, high], [place, place], color=colour, lw=3)
            axis.plot([100 * v for v in arm["interval_of_all"]], [place, place], color=colour, lw=1)
            axis.plot(100 * arm["difference"], place, "o", color=colour)
        axis.axvline(0, color="#2b2033", lw=0.8)
        axis.set_yticks(range(len(arms)), [arm["arm"] for arm in arms], fontsize=7)
        axis.set_title(f"{fraction} of the labels", fontsize=10)
        axis.set_xlabel(f"{words}, points over '{result['arms'][0].get('arm')}'", fontsize=9)
    return figure


def main() -> None:
    options = arguments(
        __doc__, PARTS, fractions=tuple(sorted({f for q in QUESTIONS.values() for f in q.fractions})),
        work="keep the studies here, so that a broken run goes on where it stopped", pictures="write plots here",
        findings="write what histoloom advise reads into this file, such as pipeline/histoloom/uplift/measured.json",
    )  # fmt: skip
    keys: dict[str, dict] = {}
    minutes: dict[str, float] = {}
    said: list[Finding] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        for name in options.only:
            found = {}
            for fraction in [f for f in QUESTIONS[name].fractions if f in options.fractions][
                : 1 if options.smoke else None
            ]:
                start = time.monotonic()
                answer = _answered(root, name, fraction, options.smoke)
                keys.setdefault(name, {})[f"{fraction:g}"] = answer.keys
                found[f"{100 * fraction:g} %"] = answer.analysed
                said += [answer.finding] if answer.finding else []
                minutes[f"minutes_{name}_{fraction:g}"] = (time.monotonic() - start) / 60
                if options.findings is not None:
                    write_findings(options.findings, said)
                report("uplift", options.smoke, {}, flat(keys), minutes, options.json)
            if options.pictures is not None and found:
                options.pictures.mkdir(parents=True, exist_ok=True)
                words = "Dice" if name.startswith("hospital") else "balanced accuracy"
                drawn_differences(found, words).savefig(options.pictures / f"{name}.png", dpi=110)


class Answer(NamedTuple):
    """A question's keys at a label fraction, the analysis that they are taken from, and what is kept of it."""

    keys: dict
    analysed: dict
    finding: Finding | None


def _answered(root: Path, name: str, fraction: float, smoke: bool) -> Answer:
    question = QUESTIONS[name]
    studies: list[Study] = []
    without: dict[str, list[Study]] = {}
    for fold in range(question.folds):
        study = drawn(root, name, fold) if smoke else study_of(name, root, fold, fraction)
        study.run(*STAGES)
        studies.append(study)
        for lacks, changes in question.without.items() if not smoke and fraction == question.fractions[0] else ():
            without.setdefault(lacks, []).append(_without(study, lacks, changes, question.asked))
    found = predicted(studies)
    decided = chosen(studies, found, next(iter(found.arms)))
    analysed = together(found, decided.other)
    other = decided.other[0] if decided.other else None
    keys = keys_of(analysed, studies, decided.detectable, decided.on) | {"best_other": other}
    if smoke or other is None:
        return Answer(keys, analysed, None)
    keys["ablation"] = taken_out(
        name, found, analysed["comparisons"], {lacks: predicted(of) for lacks, of in without.items()}
    )
    return Answer(keys, analysed, finding_of(name, fraction, studies, analysed, other, question.asked))


def _without(study: Study, lacks: str, changes: dict, asked: str) -> Study:
    """The same study without an ingredient, in which one arm with synthetic tiles is tried."""
    changes = changes | {"uplift": {"arms": ["real", asked], **changes.get("uplift", {})}}
    alone = study.copied(f"{study.folder.name}-without-{lacks}", changes)
    alone.run(*STAGES)
    return alone


def _trained_on(study: Study, arm: dict) -> dict[str, int]:
    """How many tiles of each kind an arm was trained on in one fold."""
    found = measured(study, "uplift")
    return next(a["trained_on"] for a in found["arms"] if (a["arm"], a["ratio"]) == (arm["arm"], arm["ratio"]))


if __name__ == "__main__":
    main()
