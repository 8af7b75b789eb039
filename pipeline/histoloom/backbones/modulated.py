"""Networks whose layers are scaled and shifted by what the time, the vector and the mean token of the sequence say (Perez et al. 2018,
FiLM)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from histoloom.backbones.backbone import Backbone, Specs
from histoloom.backbones.unet import WEIGHTS
from histoloom.conditions.batch import Conditions
from histoloom.data.commit import write_json


class Modulated(Backbone):
    """told : width of what is said. vector, token : sizes of the conditions; 0 where there is none.

    sizes : what `config.json` holds, to build the network again.
    """

    sizes: dict[str, Any]

    def __init__(self, told: int, vector: int, token: int):
        super().__init__()
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        self.waves = Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(64, told)
        self.vector = nn.Linear(vector, told) if vector else None
        self.token = nn.Linear(token, told) if token else None

    def told(self, times: torch.Tensor, given: Conditions, dtype: torch.dtype) -> torch.Tensor:
        """(b, told)"""
        told = self.time(self.waves(times).to(dtype))
        if self.vector is not None and given.vector is not None:
            told = told + self.vector(given.vector)
        if self.token is not None and given.sequence is not None and given.sequence_mask is not None:
            weights = given.sequence_mask[..., None].to(given.sequence.dtype)
            told = told + self.token((given.sequence * weights).sum(1) / weights.sum(1))
        return nn.functional.silu(told)

    def save(self, folder: Path) -> None:
        write_json(folder / "config.json", {"_class_name": type(self).__name__, **self.sizes})
        save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS)


def sizes_of(specs: Specs) -> dict[str, int]:
    """How many numbers the vectors, the tokens and the maps have."""
    return {kind: sum(s.size for s in specs if s.shape == kind) for kind in ("vector", "sequence", "map")}
