"""The dvc.yaml of a study, written from what its stages state."""

from __future__ import annotations

from collections.abc import Sequence

from histoloom.studies.stages import STAGES, Stage

VERSION_FILE = "histoloom.version"
RESOLVED = ".histoloom/resolved.yaml"
_WIDTH = 120
_HEAD = """\
# From slides to an augmented dataset. Read it as the table of contents; `dvc repro` runs what is out of date.
# Every choice is in params.yaml. How the machine runs it is in cluster.yaml, on which nothing here depends.
# `resolve` writes what params.yaml means: every key with its default, and under `files` what the files hold that it names.
# The other stages depend on keys of that. So a key may be absent from params.yaml, and a file may lie anywhere.
stages:
"""


def study_yaml() -> str:
    """Of a user's study, whose stages depend on histoloom's version."""
    stages = [stage for stage in STAGES.values() if not stage.demo]
    return _HEAD + "\n".join(_entry(stage, f"histoloom run {stage.name}", [VERSION_FILE]) for stage in stages)


def repository_yaml() -> str:
    """Of this repository's demo, whose stages depend on its code."""
    from histoloom.studies.code_identity import folders_of

    return _HEAD + "\n".join(
        _entry(stage, f"python -m stages.{stage.name}", [f"stages/{stage.name}.py", *folders_of(stage.name)])
        for stage in STAGES.values()
    )


def outputs(stage: Stage) -> list[str]:
    """All that a stage writes, metrics and plots too."""
    reports = f"reports/{stage.name}"
    metrics = [f"{reports}/metrics.json"] if stage.metrics else []
    return [
        *stage.outputs,
        *metrics,
        *([f"{reports}/curves"] if stage.curves else []),
        *(f"{reports}/{p}" for p in stage.pictures),
    ]


def _entry(stage: Stage, command: str, code: Sequence[str]) -> str:
    reports, made_elsewhere = f"reports/{stage.name}", ["data/slides"] if stage.always and "stages/" in code[0] else []
    lines = [f"{stage.name}:", f"  desc: {stage.desc}", f"  cmd: {command}"]
    if stage.always:
        lines.append("  always_changed: true")
    lines += _list("deps", [*code, *stage.inputs, *stage.may_read, *made_elsewhere])
    if stage.params:
        lines += ["  params:", *(f"  {line}" for line in _list(f"- {RESOLVED}", stage.params))]
    if stage.always:
        lines += ["  outs:", *(f"    - {place}: {{cache: false}}" for place in stage.outputs)]
    else:
        lines += _list("outs", stage.outputs)
    if stage.metrics:
        lines.append(f"  metrics: [{reports}/metrics.json]")
    plots = [f"{reports}/{picture}" for picture in stage.pictures]
    if stage.curves:
        plots.append(f"{reports}/curves: {{x: step, y: loss}}")
    if plots:
        lines += _list("plots", plots)
    return "".join(f"  {line}\n" for line in lines)


def _list(key: str, values: Sequence[str]) -> list[str]:
    """A YAML list on one line, or on several where it is long."""
    line = f"  {key}: [{', '.join(values)}]"
    return [line] if len(line) <= _WIDTH else [f"  {key}:", *(f"    - {value}" for value in values)]
