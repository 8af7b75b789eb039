"""A model's folder for others: weights in half precision, and no file or name of a place but what a package has."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

from histoloom.backbones.unet import WEIGHTS
from histoloom.data.commit import write_json
from histoloom.emit.redaction import FOLDER, is_path, told_source
from histoloom.errors import HistoloomError
from histoloom.progress import console

MAX_SHARD_SIZE = "5GB"
_FOLDERS = ("", "text", "rna", "image", "controlnet", "classifier")
_FILES = re.compile(
    r"(diffusion_pytorch_model|(open_clip_)?(pytorch_)?model)(\.fp16)?(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
    r"|(open_clip_|tokenizer_|preprocessor_|scheduler_)?config\.json|(latents|target|conditions|lineage|encoders)\.json"
    r"|(tokenizer|vocab|added_tokens|special_tokens_map)\.json|vocab\.txt|merges\.txt"
)
"""What of a part's folders is taken; profiles of the samples themselves (codes.parquet) are not among it."""


def copy_half(source: Path, target: Path, max_shard_size: str) -> int:
    """Copy what is known of a model's folder, its weights in half precision; returns how many there are."""
    count = 0
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        place = path.relative_to(source)
        if place.parent.as_posix().removeprefix(".") not in _FOLDERS or not _FILES.fullmatch(path.name):
            console.print(f"left out, since a package has no such file: {path}", markup=False)
            continue
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            count += _halve(path, target / place, max_shard_size)
        else:
            shutil.copy(path, target / place)
            _without_places(target / place)
    return count


def _halve(path: Path, out: Path, max_shard_size: str) -> int:
    """Copy weights in half precision, and of their metadata what frameworks ask for; returns how many there are."""
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, no mapping
    halved = {n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()}
    if bad := [n for n, t in halved.items() if not torch.isfinite(t).all()]:
        raise HistoloomError(f"{path}: '{bad[0]}' doesn't fit half precision.")
    if path.name != WEIGHTS:  # else a part already, or of an encoder, which is small
        save_file(halved, out, {"format": "pt"})
    else:
        pattern = f"{out.stem}{{suffix}}.safetensors"
        save_torch_state_dict(
            halved, out.parent, filename_pattern=pattern, max_shard_size=max_shard_size, metadata={"format": "pt"}
        )
    return sum(t.numel() for t in tensors.values())


def _without_places(path: Path) -> None:
    """Libraries write into a model's configuration from where it was loaded, which is of whoever packages it."""
    if not path.name.endswith("config.json") and path.name != "encoders.json":
        return  # the words of a tokenizer may look like paths
    stated = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "encoders.json":
        for facts in stated.values():
            if source := facts.get("source"):
                facts["source"] = source if source in ("text", "image") else told_source(source)
    if (told := _told_config(stated)) != json.loads(path.read_text(encoding="utf-8")):
        write_json(path, told)


def _told_config(value):
    """Of a configuration, all but names of places."""
    if isinstance(value, dict):
        return {k: _told_config(v) for k, v in value.items() if not k.endswith("name_or_path")}
    if isinstance(value, list):
        return [_told_config(v) for v in value]
    return FOLDER if isinstance(value, str) and len(value) > 1 and is_path(value) else value
