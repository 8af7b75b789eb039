"""The encoder of tiles that is trained in a study without labels: a slim ResNet of timm. How it is trained: training/tile_encoder.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from histoloom.conditions.feature_extractors import Extractor
from histoloom.conditions.loading import UNLOADABLE
from histoloom.config.package import TILE_ENCODER, image_facts
from histoloom.data.commit import sha256_file, write_json
from histoloom.errors import HistoloomError

_GREY, _SPREAD = 0.5, 0.25
_LEAST_STD = 1e-3


@dataclass(frozen=True)
class EncoderSizes:
    """image_px : side to which tiles are brought. width : channels of the first stage. size : of the embedding."""

    image_px: int
    width: int
    size: int


class TileEncoder(nn.Module):
    """Tiles (b, 3, image_px, image_px) in [0, 1] to embeddings (b, size).

    A ResNet of four stages of two blocks, the form of ResNet-18 with a stem of three small convolutions. The last
    stage is as wide as the embedding.
    """

    def __init__(self, sizes: EncoderSizes):
        from timm.models.resnet import BasicBlock, ResNet

        super().__init__()
        self.sizes, width = sizes, sizes.width
        channels = (width, 2 * width, 4 * width, sizes.size)
        self.network = ResNet(
            BasicBlock,  # type: ignore[arg-type]  # timm states an instance, and takes the class
            (2, 2, 2, 2), num_classes=0, channels=channels, stem_type="deep", stem_width=max(width // 2, 4),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - _GREY) / _SPREAD)


def brought_to(images: torch.Tensor, side_px: int) -> torch.Tensor:
    """(b, 3, h, w) uint8 to (b, 3, side_px, side_px) in [0, 1]."""
    values = images.float() / 255
    if values.shape[-2:] == (side_px, side_px):
        return values
    return nn.functional.interpolate(values, size=(side_px, side_px), mode="bilinear", antialias=True)


@dataclass(frozen=True)
class FittedTileEncoder:
    """A trained encoder, with the mean and deviation (size,) of its embeddings over train tiles."""

    model: TileEncoder
    mean: np.ndarray
    std: np.ndarray

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fitted = {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}
        weights = {f"encoder.{name}": t.detach().cpu().contiguous() for name, t in self.model.state_dict().items()}
        save_file(fitted | weights, folder / "model.safetensors")
        write_json(folder / "config.json", {"_class_name": TILE_ENCODER, **asdict(self.model.sizes)})


def fitted_encoder(model: TileEncoder, features: np.ndarray) -> FittedTileEncoder:
    """An encoder with the mean and deviation of its embeddings (n, size) of train tiles."""
    # A dimension that tells nothing stays near zero.
    return FittedTileEncoder(model, features.mean(0), np.maximum(features.std(0), _LEAST_STD))


def load_tile_encoder(folder: Path) -> FittedTileEncoder:
    """Load what `FittedTileEncoder.save` wrote.

    Raises
    ------
    HistoloomError
        when the folder holds no encoder of tiles.
    """
    try:
        model = TileEncoder(EncoderSizes(**image_facts(folder)))
        state = {
            name: t.float() if t.is_floating_point() else t
            for name, t in load_file(folder / "model.safetensors").items()
        }
        fitted = {name: state.pop(name).numpy() for name in ("mean", "std")}
        model.load_state_dict({name.removeprefix("encoder."): t for name, t in state.items()})
    except (*UNLOADABLE, HistoloomError) as error:
        raise HistoloomError(
            f"{folder} holds no encoder of tiles ({str(error).splitlines()[0]}). Name a package, or the image/ folder of an earlier train_encoders, as "
            "train_encoders.image.source; or set it to train."
        ) from error
    return FittedTileEncoder(model.eval().requires_grad_(False), **fitted)


def as_extractor(model: TileEncoder, device: str, weights_sha256: str = "") -> Extractor:
    """The encoder behind the interface of feature extractors."""
    model.to(device).eval()
    side = model.sizes.image_px
    forward: Callable[[torch.Tensor], torch.Tensor] = lambda images: model(brought_to(images.to(device), side))  # noqa: E731
    return Extractor("tile encoder", weights_sha256, side, "[-2, 2]", model.sizes.size, forward)


def load_as_extractor(folder: Path, device: str) -> tuple[Extractor, np.ndarray, np.ndarray]:
    """The extractor of a folder, and the mean and deviation of its features over the tiles that it was trained on."""
    fitted = load_tile_encoder(folder)
    return as_extractor(fitted.model, device, sha256_file(folder / "model.safetensors")), fitted.mean, fitted.std
