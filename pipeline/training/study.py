"""What the training stages do with a study: which rows, from where, to where, with which record of what was seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from pipeline.conditions.bus import ConditionSpec
from pipeline.conditions.encode import load_encoders
from pipeline.conditions.text import load_text_encoder
from pipeline.config import Params
from pipeline.data.commit import commit_part, write_json
from pipeline.data.rows import train_rows, val_rows
from pipeline.data.store import TileStore
from pipeline.models.autoencoder import LatentCodec, load_codec
from pipeline.models.lineage import FILE as LINEAGE_FILE
from pipeline.models.lineage import Lineage, read_lineage, seen
from pipeline.progress import track
from pipeline.training.autoencoder import reconstruction, reconstruction_picture, train_autoencoder
from pipeline.training.clip import retrieval_recall, train_clip
from pipeline.training.curves import curves
from pipeline.training.denoiser import read_encoded, train_denoiser
from pipeline.training.loop import TrainingRun


def train_study_encoders(
    params: Params, work, device: str, reports: Path, tiles="data/tiles", output="models/encoders"
) -> None:
    config, store = params.train_encoders, TileStore(tiles)

    def write(folder: Path) -> None:
        metrics: dict = {"text": config.text}
        with curves(reports / "curves") as log:
            if config.text == "train":
                rows = train_rows(store)
                run = TrainingRun(
                    "train_encoders",
                    config.steps,
                    config.learning_rate,
                    params.seed,
                    work.root / "checkpoints",
                    max(config.steps // 4, 1),
                    device=device,
                    warmup_steps=20,
                )
                train_clip(config, store, rows, params.seed, run, folder / "text", log)
                seen(rows).save(folder)
                metrics |= retrieval_recall(folder / "text", store, val_rows(store))
            else:
                load_text_encoder(config.text, config.revision)
                Lineage(unknown=(config.text,)).save(folder)
        source = "text" if config.text == "train" else config.text
        write_json(folder / "encoders.json", {"text": source, "revision": config.revision})
        write_json(reports / "metrics.json", metrics)

    work.promote(write, output)


def train_study_autoencoder(
    params: Params, work, device: str, reports: Path, tiles="data/tiles", output="models/autoencoder"
) -> None:
    config, store = params.train_autoencoder, TileStore(tiles)
    rows = train_rows(store)
    run = TrainingRun(
        "train_autoencoder",
        config.steps,
        config.learning_rate,
        params.seed,
        work.root / "checkpoints",
        config.checkpoint_every,
        warmup_steps=20,
        mixed_precision=config.mixed_precision,
        device=device,
        resume_from=config.resume_from,
    )

    def write(folder: Path) -> None:
        with curves(reports / "curves") as log:
            codec = train_autoencoder(config, store, rows, params.seed, run, folder, log)
        lineage = Lineage() if config.init == "scratch" else read_lineage(config.init)
        (lineage | seen(rows)).save(folder)
        images = store.read(val_rows(store))
        metrics, rebuilt = reconstruction(codec, images)
        reconstruction_picture(images, rebuilt).save(reports / "reconstruction.png")
        write_json(reports / "metrics.json", metrics)

    reports.mkdir(parents=True, exist_ok=True)
    work.promote(write, output)


def _encode_forms(codec: LatentCodec, images: np.ndarray, flips: bool) -> torch.Tensor:
    """Latents (n, forms, c, h, w) of the tiles and, with `flips`, of their three mirrored forms.

    Tissue has no up or left; but an autoencoder is not equivariant, so that a mirrored latent decodes to no tissue.
    """
    forms = [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]] if flips else [images]
    return torch.stack([codec.encode(form) for form in forms], 1)


def encode_study(
    params: Params,
    work,
    device: str,
    tiles="data/tiles",
    encoders="models/encoders",
    autoencoder="models/autoencoder",
    output="data/encoded",
) -> None:
    """Cache latents and condition arrays of the train split, a part for each part of the store."""
    store = TileStore(tiles)
    rows, codec = train_rows(store), load_codec(autoencoder, device)
    bus = load_encoders(params.tile.labels.classes, params.train_denoiser.conditions, encoders)
    names = [part for part in store.parts if (rows["part"] == part).any()]

    def encode_part(part: str, folder: Path) -> dict:
        mine = rows[rows["part"] == part]
        batches = store.batches(mine, params.encode.batch_size)
        latents = torch.cat([_encode_forms(codec, images, params.encode.flips) for images in batches])
        arrays = {"latents": latents.numpy(), **bus.arrays(mine)}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "encoded.safetensors")
        return {"tiles": len(mine), "latent_std": float(latents.std())}

    for part in track(names, "encode", len(names)):
        commit_part(work.parts, part, lambda folder, part=part: encode_part(part, folder))
    lineage = read_lineage(autoencoder) | read_lineage(encoders) | seen(rows)
    specs = [[s.name, s.shape, s.size] for s in bus.specs(params.train_denoiser.drop)]
    work.promote_parts(names, output, {LINEAGE_FILE: lineage.record, "conditions.json": specs})


def train_study_denoiser(
    params: Params, work, device: str, reports: Path, encoded="data/encoded", output="models/denoiser"
) -> None:
    config = params.train_denoiser
    shapes = json.loads((Path(encoded) / "conditions.json").read_text(encoding="utf-8"))
    specs = tuple(ConditionSpec(name, shape, size, config.drop.get(name, 0.0)) for name, shape, size in shapes)
    run = TrainingRun(
        "train_denoiser",
        config.steps,
        config.learning_rate,
        params.seed,
        work.root / "checkpoints",
        config.checkpoint_every,
        warmup_steps=config.warmup_steps,
        ema_decay=config.ema_decay,
        mixed_precision=config.mixed_precision,
        device=device,
        resume_from=config.resume_from,
    )

    def write(folder: Path) -> None:
        with curves(reports / "curves") as log:
            train_denoiser(config, read_encoded(encoded), specs, params.seed, run, folder, log)
        lineage = Lineage() if config.init == "scratch" else read_lineage(config.init)
        (lineage | read_lineage(encoded)).save(folder)
        last = [numbers["loss"] for _, numbers in run.history[-10:]]
        write_json(reports / "metrics.json", {"steps": config.steps, "loss_last_100_steps": float(np.mean(last))})

    work.promote(write, output)
