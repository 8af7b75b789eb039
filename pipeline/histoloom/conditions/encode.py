"""Rows to conditions: those that a study or a denoiser has, and how their arrays become a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from histoloom.conditions.batch import Conditions
from histoloom.conditions.caption_length import tell_captions
from histoloom.conditions.condition import Arrays, Condition, ReadTiles, Source
from histoloom.conditions.mask import turned_maps
from histoloom.conditions.text import TextCondition
from histoloom.config import Params
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.mapped import RowArrays
from histoloom.registry import registered

FACTS = "encoders.json"


@dataclass(frozen=True)
class ConditionSet:
    """The conditions in use, in their order."""

    conditions: tuple[Condition, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(condition.name for condition in self.conditions)

    def specs(self, drop: Callable[[str], float] = lambda _: 0.0) -> tuple[ConditionSpec, ...]:
        return tuple(ConditionSpec(c.name, c.shape, c.size, drop(c.name), tuple(c.channels)) for c in self.conditions)

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        """All conditions' arrays of rows with `label`, `caption`, `mpp` and what `tables.with_conditions` adds."""
        out: Arrays = {}
        for condition in self.conditions:
            out |= condition.arrays(rows, tiles)
        return out


def study_conditions(params: Params, folder: Path | str, device: str = "cpu") -> ConditionSet:
    """The conditions that params name; what they learnt lies in the folder that `train_encoders` wrote."""
    px = params.tile.tile_px // params.factor
    names = params.train_denoiser.encoded
    channels = {name: registered("condition", name).known_channels(params) for name in names}
    return _loaded(channels, px, Path(folder), device)


def load_conditions(specs: tuple[ConditionSpec, ...], px: int, folder: Path | str, device: str = "cpu") -> ConditionSet:
    """The conditions of a trained denoiser."""
    return _loaded({spec.name: spec.channels for spec in specs}, px, Path(folder), device)


def _loaded(channels: dict[str, tuple[str, ...]], px: int, folder: Path, device: str) -> ConditionSet:
    facts = facts_of(folder)
    sources = {name: Source(of, px, folder, facts.get(name, {}), device) for name, of in channels.items()}
    return ConditionSet(tuple(registered("condition", name).load(source) for name, source in sources.items()))


def facts_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Condition to what `train_encoders` wrote of it."""
    path = folder / FACTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def captions_read(conditions: ConditionSet, captions: Iterable[str | None], stage: str) -> dict[str, int]:
    """How much of the captions the text tower reads, as metrics. What is not read is printed. Empty without a text tower."""
    for tower in (one for one in conditions.conditions if isinstance(one, TextCondition)):
        return tell_captions(tower.reader, captions, stage)
    return {}


def batch(
    arrays: RowArrays, specs: tuple[ConditionSpec, ...], index: np.ndarray, symmetries: np.ndarray | None = None
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


def null(arrays: RowArrays, specs: tuple[ConditionSpec, ...]) -> Conditions:
    """One row in which no condition is given: zeros, and the empty caption."""
    first = np.zeros(1, np.int64)
    nulls = {s.name: np.zeros_like(arrays[s.name][first]) for s in specs if s.shape != "sequence"}
    if any(s.shape == "sequence" for s in specs):
        nulls |= {k: arrays[k][first] for k in ("text_tokens", "text_mask")} | {"text_index": first}
    return batch(nulls, specs, first)
