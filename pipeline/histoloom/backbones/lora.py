"""A trained denoiser made ready for other conditions and few tiles: new sockets, and low-rank weights elsewhere."""

from __future__ import annotations

import re

import torch

from histoloom.conditions.batch import ConditionSpec
from histoloom.errors import HistoloomError

_LOW_RANK = r".*\.(to_q|to_k|to_v|to_out\.0|conv1|conv2|proj_in|proj_out|time_emb_proj)"
_TEXT_SOCKET = re.compile(r".*\.attn2\.to_[kv]\.weight")
Specs = tuple[ConditionSpec, ...]


def refit(model: torch.nn.Module, before: Specs, after: Specs) -> tuple[torch.nn.Module, tuple[str, ...]]:
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
    from diffusers import UNet2DConditionModel

    texts = [next((s.size for s in specs if s.shape == "sequence"), None) for specs in (before, after)]
    if (texts[0] is None) != (texts[1] is None):
        raise HistoloomError(
            f"train_denoiser.init was trained {'without' if texts[0] is None else 'with'} text: adapt it "
            f"{'without' if texts[0] is None else 'with'} text in train_denoiser.conditions too."
        )
    latents = model.config.out_channels
    vectors, maps = ([_channels(specs, shape) for specs in (before, after)] for shape in ("vector", "map"))
    changed = dict(model.config) | {
        "in_channels": latents + len(maps[1]),
        "class_embed_type": "projection" if vectors[1] else None,
        "projection_class_embeddings_input_dim": len(vectors[1]) or None,
        "cross_attention_dim": texts[1] or model.config.cross_attention_dim,
    }
    fitted = UNet2DConditionModel.from_config(changed)
    old, new, names = model.state_dict(), fitted.state_dict(), []
    kept = [("latents", str(c)) for c in range(latents)]
    columns = {
        "conv_in.weight": (kept + maps[0], kept + maps[1]),
        "class_embedding.linear_1.weight": tuple(vectors),
    }
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


def _channels(specs: Specs, shape: str) -> list[tuple[str, str]]:
    return [(s.name, c) for s in specs if s.shape == shape for c in (s.channels or map(str, range(s.size)))]


def _matched(old: torch.Tensor, before: list, after: list) -> torch.Tensor:
    """The columns (axis 1) of `old` that `after` names, zeros where `before` has none."""
    place = {channel: number for number, channel in enumerate(before)}
    columns = [old[:, place[c]] if c in place else torch.zeros_like(old[:, 0]) for c in after]
    return torch.stack(columns, 1)


def add_low_rank(model: torch.nn.Module, rank: int, whole: tuple[str, ...]) -> None:
    """Freeze the model but for the parameters named `whole`, and add low-rank updates beside its convolutions and
    attention (Hu et al. 2021, LoRA)."""
    from peft import LoraConfig

    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_LOW_RANK))
    for name, parameter in model.named_parameters():
        if name.replace(".base_layer", "") in whole:
            parameter.requires_grad_(True)


def merge_low_rank(model: torch.nn.Module) -> None:
    """Add the low-rank updates to the weights that they stand beside, and take them out."""
    model.fuse_lora()
    model.unload_lora()
