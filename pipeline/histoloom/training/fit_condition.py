"""The fits of conditions that train a network: a CLIP for text, a VAE for expression, an encoder of tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from histoloom.conditions.caption_length import tell_captions
from histoloom.conditions.condition import FitJob, Fitted
from histoloom.conditions.expression_encoder import load_expression_encoder
from histoloom.conditions.image import OWN, ImageCondition
from histoloom.conditions.rna import CODES
from histoloom.conditions.text import copy_text_encoder, load_text_encoder, new_reader
from histoloom.conditions.tile_encoder import as_extractor, fitted_encoder, load_tile_encoder
from histoloom.config.extractors import TRAIN
from histoloom.config.package import packaged, tile_encoder_of
from histoloom.data.expression import read_expression
from histoloom.data.keys import check_matches, unmatched
from histoloom.data.lineage import lineage_of, read_lineage
from histoloom.data.rows import spread, val_rows
from histoloom.data.tables import check_fit
from histoloom.training.clip import retrieval_recall, train_clip
from histoloom.training.curves import curves
from histoloom.training.embedding_measures import measure_embedding
from histoloom.training.expression_encoder import explained_variance, train_expression
from histoloom.training.run import TrainingRun
from histoloom.training.tile_encoder import MOST_FIT_TILES, features_of, train_tile_encoder


def fit_text(job: FitJob) -> Fitted:
    """A CLIP trained on tiles and captions, or the tower that params name."""
    config = job.params.train_encoders.text
    facts: dict[str, object] = {
        name: getattr(config, name) for name in ("source", "revision", "max_tokens", "padding", "noised")
    }
    if config.source != "train":
        source = packaged(config.source, "encoders/text", config.revision)
        reader = load_text_encoder(source, config.revision, config.max_tokens).reader
        told = tell_captions(reader, job.store.rows(["caption"])["caption"], "train_encoders")
        lineage = lineage_of(config.source, "encoders/text", config.revision)
        if not Path(source).is_dir():
            return Fitted(facts, told, lineage)
        copy_text_encoder(Path(source), job.folder / "text")
        return Fitted(facts | {"source": "text"}, told, lineage)
    run = _run(job, "text", config.steps, config.learning_rate)
    with curves(job.curves / "text") as log:
        train_clip(config, job.store, job.rows, replace(run, log=log), job.folder / "text")
    told = tell_captions(new_reader(config), job.store.rows(["caption"])["caption"], "train_encoders")
    recall = retrieval_recall(job.folder / "text", job.store, val_rows(job.store), config.max_tokens)
    return Fitted(facts | {"source": "text"}, {**told, **recall}, job.lineage)


def fit_rna(job: FitJob) -> Fitted:
    """A VAE trained on the profiles of train tiles, or the encoder that params name; and the code of every profile."""
    config = job.params.train_encoders.rna
    table, keys = read_expression(config), job.keys(config.key)
    job.check(check_matches(table.index, keys, config))
    train_samples = table[table.index.isin(job.rows[config.key].dropna())]
    if config.init == "train":
        run = _run(job, "rna", config.steps, config.learning_rate)
        with curves(job.curves / "rna") as log:
            encoder = train_expression(config, train_samples, replace(run, log=log))
        lineage = job.lineage
    else:
        source = Path(packaged(config.init, "encoders/rna"))
        job.check(check_fit(config, table, source))
        encoder = load_expression_encoder(source)
        lineage = lineage_of(config.init, "encoders/rna")
    encoder.save(job.folder / "rna")
    encoder.codes(table).to_parquet(job.folder / "rna" / CODES)
    everyone = job.store.rows(["split", config.key])
    held_out = table[table.index.isin(everyone[everyone["split"] != "train"][config.key].dropna())]
    without = int((~everyone[config.key].isin(table.index)).sum())
    metrics: dict[str, float] = {"train_samples": len(train_samples), "tiles_without_profile": without}
    metrics |= unmatched(table.index, keys) | encoder.fit_of(table)
    for name, samples in (("train", train_samples), ("held_out", held_out)):
        if len(samples):
            metrics[f"explained_variance_{name}"] = explained_variance(encoder, samples)
    return Fitted({"key": config.key}, metrics, lineage)


def fit_image(job: FitJob) -> Fitted:
    """An encoder trained on train tiles without labels, or the one that params name; of a tower from elsewhere, mean and scale."""
    config = job.params.train_encoders.image
    metrics: dict[str, object] = {}
    if config.source == TRAIN:
        run = _run(job, OWN, config.steps, config.learning_rate)
        with curves(job.curves / OWN) as log:
            run = replace(run, log=log)
            model = train_tile_encoder(config, job.store, job.rows, run)
        tower = as_extractor(model, job.device)
        encoder = fitted_encoder(model, features_of(tower, job.store, spread(job.rows, MOST_FIT_TILES)))
        metrics, lineage = {"loss": run.history[-1][1]["loss"]}, job.lineage
    elif folder := tile_encoder_of(config.source):
        encoder, lineage = load_tile_encoder(folder), read_lineage(folder.parent)
    else:
        return ImageCondition.fit(job)
    encoder.save(job.folder / OWN)
    measured = measure_embedding(encoder, job.store, job.rows, job.params.seed, job.device)
    return Fitted({"source": OWN}, {**metrics, **measured}, lineage)


def _run(job: FitJob, name: str, steps: int, learning_rate: float) -> TrainingRun:
    every = max(steps // 4, 1)
    return TrainingRun(
        f"train_encoders: {name}",
        steps,
        learning_rate,
        job.params.seed,
        job.checkpoints / name,
        every,
        device=job.device,
        warmup_steps=20,
        processes=job.processes,
    )
