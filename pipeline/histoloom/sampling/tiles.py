"""Tiles of a trained model under conditions that a caller states, without a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.conditions.caption_length import tell_captions
from histoloom.conditions.encode import Arrays, ConditionSet, batch, load_conditions, null
from histoloom.conditions.label import encode_labels
from histoloom.conditions.mask import mask_map
from histoloom.conditions.picture import picture_map
from histoloom.conditions.text import TextCondition
from histoloom.config import Sample
from histoloom.config.channels import EDGE, read_channels
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.config.program import Program
from histoloom.data.seeds import item_seed
from histoloom.data.slide_fields import written
from histoloom.errors import HistoloomError
from histoloom.progress import console, progress
from histoloom.registry import registered
from histoloom.sampling.diffusion_model import DiffusionModel, no_tiles
from histoloom.sampling.drawn import ASKED, FROM_NOISE, Drawn, Rows
from histoloom.sampling.given_pictures import Mask, Picture, as_ids, as_tile, name_of
from histoloom.targets.target import Raster

_BATCH = 8
"""Tiles in a forward; the last batch is padded, so that a tile doesn't depend on how many there are."""


@dataclass(frozen=True)
class Stated:
    """What a caller states of tiles: each one value for all tiles, or a sequence with one for each. None is not stated.

    like : a tile whose embedding is given. mpp : µm/px, of all tiles. cohort : column to value, of all tiles.
    """

    mask: Mask | Sequence[Mask] | None = None
    text: str | Sequence[str] | None = None
    label: str | Sequence[str] | None = None
    like: Picture | Sequence[Picture] | None = None
    mpp: float | None = None
    cohort: Mapping[str, str] | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """What is stated, to the condition that reads it."""
        reads = {
            "mask": "mask",
            "text": "text",
            "label": "label",
            "like": "image",
            "mpp": "magnification",
            "cohort": "cohort",
        }
        return {name: condition for name, condition in reads.items() if getattr(self, name) is not None}


@dataclass(frozen=True)
class TileConditions:
    """The conditions of n tiles.

    rows : `seed`, `label`, `caption`, `mpp`, `cohort`, `mask` and `like`; the last two name files, or say that something was given.
    masks : (n, px, px) class ids. like, picture : (n, px, px, 3) uint8, whose embedding or whose pixels are given. None where they aren't.
    """

    rows: pd.DataFrame
    masks: np.ndarray | None = None
    like: np.ndarray | None = None
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class Samples:
    """Synthetic tiles.

    images : as PIL pictures.
    rows : one a tile: `seed`, `label`, `caption`, `mpp` (µm/px, missing where the model chose it), `cohort` (JSON); `mask` and `like`, the
        file that was given, or 'given'; of `vary` also `input`, the number of the tile that it began from, and `strength`.
    """

    images: list[Image.Image]
    rows: pd.DataFrame

    @property
    def array(self) -> np.ndarray:
        """(n, tile_px, tile_px, 3) uint8."""
        return np.stack([np.asarray(image) for image in self.images])


@dataclass(frozen=True)
class TileSampler:
    """Makes tiles by a model of pictures or masks.

    encoders : those that were loaded so far, by condition.
    scales : that the model learnt, µm/px; none where nothing tells them.
    """

    model: DiffusionModel
    scales: tuple[float, ...] = ()
    encoders: dict[str, ConditionSet] = field(default_factory=dict, repr=False)

    @property
    def tile_px(self) -> int:
        target = self.model.target
        return self.model.record.training.px * (target.factor if isinstance(target, Raster) else 1)

    def check_makes(self, array: str) -> None:
        """Refuse a model that doesn't make this array, `image` or `mask`.

        Raises
        ------
        HistoloomError
        """
        if array not in self.model.target.makes:
            does = " and ".join(f"{name}s" for name in self.model.target.makes)
            raise HistoloomError(f"{self.model.folder} makes {does}, and no {array}s. Name another model.")

    def channels(self, condition: str) -> tuple[str, ...]:
        """What the channels of a condition stand for; none of one that the model doesn't read."""
        return self.model.record.channels.get(condition, ())

    @property
    def mask_classes(self) -> tuple[str, ...]:
        """Without the background."""
        return tuple(name for name in read_channels(self.channels("mask"))[0][1:] if name != EDGE)

    def conditions(self, stated: Stated, seeds: np.ndarray) -> TileConditions:
        """What is stated, checked and dealt out to tiles with these seeds (n,).

        Raises
        ------
        HistoloomError
            for what the model doesn't read, or can't be given.
        """
        self.check(stated)
        n, px = len(seeds), self.tile_px
        masks, likes = _for_each(stated.mask, n, "mask"), _for_each(stated.like, n, "like")
        rows = pd.DataFrame(
            {
                "seed": seeds,
                "label": _for_each(stated.label, n, "label"),
                "caption": _for_each(stated.text, n, "text"),
                "mpp": stated.mpp if stated.mpp is not None else next(iter(self.scales), None),
                "cohort": written(stated.cohort) if stated.cohort else None,
                "mask": _named(masks),
                "like": _named(likes),
            }
        ).astype({"mpp": float})
        ids: dict[int, np.ndarray] = {}
        for mask in (mask for mask in masks if mask is not None and id(mask) not in ids):
            ids[id(mask)] = as_ids(mask, px, self.mask_classes)
        return TileConditions(
            rows,
            None if stated.mask is None else np.stack([ids[id(mask)] for mask in masks]),
            None if stated.like is None else np.stack([as_tile(tile, px) for tile in likes]),
        )

    def check(self, stated: Stated) -> None:
        """Refuse what the model doesn't read, or hasn't learnt; pictures are looked at where they are read.

        Raises
        ------
        HistoloomError
        """
        known = [spec.name for spec in self.model.specs]
        for name, condition in stated.conditions.items():
            if condition not in known:
                of = condition if condition == name else f"{condition} ({name})"
                raise HistoloomError(
                    f"{self.model.folder} reads no {of}. It can be told: {', '.join(known) or 'nothing'}."
                )
        if (mpp := stated.mpp) is not None:
            if not 0 < mpp < np.inf:
                raise HistoloomError(f"mpp is {mpp}: state the scale in µm/px, such as 0.5.")
            if self.scales and not 0.99 * min(self.scales) <= mpp <= 1.01 * max(self.scales):
                learnt = ", ".join(f"{scale:g}" for scale in sorted(self.scales))
                console.print(f"sample: {mpp:g} µm/px lies outside what the model learnt ({learnt}).", markup=False)
        for column, value in (stated.cohort or {}).items():
            if f"{column}={value}" not in self.channels("cohort"):
                raise HistoloomError(
                    f"The model has not learnt '{column}={value}'. It knows {', '.join(self.channels('cohort'))}."
                )

    def arrays(self, told: TileConditions) -> Arrays:
        """Each condition's array, the null's where it isn't given."""
        arrays: Arrays = {}
        px, rows = self.model.record.training.px, told.rows
        for spec in self.model.specs:
            if spec.name == "label":
                arrays["label"] = encode_labels(rows["label"].tolist(), spec.channels)
            elif spec.shape == "sequence" or spec.name in ("magnification", "cohort"):
                arrays |= self._encoder(spec).arrays(rows, no_tiles)
            elif spec.name == "image" and told.like is not None:
                arrays |= self._encoder(spec).arrays(rows, {"image": told.like}.__getitem__)
            elif spec.name == "mask" and told.masks is not None:
                if EDGE in read_channels(spec.channels)[0]:
                    raise HistoloomError(
                        f"{self.model.folder} reads outlines of nuclei beside a mask: plan its tiles in a study."
                    )
                arrays["mask"] = mask_map(told.masks, None, spec.channels, px, px)
            elif spec.name == "picture" and told.picture is not None:
                arrays["picture"] = picture_map(told.picture, spec.channels, px, px)
            else:
                shape = (spec.size, px, px) if spec.shape == "map" else (spec.size,)
                arrays[spec.name] = np.zeros((len(rows), *shape), np.float32)
        return arrays

    def _encoder(self, spec: ConditionSpec) -> ConditionSet:
        """The condition as it was fitted, loaded once."""
        if spec.name not in self.encoders:
            px, folder = self.model.record.training.px, self.model.folder / "encoders"
            self.encoders[spec.name] = load_conditions((spec,), px, folder, self.model.device)
        return self.encoders[spec.name]

    def draw(
        self,
        rows: pd.DataFrame,
        arrays: Arrays,
        settings: Sample,
        program: Program = FROM_NOISE,
        tiles: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """What the program makes of each row, (n, ...) by name: `image` (n, tile_px, tile_px, 3) uint8, `mask`, or what it reduces to.

        Parameters
        ----------
        tiles : (n, tile_px, tile_px, 3) uint8 that the program begins from, where it does.
        """
        for tower in (c for of in self.encoders.values() for c in of.conditions if isinstance(c, TextCondition)):
            tell_captions(tower.reader, rows["caption"], "sample")
        seeds, asked = rows["seed"].to_numpy(), {n: rows[column].fillna("").to_numpy() for n, column in ASKED.items()}
        nulls, out = null(arrays, self.model.specs), list[dict[str, np.ndarray]]()
        with progress("sample", len(seeds)) if len(seeds) > _BATCH else nullcontext(_quietly) as advance:
            for start in range(0, len(seeds), _BATCH):
                count = min(_BATCH, len(seeds) - start)
                index = np.resize(np.arange(start, start + count), _BATCH)
                own = Rows(
                    seeds[index],
                    batch(arrays, self.model.specs, index),
                    nulls,
                    {} if tiles is None else {"image": tiles[index]},
                    asked={name: values[index].tolist() for name, values in asked.items()},
                )
                drawn = Drawn(self.model, settings, own, program)
                made = registered("reduce", program.reduce.name)(drawn, program.reduce)
                out.append({name: values[:count] for name, values in made.items()})
                advance(count)
        return {name: np.concatenate([made[name] for made in out]) for name in out[0]}


def _quietly(count: int) -> None:
    """In place of progress, where there is one batch: a training loop asks for one at each step."""


def tile_seeds(seed: int, n: int) -> np.ndarray:
    """(n,) uint64: that of tile i depends on `seed` and i alone."""
    return np.array([item_seed(seed, f"tile-{number:06d}") for number in range(n)], np.uint64)


def _named(given: list) -> list[str | None]:
    return [None if one is None else name_of(one, "given") for one in given]


def _for_each(given, n: int, name: str) -> list:
    """One value a tile."""
    if _is_one(given):
        return [given] * n
    if len(given) != n:
        raise HistoloomError(
            f"There are {len(given)} values of {name} for {n} tiles. Give one for all, or one for each."
        )
    return list(given)


def _is_one(given) -> bool:
    """Whether it is one value, or one picture: with channels, or without."""
    if isinstance(given, np.ndarray):
        return given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (3, 4))
    return given is None or isinstance(given, str | Path | Image.Image)
