"""Captions as a sequence: one door for CLIP text towers of open_clip and of transformers, from a folder or a hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import HistoloomError

_BATCH = 64


@dataclass(frozen=True)
class TextEncoder:
    """A frozen text tower.

    tokenize : captions to (n, tokens) ids
    features : ids to (n, tokens, width) float, the last layer's tokens after its norm
    padding : ids to (n, tokens) bool, True where a token is the caption's
    """

    source: str
    width: int
    tokenize: Callable[[list[str]], torch.Tensor]
    features: Callable[[torch.Tensor], torch.Tensor]
    padding: Callable[[torch.Tensor], torch.Tensor]

    @torch.inference_mode()
    def encode(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed captions; the empty caption is the null.

        Returns
        -------
        (n, tokens, width) float32 and (n, tokens) bool
        """
        ids = self.tokenize([caption or "" for caption in captions])
        features = [self.features(ids[i : i + _BATCH]).float() for i in range(0, len(ids), _BATCH)]
        return torch.cat(features), self.padding(ids)


def load_text_encoder(source: str, revision: str | None = None) -> TextEncoder:
    """Load a text tower.

    Parameters
    ----------
    source : a folder written by `train_encoders` or by open_clip, a folder of a transformers CLIP,
        `hf-hub:ORG/NAME` for open_clip's hub models, or `transformers:ORG/NAME` (PLIP is transformers:vinid/plip).
    revision : of the transformers hub model.

    Raises
    ------
    HistoloomError
        when nothing can be loaded from there.
    """
    try:
        if source.startswith("transformers:"):
            return _from_transformers(source.removeprefix("transformers:"), revision)
        if source.startswith("hf-hub:"):
            return _from_open_clip(source, source)
        if (Path(source) / "open_clip_config.json").is_file():
            return _from_open_clip(f"local-dir:{source}", source)
        if (Path(source) / "config.json").is_file():
            return _from_transformers(source, None)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise HistoloomError(
            f"The text encoder '{source}' could not be loaded: {error}\nWithout a hub, set "
            "train_encoders.text to train, or to a folder."
        ) from error
    raise HistoloomError(
        f"'{source}' is no text encoder: neither a folder with open_clip_config.json or config.json, "
        "nor hf-hub:ORG/NAME, nor transformers:ORG/NAME."
    )


def _from_open_clip(name: str, source: str) -> TextEncoder:
    import open_clip

    model = (
        open_clip.create_model(name, load_weights=True) if name.startswith("hf-hub:") else open_clip.create_model(name)
    )
    tower = getattr(model, "text", model).eval().requires_grad_(False)
    if not hasattr(tower, "token_embedding"):
        raise HistoloomError(
            f"The text tower of '{source}' is a {type(tower).__name__}; CLIP transformers are supported so far."
        )
    tokenizer = open_clip.get_tokenizer(name)

    def features(ids: torch.Tensor) -> torch.Tensor:
        x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
        return tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[: ids.shape[1], : ids.shape[1]]))

    # open_clip pads with 0, which is also a byte's token: what counts is all up to the end token, the largest id.
    def padding(ids: torch.Tensor) -> torch.Tensor:
        return torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)

    return TextEncoder(source, tower.ln_final.weight.shape[0], tokenizer, features, padding)


def _from_transformers(name: str, revision: str | None) -> TextEncoder:
    from transformers import AutoTokenizer, CLIPTextModel

    options = {"revision": revision, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    model = CLIPTextModel.from_pretrained(name, use_safetensors=True, **options).eval().requires_grad_(False)
    length = model.config.max_position_embeddings

    def tokenize(captions: list[str]) -> torch.Tensor:
        return tokenizer(
            captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids

    end = model.config.eos_token_id

    def padding(ids: torch.Tensor) -> torch.Tensor:
        first_end = (ids == end).int().argmax(-1, keepdim=True)
        return torch.arange(ids.shape[1]) <= first_end

    return TextEncoder(
        name, model.config.hidden_size, tokenize, lambda ids: model(input_ids=ids).last_hidden_state, padding
    )
