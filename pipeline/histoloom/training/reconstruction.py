"""How well a target gives tiles back."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

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
