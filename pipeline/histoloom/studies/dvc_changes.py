"""What DVC finds changed, stage by stage.

`dvc status` stops where a stage runs, since it takes DVC's locks. These are reads alone, so they take none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from histoloom.errors import HistoloomError
from histoloom.studies.changes import Changed

if TYPE_CHECKING:
    from dvc.dependency.param import ParamsDependency
    from dvc.output import Output


def changes(root: Path, stages: Collection[str], unfinished: Collection[str]) -> dict[str, Changed]:
    """Stage to what changed since dvc.lock was written.

    Parameters
    ----------
    stages : those that dvc.lock knows. unfinished : places that are being written, and are not looked at.

    Raises
    ------
    HistoloomError
        when DVC can't read the study.
    """
    from dvc.dependency.param import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            hashes = _Hashes(unfinished)
            out = {}
            for stage in repo.index.stages:
                if stage.addressing not in stages:
                    continue
                params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
                out[stage.addressing] = Changed(
                    hashes.changed(dep for dep in stage.deps if dep not in params),
                    hashes.changed(stage.outs),
                    {str(dep): keys for dep in params if (keys := _keys(dep))},
                    bool(stage.cmd_changed),
                )
            return out
    except DvcException as error:
        raise HistoloomError(f"DVC can't say what changed: {error}") from error


def _keys(dep: ParamsDependency) -> tuple[str, ...]:
    """Keys of a file of params that changed; all of them, where the file is new or gone."""
    found = dep.workspace_status().get(str(dep), {})
    return tuple(dep.params if isinstance(found, str) else found)


class _Hashes:
    """Hashes of places, each found once, however many stages read it."""

    def __init__(self, unfinished: Collection[str]):
        self.unfinished = unfinished
        self.found: dict[str, object] = {}

    def changed(self, listed: Iterable[Output]) -> dict[str, str]:
        """Of dependencies or outputs, those that are not what dvc.lock says."""
        out = {}
        for each in listed:
            place = str(each)
            if any(place == other or other.startswith(f"{place}/") for other in self.unfinished):
                continue
            if not each.exists:
                out[place] = "deleted"
                continue
            if place not in self.found:
                self.found[place] = each.get_hash()
            if each.hash_info != self.found[place]:
                out[place] = "modified" if each.hash_info else "new"
        return out
