"""A ControlNet (Zhang et al. 2023): a copy of a UNet's encoder that reads maps and adds to what the frozen UNet carries over.

It begins without effect: zero convolutions lie where it reads the map and where it adds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from histoloom.conditions.batch import Conditions

if TYPE_CHECKING:
    from diffusers.models import ControlNetModel, UNet2DConditionModel

FOLDER = "controlnet"
"""Where it lies in the folder of its UNet."""
_WIDTH = 32


def new_control(unet: UNet2DConditionModel, map_channels: int) -> ControlNetModel:
    """A ControlNet with the UNet's weights, for maps as large as the data."""
    from diffusers.models import ControlNetModel

    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(_WIDTH,), conditioning_channels=map_channels
    )


def load_control(denoiser: Path) -> ControlNetModel:
    """The one in a denoiser's folder."""
    from diffusers.models import ControlNetModel

    return ControlNetModel.from_pretrained(denoiser / FOLDER, use_safetensors=True, torch_dtype=torch.float32)


def control_residuals(
    control: ControlNetModel, x: torch.Tensor, times: torch.Tensor, given: Conditions
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """What is added to the UNet's skip connections, the finest first, and to its middle."""
    assert given.map is not None, "a ControlNet is given a map, or its null"
    sequence = given.sequence
    if sequence is not None and given.sequence_mask is not None:
        sequence = sequence * given.sequence_mask[..., None].to(
            sequence
        )  # it takes no mask: what is masked says nothing
    return control(
        x,
        times,
        encoder_hidden_states=sequence,
        controlnet_cond=given.map,
        class_labels=given.vector,
        return_dict=False,
    )
