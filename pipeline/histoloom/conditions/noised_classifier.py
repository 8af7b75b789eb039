"""A classifier of noised data: how well a label fits it, at each level of noise (Dhariwal & Nichol 2021, section 4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from histoloom.data.commit import write_json

_WEIGHTS = "model.safetensors"


class NoisedClassifier(nn.Module):
    """Residual blocks that know the time, each of which halves the sides; their mean gives the logits.

    classes : what they are of, in order. shape : (channels, h, w) of the data. widths : channels of the blocks, multiples of 8.
    """

    def __init__(self, classes: tuple[str, ...], shape: tuple[int, int, int], widths: tuple[int, ...]):
        super().__init__()
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps
        from diffusers.models.resnet import ResnetBlock2D

        self.classes, self.shape, self.widths = classes, shape, widths
        told, side = 4 * widths[0], min(shape[1:])
        self.waves = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(widths[0], told)
        self.first = nn.Conv2d(shape[0], widths[0], 3, padding=1)
        blocks = []
        for before, width in zip((widths[0], *widths), widths):
            halves = side >= 4
            blocks.append(
                ResnetBlock2D(
                    in_channels=before, out_channels=width, temb_channels=told, groups=8, groups_out=8, down=halves
                )
            )
            side = side // 2 if halves else side
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Sequential(nn.GroupNorm(8, widths[-1]), nn.SiLU())
        self.logits = nn.Linear(widths[-1], len(classes))

    def forward(self, noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Logits (b, classes) of x_t (b, c, h, w) at times (b,)."""
        told, x = self.time(self.waves(times).to(noisy.dtype)), self.first(noisy)
        for block in self.blocks:
            x = block(x, told)
        return self.logits(self.last(x).mean((2, 3)))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {"classes": self.classes, "shape": self.shape, "widths": self.widths})
        save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, folder / _WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load what `save` wrote."""
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = cls(*(tuple(facts[name]) for name in ("classes", "shape", "widths")))
        found.load_state_dict({name: value.float() for name, value in load_file(folder / _WEIGHTS).items()})
        return found
