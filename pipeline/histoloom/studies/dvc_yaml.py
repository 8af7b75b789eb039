"""The dvc.yaml of a study, written from what its stages state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from histoloom.studies.stages import STAGES, Stage, of_model, places

VERSION_FILE = "histoloom.version"
RESOLVED = ".histoloom/resolved.yaml"
PACKAGE = "package"
"""Where a study's packaged models are looked for: `histoloom package package`, then `dvc add package`."""
_WIDTH = 120
_HEAD = """\
# From slides to an augmented dataset. Read it as the table of contents; `dvc repro` runs what is out of date.
# Every choice is in params.yaml. How the machine runs it is in cluster.yaml, on which nothing here depends.
# `resolve` writes what params.yaml means: every key with its default, and under `files` what the files hold that it names.
# The other stages depend on keys of that. So a key may be absent from params.yaml, and a file may lie anywhere.
stages:
"""
_ARTIFACTS = """
# What other projects take by name: dvc artifacts get URL NAME
artifacts:
  dataset:
    path: data/dataset
    type: dataset
    desc: The augmented dataset, with its card.
  model:
    path: {model}
    type: model
    desc: {desc}
"""


def study_yaml(models: Sequence[str] = ()) -> str:
    """Of a user's study, whose stages depend on histoloom's version.

    models : names of several models; empty where there is one.
    """
    stages = [stage for stage in STAGES.values() if not stage.demo]
    desc = "The packaged models, once `histoloom package package` has written them and `dvc add package` keeps them."
    return _HEAD + "\n".join(_entries(stage, models) for stage in stages) + _ARTIFACTS.format(model=PACKAGE, desc=desc)


def _entries(stage: Stage, models: Sequence[str]) -> str:
    """A stage's entry, for each of several models where it is run for each."""
    command = f"histoloom run {stage.name}"
    if not models:
        return _entry(replace(stage, params=stage.keys(several=False)), command, [VERSION_FILE])
    if not stage.per_model:
        everything = replace(
            stage,
            params=stage.keys(several=True),
            inputs=tuple(places(stage.inputs, models)),
            may_read=tuple(places(stage.may_read, models)),
        )
        return _entry(everything, command, [VERSION_FILE])
    item = "${item}"
    own = replace(
        stage,
        params=tuple(f"models.{item}.{key}" if of_model(key) else key for key in stage.keys(several=True)),
        inputs=tuple(places(stage.inputs, [item])),
        outputs=tuple(places(stage.outputs, [item])),
    )
    lines = _entry(own, f"{command} --model {item}", [VERSION_FILE], f"reports/{stage.name}/{item}").splitlines()
    return "".join(
        f"{line}\n"
        for line in [lines[0], f"    foreach: [{', '.join(models)}]", "    do:", *(f"  {x}" for x in lines[1:])]
    )


def repository_yaml() -> str:
    """Of this repository's demo, whose stages depend on its code."""
    from histoloom.studies.code_identity import folders_of

    written = "\n".join(
        _entry(
            replace(stage, params=stage.keys(several=False)),
            f"python -m stages.{stage.name}",
            [f"stages/{stage.name}.py", *folders_of(stage.name)],
        )
        for stage in STAGES.values()
    )
    desc = "The packaged model, which git keeps."
    return _HEAD + written + _ARTIFACTS.format(model="pretrained/histoloom-base", desc=desc)


def outputs(stage: Stage, models: Sequence[str] = ()) -> list[str]:
    """All that a stage writes, metrics and plots too; for each of several models, where it is run for each."""
    out = places(stage.outputs, models)
    for reports in [f"reports/{stage.name}/{name}" for name in models if stage.per_model] or [f"reports/{stage.name}"]:
        out += [f"{reports}/metrics.json"] if stage.metrics else []
        out += [f"{reports}/curves"] if stage.curves else []
        out += [f"{reports}/{picture}" for picture in stage.pictures]
    return out


def _entry(stage: Stage, command: str, code: Sequence[str], reports: str = "") -> str:
    reports = reports or f"reports/{stage.name}"
    made_elsewhere = ["data/slides"] if stage.always and "stages/" in code[0] else []
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
        lines += _list("metrics", [f"{reports}/metrics.json"])
    plots = [f"{reports}/{picture}" for picture in stage.pictures]
    if stage.curves:
        plots.append(f"{reports}/curves: {{x: step}}")
    if plots:
        lines += _list("plots", plots)
    return "".join(f"  {line}\n" for line in lines)


def _list(key: str, values: Sequence[str]) -> list[str]:
    """A YAML list on one line, or on several where it is long, or a name that DVC fills in would end it."""
    line = f"  {key}: [{', '.join(values)}]"
    return [line] if len(line) <= _WIDTH and "${" not in line else [f"  {key}:", *(f"    - {v}" for v in values)]
