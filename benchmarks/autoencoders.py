"""Which autoencoder a base model should have: what each rebuilds, and what a denoiser makes of its latents, at equal training and sampling time.

`python -m benchmarks.base_study DIR --choose` lays the study out; then `python -m benchmarks.autoencoders DIR --json FILE`. A broken run goes on.
KID is that of EfficientNet-Lite2's features against the val split; beside it stands that of two halves of it, slides apart.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks.systems import run
from histoloom.cli.recipe import merge
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.data.rows import held_out_rows, spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.quality.kid import kid_interval
from histoloom.sampling.diffusion_model import load_target
from histoloom.studies.dvc_yaml import study_yaml
from histoloom.training.reconstruction import reconstruction

STEPS = {"autoencoder": 700, "denoiser": 500}
SAMPLES, SAMPLING_STEPS = 512, 20
_SMALL = {"steps": STEPS["autoencoder"], "batch_size": 8, "decoder_steps": 0}


def _latents(factor: int, channels: int, width: int, unet: list[int], blocks: int = 2) -> dict:
    return {
        "train_autoencoder": {"down_factor": factor, "latent_channels": channels, "channels": width, "blocks": blocks},
        "train_denoiser": {"channels": unet},
    }


ARMS = {
    "f8c16": _latents(8, 16, 64, [96, 160, 192]),
    "f8c16-wide": _latents(8, 16, 96, [96, 160, 192]),
    "f4c4": _latents(4, 4, 64, [32, 64, 96, 128]),
    "f4c8": _latents(4, 8, 64, [32, 64, 96, 128]),
    "pixels": {
        "encode": {"mask_detail": 1},
        "train_denoiser": {"target": "pixels", "channels": [8, 16, 32, 64, 96], "attention_head_dim": 4},
        "sample": {"steps": 8},
    },
}
"""Their networks take about the same time for a tile's sample, 20 steps and decoding; pixels have fewer steps for it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=ARMS, default=[*ARMS])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    _state(asked.folder, asked.only)
    run(asked.folder, "sample")
    found = measured(Study(asked.folder), asked.only)
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _state(folder: Path, arms: list[str]) -> None:
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    merge(
        params,
        {
            "train_autoencoder": _SMALL,
            "encode": {"symmetries": "none"},
            "train_denoiser": {"steps": STEPS["denoiser"], "batch_size": 16, "ema_decay": 0.99},
            "plan": {
                "evaluation_tiles": 0,
                "requests": [{"name": name, "tiles": SAMPLES, "purpose": "evaluate", "chain": [name]} for name in arms],
            },
            "sample": {"chain": [arms[-1]], "steps": SAMPLING_STEPS},
        },
    )
    params["models"] = {name: ARMS[name] for name in arms}
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)
    (folder / "dvc.yaml").write_text(study_yaml(arms), encoding="utf-8")


def measured(study: Study, arms: list[str]) -> dict[str, dict[str, float | list[float]]]:
    """Arm to what it rebuilds of held-out tiles, and how far its samples are from them."""
    store, made = study.real(), TileStore(study.synthetic)
    held_out, rows = spread(held_out_rows(store.rows()), 2 * SAMPLES), made.rows()
    images, tower = store.read(held_out), load_extractor("efficientnet-lite2", "cpu")
    real, groups = tower.features(images), held_out["slide_id"].to_numpy()
    first, found = _half(groups), {}
    found["real"] = {"kid_of_halves": kid_interval(real[first], real[~first], groups[~first], 0)["value"]}
    for name in arms:
        model = study.of(name)
        target = load_target(model.models, read_denoiser_record(model.denoiser), "cpu")
        start = time.process_time()
        facts, rebuilt_arrays = reconstruction(target, {"image": images})
        took = time.process_time() - start
        of_samples = tower.features(made.read(rows[rows["request"] == name]))
        samples = kid_interval(of_samples, real, groups, 0)
        rebuilt = kid_interval(tower.features(rebuilt_arrays["image"]), real, groups, 0)
        found[name] = {
            "rebuilt_psnr_db": facts["psnr_db"],
            "rebuilt_kid": rebuilt["value"],
            "kid": samples["value"],
            "kid_interval": samples["interval"],
            "rebuild_ms": 1e3 * took / len(images),
            **_psnr_by_scale(held_out, images, rebuilt_arrays["image"]),
        }
    return found


def _half(groups: np.ndarray) -> np.ndarray:
    """Whole slides until half of the tiles are taken."""
    counts = pd.Series(groups).value_counts()
    names = counts.index[counts.cumsum() <= len(groups) / 2] if counts.iloc[0] <= len(groups) / 2 else counts.index[:1]
    return np.isin(groups, names)


def _psnr_by_scale(rows: pd.DataFrame, images: np.ndarray, rebuilt: np.ndarray) -> dict[str, float]:
    error = np.square(images.astype(float) - rebuilt).mean((1, 2, 3)).clip(1e-6)
    psnr = pd.Series(10 * np.log10(255**2 / error), index=rows.index)
    return {f"rebuilt_psnr_db_at_{mpp:g}": float(of.mean()) for mpp, of in psnr.groupby(rows["mpp"])}


if __name__ == "__main__":
    main()
