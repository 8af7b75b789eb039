"""The files that make a package a folder of diffusers: `model_index.json`, and its scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.config.package import MODEL_INDEX, read_json
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.process.process import Process
from histoloom.registry import registered

PIPELINE = "HistoloomPipeline"
"""What `import histoloom` adds to diffusers."""
_CLASSES = {"autoencoder": ("AutoencoderKL", "AutoencoderTiny"), "denoiser": ("UNet2DConditionModel",)}


def write_model_index(folder: Path) -> None:
    """Let diffusers open a package: name its parts that are classes of diffusers, and state its forward process as a scheduler.

    Raises
    ------
    HistoloomError
        when the package has no denoiser.
    """
    record = read_denoiser_record(folder / "denoiser")
    if record is None:
        raise HistoloomError(f"{folder} holds no denoiser of histoloom's.")
    scheduler = folder / "scheduler"
    Process.of(record.training).save(scheduler, registered("target", record.training.target).bound)
    state = {"scheduler": ["diffusers", read_json(scheduler / "scheduler_config.json")["_class_name"]]}
    parts = {part: ["diffusers", name] if (name := standard_class(folder, part)) else [None, None] for part in _CLASSES}
    version = read_json(scheduler / "scheduler_config.json")["_diffusers_version"]
    index: dict[str, Any] = {"_class_name": PIPELINE, "_diffusers_version": version, **parts, **state}
    write_json(folder / MODEL_INDEX, index)


def standard_class(folder: Path, part: str) -> str | None:
    """The class of diffusers that opens a package's `autoencoder` or `denoiser` by itself; None where none does."""
    path = folder / part / "config.json"
    name = read_json(path).get("_class_name") if path.is_file() else None
    record = read_denoiser_record(folder / "denoiser")
    spade = (
        part == "denoiser" and record is not None and record.training.map_input == "spade"
    )  # which has norms of its own
    return name if name in _CLASSES[part] and not spade else None
