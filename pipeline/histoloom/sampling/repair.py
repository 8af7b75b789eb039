"""Regions of real tiles made anew by a trained model, all else kept to the bit (Lugmayr et al. 2022, RePaint)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from histoloom.config import Sample
from histoloom.config.package import packaged, scales_of
from histoloom.config.program import Program
from histoloom.config.tile import Repair
from histoloom.data.inputs import FREE
from histoloom.data.lineage import Lineage
from histoloom.data.seeds import item_seed
from histoloom.data.study_folder import place_of
from histoloom.errors import HistoloomError
from histoloom.sampling.diffusion_model import (
    DiffusionModel,
    generator_sha256,
    lineage_of_models,
    load_unconditioned,
)
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.targets.target import Raster

_SAME_SCALE = 0.05


@dataclass(frozen=True)
class ModelRepair:
    """What makes regions anew: plain data, loaded once a process.

    models : a folder that holds autoencoder, denoiser and encoders. sha256 : theirs.
    """

    models: Path
    sha256: str
    config: Repair
    seed: int

    @property
    def lineage(self) -> Lineage:
        """What the model saw."""
        return lineage_of_models(self.models)

    def __call__(self, picture: np.ndarray, free: np.ndarray, tile_id: str) -> np.ndarray:
        """A tile (h, w, 3) uint8, anew where `free` (h, w) says so, from noise of its own and under no condition.

        Raises
        ------
        HistoloomError
            when the model makes no pictures, or none of this size.
        """
        model = _loaded(self.models, self.sha256)
        raster = _pictures(model, self.config)
        side = raster.factor * model.network.multiple
        h, w = free.shape
        if h % side or w % side:
            raise HistoloomError(
                f"tile.repair.model, {self.config.model}, makes tiles whose sides are multiples of {side} px, and tile.tile_px is {h}."
            )
        shape = (raster.channels, h // raster.factor, w // raster.factor)
        own = replace(model, record=replace(model.record, training=replace(model.record.training, shape=shape)))
        nulls = own.nulls(*shape[1:])
        steps = model.record.training.distilled or self.config.steps
        settings = Sample(scheduler="ddim", steps=steps, guidance=1.0)
        seeds = np.array([item_seed(self.seed, f"repair/{tile_id}")], np.uint64)
        rows = Rows(seeds, nulls, nulls, {"image": picture[None].copy(), FREE: free[None].astype(np.uint8)})
        program = Program.model_validate({"remake": {"edited": True, "rounds": self.config.rounds}})
        return Drawn(own, settings, rows, program).samples[0]["image"][0]


def _pictures(model: DiffusionModel, config: Repair) -> Raster:
    """The target of a model that makes pictures, also without being told anything.

    Raises
    ------
    HistoloomError
        of another model.
    """
    if not isinstance(model.target, Raster) or "image" not in model.target.makes:
        raise HistoloomError(
            f"tile.repair.model, {config.model}, makes {model.record.training.target}, no pictures. Name another."
        )
    if never := [spec.name for spec in model.specs if not spec.drop]:
        raise HistoloomError(
            f"tile.repair.model, {config.model}, never learnt to make tiles without {never[0]}, which it isn't given here. Name another."
        )
    return model.target


def repair_of(config: Repair, mpp: float, seed: int) -> ModelRepair | None:
    """What `tile.repair` names; None where it is off.

    Parameters
    ----------
    mpp : of the tiles that are repaired.

    Raises
    ------
    HistoloomError
        when there is no such model, it makes no pictures, or its tiles had another scale or a normalised stain.
    """
    if not config.is_on:
        return None
    models = Path(packaged(config.model, "denoiser")).parent
    if not (models / "denoiser").is_dir():
        several = [path.parent.name for path in sorted(Path(config.model).glob("*/denoiser"))]
        hint = f" It holds several: name one, such as {config.model}/{several[0]}." if several else ""
        raise HistoloomError(
            f"tile.repair.model names no model: {config.model}. Name a packaged model, or the models folder of a study.{hint}"
        )
    tile = place_of(models).params.tile
    scales = scales_of(str(models)) or (tile.mpp,)
    if all(abs(known / mpp - 1) > _SAME_SCALE for known in scales):
        raise HistoloomError(
            f"tile.repair.model, {config.model}, learnt tiles of {scales[0]:g} µm/px, and tile.mpp is {mpp:g}. Name another."
        )
    if tile.stain != "none":
        raise HistoloomError(
            f"tile.repair.model, {config.model}, learnt tiles under tile.stain: {tile.stain}. Name one of tiles as they are."
        )
    _pictures(_loaded(models.resolve(), generator_sha256(models)), config)
    return ModelRepair(models.resolve(), generator_sha256(models), config, seed)


@lru_cache(maxsize=1)
def _loaded(models: Path, sha256: str) -> DiffusionModel:
    return load_unconditioned(models, "cpu")
