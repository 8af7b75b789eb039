"""An autoencoder's latents (Rombach et al. 2022), of zero mean and unit variance per channel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from histoloom.backbones.precision import set_precision
from histoloom.config.package import LATENT_SCALE, latent_scale
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.targets.autoencoder import factor_of, load_autoencoder, posterior
from histoloom.targets.pixels import to_images, to_model
from histoloom.targets.target import Arrays, Raster

if TYPE_CHECKING:
    from histoloom.targets.autoencoder import Autoencoder

_PROBE = 40


@dataclass
class Latents(Raster):
    """mean, std : (1, c, 1, 1) of the autoencoder's own latents, as measured on the train split."""

    model: Autoencoder
    mean: torch.Tensor
    std: torch.Tensor
    device: str
    reads = ("image",)
    makes = ("image",)

    @classmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        return cls.of(load_autoencoder(folder), folder, device, precision)

    @classmethod
    def of(cls, model: Autoencoder, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        """The target of an autoencoder that is loaded; the scale of its latents lies in the folder."""
        model.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]  # diffusers' wrapper of `to` loses its self
        for part in (model.encoder, model.decoder):
            set_precision(part, precision, device)
        mean, std = (values.view(1, -1, 1, 1).to(device) for values in read_latent_scale(folder))
        return cls(model, mean, std, device)

    @property
    def channels(self) -> int:
        return self.mean.shape[1]

    @property
    def factor(self) -> int:
        return factor_of(self.model)

    @torch.inference_mode()
    def encode(self, arrays: Arrays) -> torch.Tensor:
        latents = posterior(self.model, to_model(arrays["image"], self.device)).mean
        return ((latents - self.mean) / self.std).float().cpu()

    @torch.inference_mode()
    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        raw = data.to(self.device).float() * self.std + self.mean
        return {"image": to_images(self.model.decode(raw).sample)}

    @cached_property
    def reach(self) -> int | None:
        """Found by changing one latent pixel; None where something in the decoder looks at the whole tile."""
        whole, decoder = (torch.nn.GroupNorm, torch.nn.LayerNorm), self.model.decoder
        if any(isinstance(m, whole) or "Attention" in type(m).__name__ for m in decoder.modules()):
            return None
        side, middle = 2 * _PROBE + 1, _PROBE * self.factor
        latents = torch.zeros(2, self.channels, side, side, device=self.device)
        latents[1, :, _PROBE, _PROBE] = 1
        with torch.inference_mode():
            plain, changed = self.model.decode(latents).sample
        rows = torch.nonzero((plain != changed).any(0))[:, 0]
        return -(-max(middle - int(rows.min()), int(rows.max()) + 1 - middle - self.factor) // self.factor)


def save_latent_scale(folder: Path, mean: torch.Tensor, std: torch.Tensor) -> None:
    write_json(folder / LATENT_SCALE, {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()})


def read_latent_scale(folder: Path | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel, as kept beside an autoencoder."""
    if (scale := latent_scale(Path(folder))) is None:
        raise HistoloomError(
            f"'{folder}' tells no scale of its latents ({LATENT_SCALE}): set train_autoencoder.scale to measured."
        )
    mean, std = scale
    return torch.tensor(mean), torch.tensor(std)
