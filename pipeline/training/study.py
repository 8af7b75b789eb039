"""What the training stages do with a study: which rows, from where, to where, with which record of what was seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file

from pipeline.conditions.bus import ConditionSpec
from pipeline.conditions.encode import FACTS, study_encoders
from pipeline.conditions.features import OF_NO_PATIENT, load_extractor
from pipeline.conditions.forms import FORMS, turn
from pipeline.conditions.genotype import TESTED, genotype_channels
from pipeline.conditions.reader import tell_captions
from pipeline.conditions.rna import CODES
from pipeline.conditions.text import load_text_encoder, new_reader
from pipeline.config import Params
from pipeline.config.package import packaged
from pipeline.data.ancestry import grid_of
from pipeline.data.commit import commit_part, write_json
from pipeline.data.expression import read_expression
from pipeline.data.genotype import parse_genotype
from pipeline.data.genotype_table import read_genotype
from pipeline.data.keys import StudyKeys, check_matches, unmatched
from pipeline.data.rows import spread, train_rows, val_rows
from pipeline.data.store import TileStore
from pipeline.data.tables import check_fit, with_conditions
from pipeline.errors import Fault, Note, notes_among, refuse_faults
from pipeline.models.autoencoder import LatentCodec, load_codec
from pipeline.models.expression import load_expression_encoder
from pipeline.models.lineage import FILE as LINEAGE_FILE
from pipeline.models.lineage import Lineage, read_lineage, seen
from pipeline.progress import console, track
from pipeline.training.autoencoder import reconstruction, reconstruction_picture, train_autoencoder
from pipeline.training.clip import retrieval_recall, train_clip
from pipeline.training.curves import curves
from pipeline.training.denoiser import read_encoded, train_denoiser
from pipeline.training.expression import explained_variance, train_expression
from pipeline.training.loop import TrainingRun

_MOST_FEATURE_TILES = 2000


def train_study_encoders(
    params: Params, work, device: str, reports: Path, tiles="data/tiles", output="models/encoders"
) -> None:
    """Make the encoders that the conditions in use need, from the train split alone."""
    store, names = TileStore(tiles), params.train_denoiser.conditions
    makers = {"text": _text_encoder, "rna": _rna_encoder, "genotype": _genotype_encoder, "image": _image_encoder}

    def write(folder: Path) -> None:
        metrics, facts, lineage = {}, {}, Lineage()
        (reports / "curves").mkdir(parents=True, exist_ok=True)
        job = _EncoderJob(params, store, train_rows(store), work.root, device, reports, folder)
        for name in [n for n in names if n in makers]:
            facts[name], metrics[name], ancestors = makers[name](job)
            lineage |= ancestors
        lineage.save(folder)
        write_json(folder / FACTS, facts)
        write_json(reports / "metrics.json", metrics)

    work.promote(write, output)


@dataclass(frozen=True)
class _EncoderJob:
    params: Params
    store: TileStore
    rows: pd.DataFrame
    work: Path
    device: str
    reports: Path
    folder: Path

    @property
    def seen(self) -> Lineage:
        return seen(self.rows, grid_of(self.params.tile.split))

    def check(self, found: list[Fault | Note]) -> None:
        for note in notes_among(found):
            console.print(f"train_encoders: {note}", markup=False)
        refuse_faults(found)

    def keys(self, key: str) -> StudyKeys:
        """The samples that tiles have."""
        return StudyKeys(frozenset(self.rows[key].dropna()), frozenset(self.store.rows()[key].dropna()))

    def run(self, name: str, steps: int, learning_rate: float) -> TrainingRun:
        return TrainingRun(
            f"train_encoders: {name}",
            steps,
            learning_rate,
            self.params.seed,
            self.work / "checkpoints" / name,
            max(steps // 4, 1),
            device=self.device,
            warmup_steps=20,
        )


Made = tuple[dict, dict, Lineage]
"""What a maker of an encoder gives: the facts that load it, what was measured, and what it saw."""


def _text_encoder(job: _EncoderJob) -> Made:
    config = job.params.train_encoders.text
    facts = {"source": config.source, "revision": config.revision, "max_tokens": config.max_tokens}
    if config.source != "train":
        source = packaged(config.source, "encoders/text")
        reader = load_text_encoder(source, config.revision, config.max_tokens).reader
        metrics = tell_captions(reader, job.store.rows()["caption"], "train_encoders")
        lineage = read_lineage(Path(source).parent) if source != config.source else Lineage(unknown=(source,))
        if not Path(source).is_dir():
            return facts, metrics, lineage
        shutil.copytree(source, job.folder / "text")
        return facts | {"source": "text"}, metrics, lineage
    run = job.run("text", config.steps, config.learning_rate)
    with curves(job.reports / "curves" / "text") as log:
        train_clip(config, job.store, job.rows, job.params.seed, run, job.folder / "text", log)
    metrics = tell_captions(new_reader(config), job.store.rows()["caption"], "train_encoders")
    metrics |= retrieval_recall(job.folder / "text", job.store, val_rows(job.store), config.max_tokens)
    return facts | {"source": "text"}, metrics, job.seen


def _rna_encoder(job: _EncoderJob) -> Made:
    config = job.params.train_encoders.rna
    table, keys = read_expression(config), job.keys(config.key)
    job.check(check_matches(table.index, keys, config))
    train_samples = table[table.index.isin(job.rows[config.key].dropna())]
    if config.init == "train":
        run = job.run("rna", config.steps, config.learning_rate)
        with curves(job.reports / "curves" / "rna") as log:
            encoder = train_expression(config, train_samples, job.params.seed, run, log)
        lineage = job.seen
    else:
        source = Path(packaged(config.init, "encoders/rna"))
        job.check(check_fit(config, table, source))
        encoder = load_expression_encoder(source)
        lineage = read_lineage(source.parent)
    encoder.save(job.folder / "rna")
    encoder.codes(table).to_parquet(job.folder / "rna" / CODES)
    everyone = job.store.rows()
    held_out = table[table.index.isin(everyone[everyone["split"] != "train"][config.key].dropna())]
    without = int((~everyone[config.key].isin(table.index)).sum())
    metrics = {"train_samples": len(train_samples), "tiles_without_profile": without}
    metrics |= unmatched(table.index, keys) | encoder.fit_of(table)
    for name, samples in (("train", train_samples), ("held_out", held_out)):
        if len(samples):
            metrics[f"explained_variance_{name}"] = explained_variance(encoder, samples)
    return {"key": config.key}, metrics, lineage


def _genotype_encoder(job: _EncoderJob) -> Made:
    config = job.params.train_encoders.genotype
    genotypes, keys = read_genotype(config), job.keys(config.key)
    job.check(check_matches(genotypes.index, keys, config))
    channels = genotype_channels(genotypes)
    mine = genotypes[genotypes.index.isin(keys.train)]
    tested = {marker: sum(marker in parse_genotype(text) for text in mine) for marker in _markers(channels)}
    altered = {
        channel: sum(channel in _hot(text) for text in mine)
        for channel in channels
        if not channel.endswith(f" {TESTED}")
    }
    metrics = {"train_samples": len(mine), "tested": tested, "altered": altered} | unmatched(genotypes.index, keys)
    return {"channels": channels}, metrics, Lineage()


def _markers(channels: tuple[str, ...]) -> list[str]:
    return [channel.removesuffix(f" {TESTED}") for channel in channels if channel.endswith(f" {TESTED}")]


def _hot(text: str) -> set[str]:
    return {f"{marker} {state}" for marker, state in parse_genotype(text).items()}


def _image_encoder(job: _EncoderJob) -> Made:
    source = job.params.train_encoders.image.source
    tower = load_extractor(source, job.device)
    features = tower.features(job.store.read(spread(job.rows, _MOST_FEATURE_TILES)))
    facts = {"source": source, "mean": features.mean(0).tolist(), "scale": (features.std(0) + 1e-6).tolist()}
    return facts | {"tower": tower.record}, {}, Lineage() if source in OF_NO_PATIENT else Lineage(unknown=(source,))


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
    decoder_run = replace(
        run, title="train_autoencoder: decoder", steps=config.decoder_steps, learning_rate=config.learning_rate / 2,
        checkpoints=work.root / "decoder", resume_from=None, history=[],
    )  # fmt: skip

    def write(folder: Path) -> None:
        with curves(reports / "curves") as log:
            codec = train_autoencoder(config, store, rows, params.seed, run, decoder_run, folder, log)
        lineage = Lineage() if config.init == "scratch" else read_lineage(packaged(config.init, "autoencoder"))
        (lineage | seen(rows, grid_of(params.tile.split))).save(folder)
        images = store.read(val_rows(store))
        metrics, rebuilt = reconstruction(codec, images)
        reconstruction_picture(images, rebuilt).save(reports / "reconstruction.png")
        write_json(reports / "metrics.json", metrics)

    reports.mkdir(parents=True, exist_ok=True)
    work.promote(write, output)


def _encode_forms(codec: LatentCodec, images: np.ndarray, forms: str) -> torch.Tensor:
    """Latents (n, forms, c, h, w) of the tiles in each of their forms (conditions/forms.py).

    An autoencoder is not equivariant: a mirrored latent decodes to no tissue, so the tile is mirrored, then encoded.
    """
    return torch.stack([codec.encode(turn(images, form, rows_axis=1)) for form in range(FORMS[forms])], 1)


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
    rows, codec = with_conditions(train_rows(store), params), load_codec(autoencoder, device, params.encode.precision)
    bus = study_encoders(params, encoders, device)
    names = [part for part in store.parts if (rows["part"] == part).any()]

    def encode_part(part: str, folder: Path) -> dict:
        mine = rows[rows["part"] == part]
        batches = store.batches(mine, params.encode.batch_size)
        latents = torch.cat([_encode_forms(codec, images, params.encode.forms) for images in batches])
        arrays = {"latents": latents.numpy(), **bus.arrays(mine, partial(store.read, mine))}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "encoded.safetensors")
        return {"tiles": len(mine), "latent_std": float(latents.std())}

    for part in track(names, "encode", len(names)):
        commit_part(work.parts, part, lambda folder, part=part: encode_part(part, folder))
    lineage = read_lineage(autoencoder) | read_lineage(encoders) | seen(rows, grid_of(params.tile.split))
    specs = [asdict(spec) for spec in bus.specs()]
    work.promote_parts(names, output, {LINEAGE_FILE: lineage.record, "conditions.json": specs})


def train_study_denoiser(
    params: Params, work, device: str, reports: Path, encoded="data/encoded", output="models/denoiser"
) -> None:
    config = params.train_denoiser
    written = json.loads((Path(encoded) / "conditions.json").read_text(encoding="utf-8"))
    specs = tuple(ConditionSpec(**s | {"drop": config.drop_of(s["name"])}) for s in written)
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
        lineage = Lineage() if config.init == "scratch" else read_lineage(packaged(config.init, "denoiser"))
        (lineage | read_lineage(encoded)).save(folder)
        last = [numbers["loss"] for _, numbers in run.history[-10:]]
        mean = float(np.mean(last)) if last else None
        write_json(reports / "metrics.json", {"steps": config.steps, "loss_last_100_steps": mean})

    work.promote(write, output)
