"""Turn train tiles into data and conditions into arrays, part by part; a few of them alone, where the denoiser isn't trained."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from histoloom.conditions.encode import study_conditions
from histoloom.conditions.symmetries import SYMMETRIES, apply_symmetry
from histoloom.data.commit import commit_part
from histoloom.data.lineage import FILE as LINEAGE_FILE
from histoloom.data.lineage import Lineage, lineage_of_masks, read_lineage
from histoloom.data.lineage_match import grid_of
from histoloom.data.rows import train_rows
from histoloom.data.tables import with_conditions
from histoloom.progress import track
from histoloom.registry import registered
from histoloom.studies.stage_work import Work
from histoloom.targets.target import Target

_FEW = 16
"""Tiles that show a denoiser which is not trained what its data and conditions look like."""


def run(work: Work) -> None:
    """Cache data and condition arrays of the train split, a part for each part of the store."""
    params, study, device = work.params, work.study, work.training_device()
    config = params.train_denoiser
    store, autoencoder, encoders = study.real(), study.autoencoder, study.encoders
    rows = with_conditions(train_rows(store), params)
    target = registered("target", config.target.name).load(autoencoder, device, params.encode.precision)
    conditions = study_conditions(params, encoders, device)
    rows = rows[rows["masked"]] if "mask" in target.reads else rows
    shown = rows if config.trains else rows.head(_FEW)
    names = [part for part in store.parts if (shown["part"] == part).any()]

    def encode_part(part: str, folder: Path) -> dict:
        mine = shown[shown["part"] == part]
        size, count = params.encode.batch_size, SYMMETRIES[params.encode.symmetries] if target.mirrored else 1
        arrays = conditions.arrays(mine, partial(store.read, mine))
        batches = [mine.iloc[start : start + size] for start in range(0, len(mine), size)]
        own = ({name: store.read(rows, name) for name in target.reads} for rows in batches)
        data = torch.cat([_encode_symmetries(target, of, count) for of in (own if target.reads else (arrays,))])
        arrays = {
            "data": data.numpy(),
            **{name: values for name, values in arrays.items() if name != config.target.condition},
        }
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "encoded.safetensors")
        return {"tiles": len(mine), "std": float(data.std())}

    for part in track(names, "encode", len(names)):
        commit_part(work.parts, part, partial(encode_part, part))
    lineage = read_lineage(autoencoder) | read_lineage(encoders) | lineage_of_masks(store)
    lineage |= Lineage.trained_on(rows, grid_of(params.tile.split))
    specs = [asdict(spec) for spec in conditions.specs() if spec.name in config.conditions]
    work.promote_parts(names, study.encoded, {LINEAGE_FILE: lineage.record, "conditions.json": specs})


def _encode_symmetries(target: Target, arrays: dict[str, np.ndarray], count: int) -> torch.Tensor:
    """Data (n, count, c, h, w) of the tiles under the first `count` symmetries.

    An autoencoder is not equivariant: a mirrored latent decodes to no tissue, so the tile is mirrored, then encoded.
    """
    turned = [
        {name: np.ascontiguousarray(apply_symmetry(a, number, target.rows_axis)) for name, a in arrays.items()}
        for number in range(count)
    ]
    return torch.stack([target.encode(one) for one in turned], 1)
