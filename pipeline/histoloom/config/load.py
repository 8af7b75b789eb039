"""params.yaml and cluster.yaml read: parsed once, with what a model tells that they begin from filled in."""

from __future__ import annotations

from pathlib import Path

from histoloom.config.agreement import check_begun
from histoloom.config.cluster import Cluster
from histoloom.config.package import PACKAGED
from histoloom.config.params import Params
from histoloom.config.reading import check_section, read_yaml
from histoloom.config.taken import take
from histoloom.errors import Fault, HistoloomError, Note, faults_among


def check_params(path: Path | str = "params.yaml") -> tuple[Params | None, list[Fault | Note]]:
    """params.yaml as far as it can be read, with what the models tell that it begins from; its faults and notes.

    Params that lie in a package say how it was made: what that was begun from need not be here, and isn't asked.
    """
    written, faults = read_yaml(Path(path))
    if faults:
        return None, faults
    if (Path(path).parent / PACKAGED).is_file():
        return check_section(written, Params, Path(path))
    filled, begun = take(written)
    params, faults = check_section(filled, Params, Path(path))
    return params, check_begun(params, begun) if params else begun.faults + faults


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml; what it leaves out and a model tells that it begins from is filled in.

    Raises
    ------
    HistoloomError
        with all its faults.
    """
    params, found = check_params(path)
    return _faultless(params, faults_among(found), path)


def check_cluster(path: Path | str = "cluster.yaml") -> tuple[Cluster | None, list[Fault]]:
    """cluster.yaml as far as it can be read, with its faults; a missing file means the defaults."""
    if not Path(path).exists():
        return Cluster(), []
    written, faults = read_yaml(Path(path))
    return (None, faults) if faults else check_section(written, Cluster, Path(path))


def load_cluster(path: Path | str = "cluster.yaml") -> Cluster:
    """Read and check cluster.yaml."""
    return _faultless(*check_cluster(path), path)


def _faultless(found, faults: list[Fault], path: Path | str):
    if faults:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise HistoloomError(f"{path} has {len(faults)} fault(s):\n{lines}")
    return found
