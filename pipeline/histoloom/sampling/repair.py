"""Regions of real tiles made anew by a trained model, all else kept to the bit (Lugmayr et al. 2022, RePaint)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from histoloom.config import Sample
from histoloom.config.package import packaged
from histoloom.config.program import Program
from histoloom.config.tile import Repair
from histoloom.data.inputs import FREE
from histoloom.data.lineage import Lineage
from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError
from histoloom.sampling.diffusion_model import (
    DiffusionModel,
    check_distilled,
    generator_sha256,
    lineage_of_models,
    load_unconditioned,
)
from histoloom.sampling.drawn import Drawn, Rows


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
        factor, multiple = model.raster.factor, model.network.multiple
        h, w = free.shape
        if h % (factor * multiple) or w % (factor * multiple):
            raise HistoloomError(
                f"tile.repair.model, {self.config.model}, makes tiles whose sides are multiples of {factor * multiple} px, and tile.tile_px is {h}."
            )
        shape = (model.raster.channels, h // factor, w // factor)
        own = replace(model, record=replace(model.record, training=replace(model.record.training, shape=shape)))
        nulls = own.nulls(*shape[1:])
        settings = Sample(scheduler="ddim", steps=self.config.steps, guidance=1.0)
        check_distilled(own.record, settings, "tile.repair")
        seeds = np.array([item_seed(self.seed, f"repair/{tile_id}")], np.uint64)
        rows = Rows(seeds, nulls, nulls, {"image": picture[None].copy(), FREE: free[None].astype(np.uint8)})
        program = Program.model_validate({"remake": {"edited": True, "rounds": self.config.rounds}})
        return Drawn(own, settings, rows, program).samples[0]["image"][0]


def repair_of(config: Repair, seed: int) -> ModelRepair | None:
    """What `tile.repair` names; None where it is off.

    Raises
    ------
    HistoloomError
        when there is no such model.
    """
    if not config.is_on:
        return None
    models = Path(packaged(config.model, "denoiser")).parent
    if not (models / "denoiser").is_dir():
        raise HistoloomError(
            f"tile.repair.model names no model: {config.model}. Name a packaged model, or the models folder of a study."
        )
    return ModelRepair(models.resolve(), generator_sha256(models), config, seed)


@lru_cache(maxsize=1)
def _loaded(models: Path, sha256: str) -> DiffusionModel:
    return load_unconditioned(models, "cpu")
