"""Why a stage is out of date, in words: what dvc.lock says that it was made of, beside what there is now."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from histoloom.data.study_folder import Study
from histoloom.data.tile_sets.files import named_by
from histoloom.studies.dvc_yaml import RESOLVED, VERSION_FILE
from histoloom.studies.named_files import slide_places
from histoloom.studies.stage_work import HASHES

_NONE = object()
_FILES = re.compile(r"((?:models\.[^.]+\.)?)files\.(\w+)\.(.+)")
_NAMED_BY = {
    "train_encoders.text": "train_encoders.text.source",
    "train_encoders.rna": "train_encoders.rna.table",
    "train_encoders.rna_init": "train_encoders.rna.init",
    "train_encoders.genotype": "train_encoders.genotype.table",
    "train_encoders.image": "train_encoders.image.source",
}
"""Keys of what files hold, to the keys of params that name the files, where these differ."""
_LONGEST_VALUE = 24


@dataclass(frozen=True)
class Reason:
    """One reason why a stage runs again.

    kind : of params, a file that they name, histoloom's code, what an earlier stage made, what the stage itself made, or its command; `waits`
        where an earlier stage is to run first.
    what : the key, the file or the stage. before, after : of params alone, the values.
    """

    kind: Literal["params", "input", "code", "earlier", "output", "command", "waits"]
    what: str
    text: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class Known:
    """What is known of a study's stages.

    stages : of dvc.yaml, by their names in dvc.lock. locked : the same of dvc.lock. resolved : the resolved params.
    """

    study: Study
    stages: dict[str, dict]
    locked: dict[str, dict]
    resolved: dict

    def maker(self, place: str) -> str | None:
        """The stage that makes what lies at a place, all or some of it."""
        for name, entry in self.stages.items():
            for made in made_by(entry):
                if made == place or made.startswith(f"{place}/") or place.startswith(f"{made}/"):
                    return name
        return None


@dataclass(frozen=True)
class Changed:
    """What DVC finds changed of a stage: place to 'modified', 'deleted' or 'new'; keys of params files; whether its command did."""

    deps: dict[str, str]
    outs: dict[str, str]
    params: dict[str, tuple[str, ...]]
    command: bool


def made_by(entry: dict) -> list[str]:
    """The places that a stage of dvc.yaml writes."""
    listed = [place for kind in ("outs", "metrics", "plots") for place in entry.get(kind) or ()]
    return [place if isinstance(place, str) else next(iter(place)) for place in listed]


def reasons_of(stage: str, changed: Changed, known: Known) -> Iterator[Reason]:
    """Why a stage that ran once is to run again."""
    if changed.command:
        yield Reason("command", stage, "its command in dvc.yaml changed")
    for path, keys in changed.params.items():
        if path == RESOLVED:
            yield from _of_params(stage, keys, known)
        else:
            yield from (Reason("params", key, f"params: {key} of {path} changed") for key in keys)
    for place, how in changed.deps.items():
        yield _of_dependency(stage, place, how, known)
    for place, how in changed.outs.items():
        said = "is missing" if how == "deleted" else "is not what the stage wrote"
        yield Reason("output", place, f"its output {place} {said}")


def _of_dependency(stage: str, place: str, how: str, known: Known) -> Reason:
    if place == VERSION_FILE:
        return Reason("code", place, f"code of histoloom changed ({place})")
    if place.endswith(".py") or place.startswith(("pipeline/", "stages/")):
        return Reason("code", place, f"code of histoloom changed: {place}")
    said = {"deleted": "is missing", "new": "is new"}.get(how, "changed")
    if (maker := known.maker(place)) is None:
        return Reason("input", place, f"input {place} {said}")
    before, now = (_hash(known.locked.get(name, {}), key, place) for name, key in ((stage, "deps"), (maker, "outs")))
    if how == "deleted" or (before == now and now is not None):
        return Reason("earlier", maker, f"input {place} {said}, which {maker} makes")
    return Reason("earlier", maker, f"an earlier stage ran again: {maker}")


def _hash(locked: dict, key: str, place: str) -> str | None:
    return next((entry.get("md5") for entry in locked.get(key, ()) if entry["path"] == place), None)


def _of_params(stage: str, keys: Iterable[str], known: Known) -> Iterator[Reason]:
    before = known.locked.get(stage, {}).get("params", {}).get(RESOLVED, {})
    for key in keys:
        for name, old, new in differences(before.get(key, _NONE), _value(known.resolved, key), key):
            if file := _FILES.fullmatch(name):
                yield from _of_files(stage, file[1], file[2], file[3], known)
            else:
                yield Reason("params", name, f"params: {name} {_change(old, new)}", _plain(old), _plain(new))


def differences(before: Any, after: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Keys inside two values, and the values there, where these differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            yield from differences(before.get(name, _NONE), after.get(name, _NONE), f"{key}.{name}")
    elif _of_mappings(before) and _of_mappings(after):
        for place, (old, new) in enumerate(zip_longest(before, after, fillvalue=_NONE)):
            yield from differences(old, new, f"{key}[{place}]")
    elif before != after:
        yield key, before, after


def _of_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _value(resolved: dict, key: str) -> Any:
    return reduce(
        lambda inner, name: inner.get(name, _NONE) if isinstance(inner, dict) else _NONE, key.split("."), resolved
    )


def _change(before: Any, after: Any) -> str:
    if before is _NONE:
        return f"is new: {_short(after)}"
    return "is gone" if after is _NONE else f"changed from {_short(before)} to {_short(after)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _plain(value: Any) -> Any:
    return None if value is _NONE else value


def _of_files(stage: str, model: str, section: str, name: str, known: Known) -> Iterator[Reason]:
    """What params name changed, as far as it is known which file."""
    if section == "tile" and (found := list(_changed_files(stage, name, known))):
        yield from found
        return
    head, _, file = name.partition(".")
    key = _NAMED_BY.get(f"{section}.{head}", f"{section}.{head}")
    stated = _value(known.resolved, f"{model}{key}")
    if head == "summarise" or section == "uplift":
        yield Reason("input", file or key, f"input {file or key} changed")
    elif section == "extensions":
        yield Reason("code", f"{section}.{name}", f"code that {section}.{name} names changed")
    elif isinstance(stated, str):
        yield Reason("input", stated, f"input {stated} changed ({model}{key})")
    elif section == "tile" and name != "sets":
        column = "path" if name == "slides" else name
        yield Reason("input", f"tile.{name}", f"input changed: a file in column '{column}' of the manifest")
    else:
        yield Reason("input", f"{section}.{name}", f"a file of {model}{section}.{name} changed")


def _changed_files(stage: str, kind: str, known: Known) -> Iterator[Reason]:
    """Which slides, or files beside them, changed since the stage was done."""
    study, config = known.study, known.study.params.tile
    then, now = (_sha256s(path) for path in (study.work(stage.partition("@")[0]) / HASHES, study.hashes))
    changed = {place for place in then.keys() | now.keys() if then.get(place) != now.get(place)}
    if not then or not changed:
        return
    if kind == "sets":
        paths = [path for each in config.sets for path in named_by(each)]
    else:
        paths = [path for own, _, of_slide in slide_places(config) if own == kind for path in of_slide]
    if not any(str(path.resolve()) in then or path.is_dir() for path in paths):
        return  # the study was moved
    for path in paths:
        whole = str(path.resolve())
        inside = {whole} if not path.is_dir() else {place for place in changed if place.startswith(f"{whole}/")}
        if inside & changed:
            said = "changed" if any(place in then for place in inside) else "is new"
            yield _input(study, path, said)
    roots = [str(Path(root).resolve()) for root in (config.slides_root, config.annotations_root)]
    for place in sorted(changed & then.keys()):  # a row whose file is missing is a fault, and gives no path
        if place.startswith(tuple(f"{root}/" for root in roots)) and not Path(place).exists():
            yield _input(study, Path(place), "is missing")


def _input(study: Study, path: Path, said: str) -> Reason:
    inside = [path.relative_to(root) for root in (study.root, study.root.resolve()) if path.is_relative_to(root)]
    shown = inside[0] if inside else path
    return Reason("input", str(shown), f"input {shown} {said}")


def _sha256s(path: Path) -> dict[str, str]:
    """Path to sha256, of a file of hashes."""
    return (
        {place: kept[3] for place, kept in json.loads(path.read_text(encoding="utf-8")).items()}
        if path.is_file()
        else {}
    )
