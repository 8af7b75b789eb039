"""A trained denoiser made ready for other conditions and few tiles: new sockets, and low-rank weights elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from diffusers.models import UNet2DConditionModel

_LOW_RANK = r".*\.(to_q|to_k|to_v|to_out\.0|conv1|conv2|proj_in|proj_out|time_emb_proj)"
_TEXT_SOCKET = re.compile(r".*\.attn2\.to_[kv]\.weight")
Specs = tuple[ConditionSpec, ...]


def refit(model: UNet2DConditionModel, before: Specs, after: Specs) -> tuple[UNet2DConditionModel, tuple[str, ...]]:
    """A UNet with the weights of `model`, whose inputs take the conditions `after` in place of `before`.

    Channels are matched by the condition's and the channel's names; new ones start without effect, so that the model
    begins as it was. A text tower of another width gets new keys and values.

    Returns
    -------
    The model, and the names of the parameters that are new in part or whole.

    Raises
    ------
    HistoloomError
        when one of the two has text and the other has none: their blocks differ.
    """
    _check_text(before, after)
    fitted, latents = _with_inputs_for(model, after), model.config["out_channels"]
    kept = [("latents", str(c)) for c in range(latents)]
    columns = {
        "conv_in.weight": (kept + _channels(before, "map"), kept + _channels(after, "map")),
        "class_embedding.linear_1.weight": (_channels(before, "vector"), _channels(after, "vector")),
    }
    old, new, names = model.state_dict(), fitted.state_dict(), []
    for name, value in new.items():
        if name in columns and columns[name][0] != columns[name][1] and name in old:
            new[name] = _matched(old[name], *columns[name])
            names.append(name)
        elif name in old and old[name].shape == value.shape:
            new[name] = old[name]
        elif name.startswith("class_embedding"):
            new[name] = torch.zeros_like(value) if "linear_2" in name else value
            names.append(name)
        elif _TEXT_SOCKET.fullmatch(name):
            names.append(name)
        else:
            raise HistoloomError(f"train_denoiser.init holds no '{name}' of shape {tuple(value.shape)}.")
    fitted.load_state_dict(new)
    return fitted, tuple(names)


def _text_size(specs: Specs) -> int | None:
    return next((s.size for s in specs if s.shape == "sequence"), None)


def _check_text(before: Specs, after: Specs) -> None:
    had, has = (_text_size(specs) is not None for specs in (before, after))
    if had != has:
        way = "with" if had else "without"
        raise HistoloomError(
            f"train_denoiser.init was trained {way} text: adapt it {way} text in train_denoiser.conditions too."
        )


def _with_inputs_for(model: UNet2DConditionModel, specs: Specs) -> UNet2DConditionModel:
    """A new UNet of the same sizes whose inputs take these conditions."""
    from diffusers.models import UNet2DConditionModel

    config, vectors = model.config, len(_channels(specs, "vector"))
    return UNet2DConditionModel.from_config(
        dict(config)
        | {
            "in_channels": config["out_channels"] + len(_channels(specs, "map")),
            "class_embed_type": "projection" if vectors else None,
            "projection_class_embeddings_input_dim": vectors or None,
            "cross_attention_dim": _text_size(specs) or config["cross_attention_dim"],
        }
    )


def _channels(specs: Specs, shape: str) -> list[tuple[str, str]]:
    return [(s.name, c) for s in specs if s.shape == shape for c in (s.channels or map(str, range(s.size)))]


def _matched(old: torch.Tensor, before: list[tuple[str, str]], after: list[tuple[str, str]]) -> torch.Tensor:
    """The columns (axis 1) of `old` that `after` names, zeros where `before` has none."""
    place = {channel: number for number, channel in enumerate(before)}
    columns = [old[:, place[c]] if c in place else torch.zeros_like(old[:, 0]) for c in after]
    return torch.stack(columns, 1)


def add_low_rank(model: UNet2DConditionModel, rank: int, whole: tuple[str, ...]) -> None:
    """Freeze the model but for the parameters named `whole`, and add low-rank updates beside its convolutions and
    attention (Hu et al. 2021, LoRA)."""
    from peft import LoraConfig

    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_LOW_RANK))
    for name, parameter in model.named_parameters():
        if name.replace(".base_layer", "") in whole:
            parameter.requires_grad_(True)


def merge_low_rank(model: UNet2DConditionModel) -> None:
    """Add the low-rank updates to the weights that they stand beside, and take them out."""
    model.fuse_lora()
    model.unload_lora()
