"""What distillation taught a denoiser, as low-rank updates that any denoiser adapted from the same model can take.

Luo et al. 2023, "LCM-LoRA: a universal Stable-Diffusion acceleration module": what spares steps, kept apart as a low-rank
difference, is added to weights that were adapted to something else. Here it is read off a model that was distilled in full.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from safetensors.torch import load_file, save_file

from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.backbones.backbone import Backbone
    from histoloom.backbones.unet import UNet
    from histoloom.config.denoiser_record import DenoiserRecord

_FOLDER = "few_steps"
RANK = 32
_WEIGHTS = "pytorch_lora_weights.safetensors"  # diffusers' own name, by which `load_lora_adapter` finds it
_FACTS = "few_steps.json"


def updated(name: str, weights: torch.Tensor) -> bool:
    """Whether a parameter is a layer's matrix or kernel, and no socket of vectors and maps, which other conditions change."""
    return weights.ndim > 1 and not name.startswith(("conv_in.", "class_embedding."))


def low_rank_difference(before: UNet, after: UNet, rank: int = RANK) -> tuple[dict[str, torch.Tensor], float]:
    """The best updates of `rank` that lead from one model's layers to the other's; sockets of conditions, biases and norms are
    left as they are.

    Returns
    -------
    lora_A (rank, in, ...) and lora_B (out, rank, ...) of each layer, in peft's names, half precision; and the fraction
    of the squared difference of these layers that is left out.
    """
    changed, first = after.network.state_dict(), before.network.state_dict()
    out, left, whole = {}, 0.0, 0.0
    for name in (n for n in first if updated(n, first[n])):
        change = (changed[name] - first[name]).float()
        u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
        r, layer = min(rank, len(s)), name.removesuffix(".weight")
        root = s[:r].sqrt()  # shared between both, so that neither leaves half precision's range
        a, b = root[:, None] * v[:r], u[:, :r] * root
        out[f"{layer}.lora_A.weight"] = a.reshape(r, *change.shape[1:]).half().contiguous()
        out[f"{layer}.lora_B.weight"] = b.reshape(*b.shape, *(1,) * (change.ndim - 2)).half().contiguous()
        left, whole = left + s[r:].square().sum().item(), whole + s.square().sum().item()
    return out, left / whole if whole else 0.0


def save_few_steps(before: UNet, after: UNet, steps: int, denoiser: Path) -> None:
    """Write the difference, and to how many steps it leads, into the folder of the denoiser `before`."""
    difference, left_out = low_rank_difference(before, after)
    folder = denoiser / _FOLDER
    folder.mkdir(exist_ok=True)
    save_file(difference, folder / _WEIGHTS)
    write_json(folder / _FACTS, FewSteps(steps=steps, rank=RANK, left_out_of_squared_difference=round(left_out, 4)))


class FewSteps(TypedDict):
    """What is kept beside the updates.

    steps : of DDIM, that a denoiser takes with them.
    left_out_of_squared_difference : fraction of it that updates of this rank leave out, 0 to 1.
    """

    steps: int
    rank: int
    left_out_of_squared_difference: float


def read_few_steps(denoiser: Path | str) -> FewSteps | None:
    """The facts of what `save_few_steps` wrote; None where it wrote nothing."""
    path = Path(denoiser) / _FOLDER / _FACTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def check_few_steps(source: Path | str) -> FewSteps:
    """Refuse params that ask `source`, a denoiser's folder, for what it hasn't; returns the facts of what it has."""
    if (facts := read_few_steps(source)) is None:
        raise HistoloomError(
            f"train_denoiser.few_steps is true, and '{source}' has no {_FOLDER}. Set it to false, or distil the model and "
            "add them with histoloom package --distilled."
        )
    return facts


def with_few_steps(model: Backbone, record: DenoiserRecord, source: Path | str) -> DenoiserRecord:
    """Add them to a packaged denoiser that is taken as it is; returns its record, by which guidance is inside.

    Raises
    ------
    HistoloomError
        when `source`, the denoiser's folder, has none.
    """
    from histoloom.backbones.unet import UNet

    if read_few_steps(source) is None or not isinstance(model, UNet):
        raise HistoloomError(f"'{source}' has no updates for few steps. Leave few_steps out.")
    training = replace(record.training, distilled=add_few_steps(model, source), guidance_inside=True)
    return replace(record, training=training)


def add_few_steps(model: UNet, source: Path | str) -> int:
    """Add what a packaged denoiser's folder holds to the weights; returns the steps of DDIM that it then takes.

    Layers whose inputs are others than the packaged model's, as text of another width makes them, are left as they are.
    """
    network, updates = model.network, load_file(Path(source) / _FOLDER / _WEIGHTS)
    shapes = {n: p.shape for n, p in network.named_parameters()}
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in updates})
    fitting = [n for n in layers if shapes[f"{n}.weight"][1:] == updates[f"{n}.lora_A.weight"].shape[1:]]
    names = [f"{layer}.lora_{half}.weight" for layer in fitting for half in "AB"]
    network.load_lora_adapter({name: updates[name].float() for name in names}, prefix=None)
    network.fuse_lora()
    network.unload_lora()
    return check_few_steps(source)["steps"]
