"""Captions as a sequence: CLIP text towers of open_clip and of transformers, from a folder or a hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch

from histoloom.conditions.caption_length import TextReader
from histoloom.conditions.condition import Arrays, Condition, ReadTiles, Source
from histoloom.conditions.loading import UNLOADABLE, hub_id
from histoloom.config import Text
from histoloom.config.package import packaged
from histoloom.config.pipeline import in_pipeline
from histoloom.errors import HistoloomError

_BATCH = 64


@dataclass(frozen=True)
class TextCondition(Condition):
    """A frozen text tower.

    tokenize : captions to (n, tokens) ids
    features : ids to (n, tokens, width) float, the last layer's tokens after its norm
    padding : ids to (n, tokens) bool, True where a token is the caption's
    count : a text to the tokens that all of it takes, start and end among them; None where nobody can tell
    reads_padding : whether the denoiser reads the tokens that fill up a caption too
    """

    source: str
    width: int
    tokenize: Callable[[list[str]], torch.Tensor]
    features: Callable[[torch.Tensor], torch.Tensor]
    padding: Callable[[torch.Tensor], torch.Tensor]
    max_tokens: int | None = None
    count: Callable[[str], int] | None = None
    reads_padding: bool = False
    name = "text"
    shape = "sequence"
    column = "caption"
    channels: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def load(cls, source: Source) -> TextCondition:
        facts, inside = source.facts, source.folder / source.facts["source"]
        place = str(inside) if inside.is_dir() else facts["source"]
        tower = load_text_encoder(place, facts["revision"], facts["max_tokens"])
        return replace(tower, reads_padding=facts.get("padding") == "read")

    @property
    def size(self) -> int:
        return self.width

    @property
    def reader(self) -> TextReader:
        return TextReader(self.tokenize, self.padding, self.max_tokens, self.count)

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        """`text_tokens` (u, tokens, d) and `text_mask` (u, tokens) of the distinct captions, the null first, and
        `text_index` (n,) into them.
        """
        own = rows["caption"].fillna("")
        captions = ["", *sorted(set(own) - {""})]
        tokens, mask = self.encode(captions)
        place = {caption: index for index, caption in enumerate(captions)}
        return {
            "text_tokens": tokens.numpy(),
            "text_mask": mask.numpy(),
            "text_index": own.map(place).to_numpy(np.int64),
        }

    @torch.inference_mode()
    def encode(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed captions; the empty caption is the null.

        A caption longer than the tower reads is cut into chunks (reader.py), which are embedded apart and joined
        (Yellapragada et al. 2024, PathLDM: 154 tokens are two chunks of 77); chunks that a caption doesn't fill are
        masked.

        Returns
        -------
        (n, tokens, width) float32 and (n, tokens) bool; tokens is `max_tokens` in whole chunks, or one chunk.
        """
        reader, count = self.reader, self.reader.chunk_count
        chunked = [reader.chunks(caption or "") for caption in captions]
        ids = self.tokenize([chunk for chunks in chunked for chunk in chunks])
        features = torch.cat([self.features(ids[i : i + _BATCH]).float() for i in range(0, len(ids), _BATCH)])
        seen = torch.ones_like(ids, dtype=torch.bool) if self.reads_padding else self.padding(ids)
        mask = seen.unflatten(0, (len(captions), count))
        used = torch.tensor([[bool(chunk) or not place for place, chunk in enumerate(chunks)] for chunks in chunked])
        return features.unflatten(0, (len(captions), count)).flatten(1, 2), (mask & used[..., None]).flatten(1)


def text_reader(config: Text) -> TextReader | None:
    """What reads captions for the tower that params name; None of a hub's, which may not be here.

    Raises
    ------
    HistoloomError
        when a folder's tower can't be loaded.
    """
    if config.source == "train":
        return new_reader(config)
    hub_id(config.source)
    source = packaged(config.source, "encoders/text", config.revision)
    return load_text_encoder(source, None, config.max_tokens).reader if Path(source).is_dir() else None


def new_reader(config: Text) -> TextReader:
    """What reads captions for a tower that is trained here."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer(context_length=config.context_length)
    return TextReader(tokenizer, _up_to_the_end, config.max_tokens, _counter(tokenizer))


def _counter(tokenizer) -> Callable[[str], int]:
    """Tokens of a text by open_clip's tokenizers: CLIP's own, or one of transformers."""
    if hasattr(tokenizer, "encode"):
        return lambda text: len(tokenizer.encode(text)) + 2
    return lambda text: len(tokenizer.tokenizer(tokenizer.clean_fn(text)).input_ids)


# open_clip pads with 0, which is also a byte's token: what counts is all up to the end token, the largest id.
def _up_to_the_end(ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)


def load_text_encoder(source: str, revision: str | None = None, max_tokens: int | None = None) -> TextCondition:
    """Load a text tower.

    Parameters
    ----------
    source : a folder written by `train_encoders` or by open_clip, a folder of a transformers CLIP,
        `hf-hub:ORG/NAME` for open_clip's hub models, or `transformers:ORG/NAME` (PLIP is transformers:vinid/plip).
    revision : commit of the hub's repository.
    max_tokens : as in params, `train_encoders.text.max_tokens`.

    Raises
    ------
    HistoloomError
        when nothing can be loaded from there.
    """
    try:
        if source.startswith("transformers:"):
            return _from_transformers(hub_id(source), revision, max_tokens)
        if source.startswith("hf-hub:"):
            return _from_open_clip(_pinned(source, revision), source, max_tokens)
        if (Path(source) / "open_clip_config.json").is_file():
            return _from_open_clip(f"local-dir:{source}", source, max_tokens)
        if (Path(source) / "config.json").is_file():
            return _from_transformers(source, None, max_tokens)
    except UNLOADABLE as error:
        raise HistoloomError(
            f"The text encoder '{source}' could not be loaded: {error}\nOf a file of weights, only tensors are read. Without a hub, "
            "set train_encoders.text.source to train, or to a folder."
        ) from error
    raise HistoloomError(
        f"'{source}' is no text encoder: neither a folder with open_clip_config.json or config.json, "
        "nor hf-hub:ORG/NAME, nor transformers:ORG/NAME."
    )


def copy_text_encoder(source: Path, target: Path) -> None:
    """Copy a text tower's folder, with the tokenizer of a pipeline, so that the tower can be loaded from the copy."""
    shutil.copytree(source, target)
    if (tokenizer := _tokenizer_of(source)) != source:
        shutil.copytree(tokenizer, target, dirs_exist_ok=True)


def _tokenizer_of(folder: Path) -> Path:
    """A transformers tower's folder, or of a pipeline the one beside it that holds the tokenizer."""
    beside = folder.parent / "tokenizer"
    return beside if in_pipeline(folder) and beside.is_dir() else folder


def _pinned(source: str, revision: str | None) -> str:
    """open_clip takes a revision as `hf-hub:ORG/NAME@REVISION`."""
    return source if revision is None or "@" in source else f"{source}@{revision}"


def _from_open_clip(name: str, source: str, max_tokens: int | None) -> TextCondition:
    import open_clip

    load = {"load_weights": True} if name.startswith("hf-hub:") else {}
    model = open_clip.create_model(name, weights_only=True, **load)
    tower = getattr(model, "text", model).eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer(name)
    if hasattr(tower, "token_embedding"):
        return _clip_tower(source, tower, tokenizer, max_tokens)
    if hasattr(tower, "transformer") and hasattr(tower.transformer, "config"):
        return _hf_tower(source, tower, tokenizer, max_tokens)
    raise HistoloomError(
        f"The text tower of '{source}' is a {type(tower).__name__}; CLIP's transformer and those of transformers are "
        "supported."
    )


def _clip_tower(source: str, tower, tokenizer, max_tokens: int | None) -> TextCondition:
    def features(ids: torch.Tensor) -> torch.Tensor:
        x = tower.token_embedding(ids) + tower.positional_embedding[: ids.shape[1]]
        return tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[: ids.shape[1], : ids.shape[1]]))

    width = tower.ln_final.weight.shape[0]
    return TextCondition(source, width, tokenizer, features, _up_to_the_end, max_tokens, _counter(tokenizer))


def _hf_tower(source: str, tower, tokenizer, max_tokens: int | None) -> TextCondition:
    """The tower of CLIPs such as BiomedCLIP, whose text is read by a BERT."""
    pad = tower.config.pad_token_id or 0

    def padding(ids: torch.Tensor) -> torch.Tensor:
        return ids != pad

    def features(ids: torch.Tensor) -> torch.Tensor:
        return tower.transformer(input_ids=ids, attention_mask=padding(ids).long()).last_hidden_state

    width = tower.config.hidden_size
    return TextCondition(source, width, tokenizer, features, padding, max_tokens, _counter(tokenizer))


def _from_transformers(name: str, revision: str | None, max_tokens: int | None) -> TextCondition:
    from transformers import AutoTokenizer, CLIPTextModel

    # None is "main" to it, which its type of `revision` doesn't say.
    at = revision or "main"
    tokenizer = AutoTokenizer.from_pretrained(str(_tokenizer_of(Path(name))), revision=at, trust_remote_code=False)
    loaded = CLIPTextModel.from_pretrained(
        name, revision=at, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    model = loaded.eval().requires_grad_(False)
    length = model.config.max_position_embeddings

    def tokenize(captions: list[str]) -> torch.Tensor:
        return tokenizer(
            captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids

    # The end token also pads, and older CLIPs' configs misstate its id: the tokenizer knows it.
    def padding(ids: torch.Tensor) -> torch.Tensor:
        first_end = (ids == tokenizer.eos_token_id).int().argmax(-1, keepdim=True)
        return torch.arange(ids.shape[1]) <= first_end

    return TextCondition(
        name,
        model.config.hidden_size,
        tokenize,
        lambda ids: model(input_ids=ids).last_hidden_state,
        padding,
        max_tokens,
        lambda text: len(tokenizer(text).input_ids),
    )
