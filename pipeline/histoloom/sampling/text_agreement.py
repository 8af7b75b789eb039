"""How well noised pixels agree with a caption, by a CLIP of noised tiles, and the gradient of that (Nichol et al. 2022, GLIDE, section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from histoloom.conditions.caption_length import TextReader
from histoloom.conditions.text import load_text_encoder


@dataclass(frozen=True)
class TextAgreement:
    """A CLIP of noised tiles.

    side : of the pictures that it reads, px. device : where it computes.
    """

    clip: Any
    reader: TextReader
    side: int
    device: str

    @torch.inference_mode()
    def wanted(self, captions: Sequence[str]) -> torch.Tensor:
        """Of captions, (n, d), of unit length; of one in chunks the mean of theirs. Those of the empty caption are zeros: it asks for nothing."""
        out: list[torch.Tensor | None] = []
        for caption in captions:
            chunks = [chunk for chunk in self.reader.chunks(caption or "") if chunk]
            if not chunks:
                out.append(None)
                continue
            ids = self.reader.tokenize(chunks).to(self.device)
            out.append(torch.nn.functional.normalize(self.clip.encode_text(ids, normalize=True).mean(0), dim=0))
        size = next((len(one) for one in out if one is not None), 1)
        return torch.stack([torch.zeros(size, device=self.device) if one is None else one for one in out])

    def gradient(self, noisy: torch.Tensor, times: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Of the cosine between x_t (b, 3, h, w) and what its row is to agree with (b, d), with respect to x_t. It sees no times."""
        with torch.inference_mode(False), torch.enable_grad():
            x, text = noisy.clone().requires_grad_(), wanted.clone()
            seen = (
                x
                if x.shape[-1] == self.side
                else torch.nn.functional.interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True)
            )
            cosines = (self.clip.encode_image(seen, normalize=True) * text).sum()
            return torch.autograd.grad(cosines, x)[0]


def load_text_agreement(folder: Path, device: str) -> TextAgreement:
    """Load the CLIP of an open_clip folder."""
    import open_clip

    clip = open_clip.create_model(f"local-dir:{folder}").to(device).eval().requires_grad_(False)
    side = clip.visual.image_size
    return TextAgreement(
        clip, load_text_encoder(str(folder), None).reader, side if isinstance(side, int) else side[0], device
    )
