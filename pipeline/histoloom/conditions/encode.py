"""Rows to conditions: which encoders there are, and how their arrays become a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch

from histoloom.conditions.batch import Conditions
from histoloom.conditions.caption_length import tell_captions
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.conditions.genotype import GenotypeEncoder
from histoloom.conditions.image import ImageEncoder
from histoloom.conditions.label import LabelEncoder
from histoloom.conditions.magnification import MagnificationEncoder
from histoloom.conditions.mask import MaskEncoder, turned_maps
from histoloom.conditions.rna import load_rna_encoder
from histoloom.conditions.text import TextEncoder, load_text_encoder
from histoloom.config import Params
from histoloom.config.channels import mask_channels
from histoloom.config.denoiser_record import ConditionSpec, Shape

Arrays = dict[str, np.ndarray]
FACTS = "encoders.json"


class Encoder(Protocol):
    """Turns rows into one condition's arrays.

    name, shape : of the condition.
    channels : what each channel stands for; empty of a text tower, whose channels have no names.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def channels(self) -> tuple[str, ...]: ...

    def arrays(self, rows: pd.DataFrame, tiles: Callable[[str], np.ndarray], /) -> Arrays:
        """Arrays with a row each; `tiles` gives the rows' own `image`, `mask` or `edge`."""
        ...


@dataclass(frozen=True)
class Encoders:
    """The encoders in use, in the order of their conditions."""

    encoders: tuple[Encoder, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(encoder.name for encoder in self.encoders)

    def specs(self, drop: Callable[[str], float] = lambda _: 0.0) -> tuple[ConditionSpec, ...]:
        return tuple(ConditionSpec(e.name, e.shape, _size(e), drop(e.name), tuple(e.channels)) for e in self.encoders)

    def arrays(self, rows: pd.DataFrame, tiles: Callable[[str], np.ndarray]) -> Arrays:
        """All conditions' arrays of rows with `label`, `caption`, `mpp` and what `tables.with_conditions` adds."""
        out: Arrays = {}
        for encoder in self.encoders:
            out |= encoder.arrays(rows, tiles)
        return out


def _size(encoder: Encoder) -> int:
    return encoder.width if isinstance(encoder, TextEncoder) else len(encoder.channels)


def study_encoders(params: Params, folder: Path | str, device: str = "cpu") -> Encoders:
    """The encoders that params name, those that learn from the folder that `train_encoders` wrote."""
    masks = mask_channels(params.tile.masks.classes, edges=params.encode.edges, detail=params.encode.mask_detail)
    known = {"label": params.tile.labels.classes, "mask": masks}
    px = params.tile.tile_px // params.factor
    names = params.train_denoiser.conditions
    return Encoders(tuple(_encoder(n, known.get(n, ()), px, Path(folder), device) for n in names))


def load_encoders(specs: tuple[ConditionSpec, ...], px: int, folder: Path | str, device: str = "cpu") -> Encoders:
    """The encoders of a trained denoiser's conditions."""
    return Encoders(tuple(_encoder(s.name, s.channels, px, Path(folder), device) for s in specs))


def _encoder(name: str, channels: tuple[str, ...], px: int, folder: Path, device: str) -> Encoder:
    if name == "label":
        return LabelEncoder(tuple(channels))
    if name == "mask":
        return MaskEncoder(tuple(channels), px)
    if name == "magnification":
        return MagnificationEncoder()
    if name == "rna":
        return load_rna_encoder(folder / "rna")
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))[name]
    if name == "genotype":
        return GenotypeEncoder(tuple(facts["channels"]))
    if name == "image":
        tower = load_extractor(facts["source"], device).check(facts["tower"])
        return ImageEncoder(tower, np.array(facts["mean"], np.float32), np.array(facts["scale"], np.float32))
    inside = folder / facts["source"]
    return load_text_encoder(
        str(inside) if inside.is_dir() else facts["source"], facts["revision"], facts["max_tokens"]
    )


def captions_read(encoders: Encoders, captions: Iterable[str | None], stage: str) -> dict[str, int]:
    """How much of the captions the text tower reads, as metrics. What is not read is printed. Empty without a text tower."""
    for tower in (encoder for encoder in encoders.encoders if isinstance(encoder, TextEncoder)):
        return tell_captions(tower.reader, captions, stage)
    return {}


def batch(
    arrays: Arrays, specs: tuple[ConditionSpec, ...], index: np.ndarray, symmetries: np.ndarray | None = None
) -> Conditions:
    """The conditions of rows `index`.

    Parameters
    ----------
    symmetries : (b,) the symmetry that each row's tile is shown under, so that its map is turned with it.
    """
    vectors = [torch.from_numpy(arrays[s.name][index]) for s in specs if s.shape == "vector"]
    maps = []
    for spec in (s for s in specs if s.shape == "map"):
        rows = arrays[spec.name][index]
        if symmetries is not None:
            rows = turned_maps(rows, symmetries, spec.channels)
        maps.append(torch.from_numpy(rows).float())
    tokens = mask = None
    if any(s.shape == "sequence" for s in specs):
        chosen = arrays["text_index"][index]
        tokens, mask = torch.from_numpy(arrays["text_tokens"][chosen]), torch.from_numpy(arrays["text_mask"][chosen])
    return Conditions(tokens, mask, torch.cat(vectors, 1) if vectors else None, torch.cat(maps, 1) if maps else None)


def null(arrays: Arrays, specs: tuple[ConditionSpec, ...]) -> Conditions:
    """One row in which no condition is given: zeros, and the empty caption."""
    nulls = {s.name: np.zeros_like(arrays[s.name][:1]) for s in specs if s.shape != "sequence"}
    if any(s.shape == "sequence" for s in specs):
        nulls |= {k: arrays[k][:1] for k in ("text_tokens", "text_mask")} | {"text_index": np.zeros(1, np.int64)}
    return batch(nulls, specs, np.zeros(1, np.int64))
