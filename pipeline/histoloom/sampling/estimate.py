"""What it would take to sample a plan, from timing one step of one microbatch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.conditions.encode import batch, null
from histoloom.config import Params
from histoloom.config.denoiser_record import CONDITIONS_FILE
from histoloom.sampling.diffusion_model import generator_sha256, load_diffusion_model
from histoloom.sampling.drawn import Drawn, Rows


@dataclass(frozen=True)
class Cost:
    """Of a plan on one worker."""

    seconds: float
    mib_at_most: float


def estimate(
    params: Params, plan: pd.DataFrame, tiles: Callable[[str], np.ndarray], models: Path, device: str
) -> Cost | None:
    """What a plan would take.

    Parameters
    ----------
    tiles : gives the `image`, `mask` or `edge` of the plan's first microbatch.

    Returns
    -------
    The cost, or None where there is no trained denoiser yet.
    """
    if not (models / "denoiser" / CONDITIONS_FILE).is_file():
        return None
    size, first = params.plan.batch_size, plan.head(params.plan.batch_size)
    settings = (params.train_denoiser.attention, device, params.sample.precision)
    model = load_diffusion_model(models, generator_sha256(models), *settings)
    arrays = model.conditions.arrays(first, tiles)
    index = np.resize(np.arange(len(first)), size)
    given, nulls = batch(arrays, model.specs, index), null(arrays, model.specs)
    one_step = params.sample.model_copy(update={"steps": 1, "guidance_interval": (0.0, 1.0)})
    drawn = Drawn(model, one_step, Rows(np.arange(size), given, nulls))
    drawn.data()
    start = time.perf_counter()
    data = drawn.data()
    stepped = time.perf_counter()
    model.target.decode(data)
    decoded = time.perf_counter()
    per_batch = (stepped - start) * params.sample.steps + (decoded - stepped)
    tile_mib = params.tile.tile_px**2 * 3 / 2**20
    return Cost(per_batch * -(-len(plan) // size), len(plan) * tile_mib)
