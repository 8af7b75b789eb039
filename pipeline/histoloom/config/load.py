"""params.yaml and cluster.yaml, read and checked once; what pretrained models tell is filled in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from histoloom.config.cluster import Cluster
from histoloom.config.file_keys import placed
from histoloom.config.models import ModelParams, inherited
from histoloom.config.package import PACKAGED
from histoloom.config.params import Params
from histoloom.config.pretrained import Pretrained, fill_in
from histoloom.config.pretrained_agreement import check_agreement, unknown_inits
from histoloom.config.yaml_reader import check_section, read_yaml
from histoloom.errors import Fault, HistoloomError, Note, faults_among
from histoloom.registry import extend

T = TypeVar("T")


def check_params(path: Path | str = "params.yaml") -> tuple[Params | None, list[Fault | Note]]:
    """params.yaml with what its pretrained models tell, None where it can't be read; its faults and notes.

    Names of files stay as they are written: relative to the folder of params.yaml (`file_keys.placed`). Params that lie in a package
    say how it was made. The models that these name need not be here, and aren't asked.
    """
    path = Path(path)
    written, faults = read_yaml(path)
    if faults:
        return None, [*faults]
    _extend(written, path.parent)
    if (path.parent / PACKAGED).is_file():
        params, faults = check_section(written, Params, path)
        return params, [*faults]
    filled, told = fill_in(written, path.parent)
    of_models = _fill_models(filled, written, path.parent)
    params, faults = check_section(filled, Params, path)
    if params is None:
        return None, [*told.faults, *unknown_inits(filled, path.parent), *faults]
    if not of_models:
        return params, check_agreement(placed(params, path.parent), told)
    return params, [
        replace(each, column=f"models.{name}.{each.column}") if each.column else each
        for name, told in of_models.items()
        for each in check_agreement(placed(params.of(name), path.parent), told)
    ]


def _extend(written: Any, root: Path) -> None:
    """Know the pieces from outside that params name, before params are checked for names; faults of the section come with the others."""
    stated = written.get("extensions") if isinstance(written, dict) else None
    for kind, names in stated.items() if isinstance(stated, dict) else ():
        if isinstance(names, dict):
            extend({str(kind): {str(name): str((root / str(place)).resolve()) for name, place in names.items()}})


def _fill_models(filled: Any, written: Any, root: Path) -> dict[str, Pretrained]:
    """Fill in each of several models, as if the study had no other; what their pretrained models tell."""
    found: dict[str, Pretrained] = {}
    if isinstance(written, dict) and isinstance(written.get("models"), dict):
        for name in written["models"]:
            if isinstance(own := inherited(written, name), dict):
                alone = {key: value for key, value in written.items() if key != "models"} | own
                whole, found[name] = fill_in(alone, root)
                filled["models"][name] = {key: whole[key] for key in ModelParams.model_fields if key in whole}
    return found


def load_params(path: Path | str = "params.yaml") -> Params:
    """The params that `check_params` gives.

    Raises
    ------
    HistoloomError
        with all faults.
    """
    params, found = check_params(path)
    return _faultless(params, faults_among(found), path)


def check_cluster(path: Path | str = "cluster.yaml") -> tuple[Cluster | None, list[Fault]]:
    """cluster.yaml, None where it can't be read, and its faults; a missing file means the defaults."""
    if not Path(path).exists():
        return Cluster(), []
    written, faults = read_yaml(Path(path))
    return (None, faults) if faults else check_section(written, Cluster, Path(path))


def load_cluster(path: Path | str = "cluster.yaml") -> Cluster:
    """The cluster that `check_cluster` gives, or all its faults in one HistoloomError."""
    return _faultless(*check_cluster(path), path)


def _faultless(found: T | None, faults: list[Fault], path: Path | str) -> T:
    if faults or found is None:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise HistoloomError(f"{path} has {len(faults)} fault(s):\n{lines}")
    return found
