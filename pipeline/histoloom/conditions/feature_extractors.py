"""Feature extractors: one function loads any of them. Each is recorded by name, weights' hash, resize and normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch

from histoloom.conditions import inception
from histoloom.conditions.efficientnet_lite import IMAGENET, load_efficientnet_lite
from histoloom.conditions.loading import UNLOADABLE, hub_id
from histoloom.data.commit import sha256_file
from histoloom.errors import HistoloomError

_BATCH = 64
_Forward = Callable[[torch.Tensor], torch.Tensor]


class ExtractorRecord(TypedDict):
    """What is written of an extractor beside what was fitted to its features."""

    name: str
    weights_sha256: str
    resize_px: int
    normalisation: str
    size: int


@dataclass(frozen=True)
class Extractor:
    """A frozen network that maps tiles to features.

    forward : (n, 3, h, w) uint8 tensor to (n, d) float
    head : (d, c) weights from features to the logits of the classes that the network was trained on, without biases, as inception
        scores are computed; None where it has none
    """

    name: str
    weights_sha256: str
    resize_px: int
    normalisation: str
    size: int
    forward: _Forward
    head: np.ndarray | None = None

    @property
    def record(self) -> ExtractorRecord:
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "resize_px": self.resize_px,
            "normalisation": self.normalisation,
            "size": self.size,
        }

    def check(self, record: ExtractorRecord) -> Extractor:
        """Itself, if its weights are those of a record made when something was fitted to its features.

        Raises
        ------
        HistoloomError
            when they are others.
        """
        if record["weights_sha256"] != self.weights_sha256:
            raise HistoloomError(
                f"The weights of '{self.name}' are not those ({record['weights_sha256'][:12]}) that models here were fitted to: put "
                "these back, or train with the new ones (dvc repro -f train_encoders train_filters)."
            )
        return self

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        """(n, h, w, 3) uint8 to (n, d) float32, always in batches of one size."""
        out = []
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).permute(0, 3, 1, 2)
            padded = torch.cat([batch, batch[:1].expand(_BATCH - len(batch), -1, -1, -1)])
            out.append(self.forward(padded)[: len(batch)].float().cpu().numpy())
        return np.concatenate(out) if out else np.empty((0, self.size), np.float32)


@lru_cache(maxsize=2)
def load_extractor(name: str, device: str, weights: str | None = None) -> Extractor:
    """Load an extractor.

    Parameters
    ----------
    name : 'efficientnet-lite0' or 'efficientnet-lite2' (packaged weights), 'inception-v3' (as in the literature on FID),
        'timm:NAME' (UNI is timm:hf-hub:MahmoodLab/UNI; of a folder, timm:local-dir:FOLDER), or the image tower of a CLIP:
        of open_clip, 'hf-hub:ORG/NAME' or a folder; of transformers, 'transformers:ORG/NAME' (PLIP is transformers:vinid/plip)
        or a folder.
    weights : a file of weights, for the first four; they load their own where it is None.

    Raises
    ------
    HistoloomError
        when the weights can't be had.
    """
    try:
        if name == "efficientnet-lite0":
            return _efficientnet(name, device, weights, resize_px=96)
        if name == "efficientnet-lite2":
            return _efficientnet(name, device, weights, resize_px=128)
        if name == "inception-v3":
            return _inception(device, weights)
        if name.startswith("timm:"):
            return _timm(name, device, weights)
        if name.startswith("hf-hub:") or (Path(name) / "open_clip_config.json").is_file():
            return _open_clip(name, device)
        if name.startswith("transformers:") or (Path(name) / "config.json").is_file():
            return _transformers(name, device)
    except UNLOADABLE as error:
        raise HistoloomError(
            f"The feature extractor '{name}' could not be loaded: {error}. Of a file of weights, only tensors are read."
        ) from error
    raise HistoloomError(
        f"'{name}' is no feature extractor: there are efficientnet-lite0, efficientnet-lite2, inception-v3, timm:NAME, hf-hub:ORG/NAME "
        "(open_clip), transformers:ORG/NAME, and a folder of either CLIP."
    )


@dataclass(frozen=True)
class _Preprocessing:
    """Pictures (n, 3, h, w) uint8 to what a network takes: (n, 3, resize_px, resize_px), normalised by channel."""

    resize_px: int
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    def __call__(self, images: torch.Tensor, device: str) -> torch.Tensor:
        values, size = images.to(device).float() / 255, (self.resize_px, self.resize_px)
        values = torch.nn.functional.interpolate(values, size=size, mode=self.interpolation, antialias=True)
        if self.interpolation == "bicubic":  # which overshoots
            values = values.clamp(0, 1)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (values - mean) / std


def _efficientnet(name: str, device: str, weights: str | None, resize_px: int) -> Extractor:
    network, path = load_efficientnet_lite(name, weights)
    network.to(device).eval().requires_grad_(False)
    prepare = _Preprocessing(resize_px, *IMAGENET, interpolation="bilinear")
    return Extractor(
        name,
        sha256_file(path),
        resize_px,
        "ImageNet mean and std",
        network.num_features,
        lambda images: network.forward_features(prepare(images, device)).mean((2, 3)),
        _head(network.classifier),
    )


def _head(layer: object) -> np.ndarray:
    """(d, c) weights of the layer of classes."""
    assert isinstance(layer, torch.nn.Linear)
    return layer.weight.detach().cpu().numpy().T


def _inception(device: str, weights: str | None) -> Extractor:
    model = inception.build_inception(inception.read_weights(weights)).to(device).eval()
    return Extractor(
        "inception-v3",
        inception.SHA256,
        299,
        "[-1, 1], TensorFlow's bilinear resize",
        2048,
        lambda images: model(images.to(device))[0],
        _head(model.fc),
    )


def _timm(name: str, device: str, weights: str | None) -> Extractor:
    import timm

    options = {"checkpoint_path": weights} if weights else {"pretrained": True}
    model = timm.create_model(name.removeprefix("timm:"), num_classes=0, **options)
    settings = timm.data.resolve_model_data_config(model)
    prepare = _Preprocessing(settings["input_size"][-1], settings["mean"], settings["std"])
    return _tower(name, model, model, prepare, device)


def _open_clip(name: str, device: str) -> Extractor:
    import open_clip

    hub = name.startswith("hf-hub:")
    source = {"model_name": name, "load_weights": True} if hub else {"model_name": f"local-dir:{name}"}
    model = open_clip.create_model(**source, weights_only=True)
    settings = open_clip.get_model_preprocess_cfg(model)
    size = settings["size"][-1] if isinstance(settings["size"], (list, tuple)) else settings["size"]
    return _tower(name, model, model.encode_image, _Preprocessing(size, settings["mean"], settings["std"]), device)


def _transformers(name: str, device: str) -> Extractor:
    from transformers import AutoImageProcessor, CLIPModel, CLIPVisionConfig

    source = hub_id(name)
    model = CLIPModel.from_pretrained(source, use_safetensors=True)
    vision, settings = model.config.vision_config, AutoImageProcessor.from_pretrained(source)
    assert isinstance(vision, CLIPVisionConfig) and isinstance(vision.image_size, int)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)

    prepare = _Preprocessing(vision.image_size, settings.image_mean, settings.image_std)
    return _tower(name, model, embed, prepare, device)


def _tower(name: str, model: torch.nn.Module, embed: _Forward, prepare: _Preprocessing, device: str) -> Extractor:
    """An extractor of what `embed` makes of prepared pictures; `model` holds all of its weights."""
    model.to(device).eval().requires_grad_(False)

    def forward(images: torch.Tensor) -> torch.Tensor:
        return embed(prepare(images, device))

    with torch.inference_mode():
        size = forward(torch.zeros(1, 3, prepare.resize_px, prepare.resize_px, dtype=torch.uint8)).shape[-1]
    state = [t.detach().cpu().contiguous().numpy().tobytes() for t in model.state_dict().values()]
    return Extractor(name, sha256(b"".join(state)).hexdigest(), prepare.resize_px, "the tower's own", size, forward)
