"""How well a target gives tiles back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity.metric_kid import kid_features_to_metric

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.study_folder import Study
from histoloom.registry import registered
from histoloom.targets.pixels import to_images, to_model
from histoloom.targets.target import Arrays, Target

_BATCH = 64


class Reconstruction(TypedDict, total=False):
    """Means over so many tiles: of pictures PSNR and SSIM, of other arrays the share of values that come back."""

    psnr_db: float
    ssim: float
    equal: dict[str, float]
    tiles: int


def reconstruction(target: Target, arrays: Arrays) -> tuple[Reconstruction, dict[str, np.ndarray]]:
    """What was measured of the arrays (n, h, w, ...) that a target reads, and what came back of them, shaped alike."""
    count = min((len(values) for values in arrays.values()), default=0)
    batches = [{name: of[i : i + _BATCH] for name, of in arrays.items()} for i in range(0, count, _BATCH)]
    decoded = [target.decode(target.encode(batch)) for batch in batches]
    rebuilt = {name: np.concatenate([of[name] for of in decoded]) for name in (decoded[0] if decoded else ())}
    out: Reconstruction = {"tiles": count}
    for name in sorted({*arrays} & {*rebuilt}):
        if name == "image":
            with np.errstate(divide="ignore"):  # a perfect tile has infinite PSNR
                psnr = [min(peak_signal_noise_ratio(a, b), 100.0) for a, b in zip(arrays[name], rebuilt[name])]
            ssim = [structural_similarity(a, b, channel_axis=-1) for a, b in zip(arrays[name], rebuilt[name])]
            out |= {"psnr_db": float(np.mean(psnr)), "ssim": float(np.mean(ssim))}
        else:
            out.setdefault("equal", {})[name] = float((arrays[name] == rebuilt[name]).mean())
    return out, rebuilt


def given_back(study: Study, images: np.ndarray, device: str) -> np.ndarray | None:
    """Tiles (n, h, w, 3) uint8 as the autoencoder of a study's generator gives them back, at the precision of samples; None where no latents are
    diffused, or there is no autoencoder.
    """
    name = study.params.last.train_denoiser.target.name
    if name != "latents" or not (study.autoencoder / "config.json").is_file():
        return None
    target = registered("target", name).load(study.autoencoder, device, study.params.sample.precision)
    batches = [{"image": images[i : i + _BATCH]} for i in range(0, len(images), _BATCH)]
    return np.concatenate([images[:0], *(target.decode(target.encode(batch))["image"] for batch in batches)])


def rebuilt_kid(
    rebuild: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray, device: str
) -> Callable[[], float]:
    """What measures KID (Binkowski et al. 2018) between tiles (n, h, w, 3) uint8 and what becomes of them, in EfficientNet-Lite0's features.

    rebuild : (b, 3, h, w) in [-1, 1] to the same.
    """
    tower = load_extractor("efficientnet-lite0", device)
    real, size = torch.from_numpy(tower.features(images)), max(2, min(1000, len(images) // 2))

    def measured() -> float:
        batches = [to_model(images[i : i + _BATCH], device) for i in range(0, len(images), _BATCH)]
        rebuilt = np.concatenate([to_images(rebuild(batch)) for batch in batches])
        found = kid_features_to_metric(
            torch.from_numpy(tower.features(rebuilt)),
            real,
            kid_subsets=20,
            kid_subset_size=size,
            rng_seed=0,
            verbose=False,
        )
        return float(found["kernel_inception_distance_mean"])

    return measured


def reconstruction_picture(arrays: Arrays, rebuilt: Arrays, count: int = 12) -> Image.Image:
    """Originals above, reconstructions below, of pictures or masks; white where a target has neither."""
    name = next((name for name in ("image", "mask") if name in arrays), None)
    if name is None:
        return Image.new("RGB", (32, 32), "white")
    brighter = 1 if name == "image" else 255 // max(1, int(arrays[name].max()))
    pick = np.linspace(0, len(arrays[name]) - 1, min(count, len(arrays[name]))).astype(int)
    rows = [np.concatenate(list(of[name][pick] * brighter), axis=1) for of in (arrays, rebuilt)]
    picture = Image.fromarray(np.concatenate(rows))
    return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
