"""Make what turns conditions into numbers: a CLIP for text, a VAE for RNA, a vocabulary of genotypes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from histoloom.conditions.caption_length import tell_captions
from histoloom.conditions.encode import FACTS
from histoloom.conditions.expression_encoder import load_expression_encoder
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.conditions.genotype import TESTED, genotype_channels
from histoloom.conditions.rna import CODES
from histoloom.conditions.text import load_text_encoder, new_reader
from histoloom.config import Params
from histoloom.config.extractors import OF_NO_PATIENT
from histoloom.config.package import packaged
from histoloom.data.commit import write_json
from histoloom.data.expression import read_expression
from histoloom.data.genotype import parse_genotype
from histoloom.data.genotype_table import read_genotype
from histoloom.data.keys import StudyKeys, check_matches, unmatched
from histoloom.data.lineage import Lineage, read_lineage
from histoloom.data.lineage_match import grid_of
from histoloom.data.rows import spread, train_rows, val_rows
from histoloom.data.store import TileStore
from histoloom.data.tables import check_fit
from histoloom.errors import Fault, Note, notes_among, refuse_faults
from histoloom.progress import console
from histoloom.studies.stage_work import Work
from histoloom.training.clip import retrieval_recall, train_clip
from histoloom.training.curves import curves
from histoloom.training.expression_encoder import explained_variance, train_expression
from histoloom.training.loop import TrainingRun

_MOST_FEATURE_TILES = 2000


def run(work: Work) -> None:
    """Make the encoders that the conditions in use need, from the train split alone."""
    store, device, reports = work.study.real(), work.training_device(), work.reports
    makers = {"text": _text_encoder, "rna": _rna_encoder, "genotype": _genotype_encoder, "image": _image_encoder}

    def write(folder: Path) -> None:
        metrics: dict[str, object] = {}
        facts: dict[str, object] = {}
        lineage = Lineage()
        (reports / "curves").mkdir(parents=True, exist_ok=True)
        job = _EncoderJob(work, store, train_rows(store), device, folder)
        for name in [n for n in work.params.train_denoiser.conditions if n in makers]:
            made = makers[name](job)
            facts[name], metrics[name] = made.facts, made.metrics
            lineage |= made.lineage
        lineage.save(folder)
        write_json(folder / FACTS, facts)
        work.write_metrics(metrics)

    work.promote(write, work.study.encoders)


@dataclass(frozen=True)
class _EncoderJob:
    work: Work
    store: TileStore
    rows: pd.DataFrame
    device: str
    folder: Path

    @property
    def params(self) -> Params:
        return self.work.params

    @property
    def lineage(self) -> Lineage:
        """Of what is trained on these rows."""
        return Lineage.trained_on(self.rows, grid_of(self.params.tile.split))

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
            self.work.root / "checkpoints" / name,
            max(steps // 4, 1),
            device=self.device,
            warmup_steps=20,
        )


@dataclass(frozen=True)
class _Made:
    """An encoder that was made: the facts that load it, what was measured of it, and what it was trained on."""

    facts: Mapping[str, object]
    metrics: Mapping[str, object] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)


def _text_encoder(job: _EncoderJob) -> _Made:
    config = job.params.train_encoders.text
    facts: dict[str, object] = {"source": config.source, "revision": config.revision, "max_tokens": config.max_tokens}
    if config.source != "train":
        source = packaged(config.source, "encoders/text")
        reader = load_text_encoder(source, config.revision, config.max_tokens).reader
        told = tell_captions(reader, job.store.rows()["caption"], "train_encoders")
        lineage = read_lineage(Path(source).parent) if source != config.source else Lineage(unknown=(source,))
        if not Path(source).is_dir():
            return _Made(facts, told, lineage)
        shutil.copytree(source, job.folder / "text")
        return _Made(facts | {"source": "text"}, told, lineage)
    run = job.run("text", config.steps, config.learning_rate)
    with curves(job.work.reports / "curves" / "text") as log:
        train_clip(config, job.store, job.rows, replace(run, log=log), job.folder / "text")
    told = tell_captions(new_reader(config), job.store.rows()["caption"], "train_encoders")
    recall = retrieval_recall(job.folder / "text", job.store, val_rows(job.store), config.max_tokens)
    return _Made(facts | {"source": "text"}, {**told, **recall}, job.lineage)


def _rna_encoder(job: _EncoderJob) -> _Made:
    config = job.params.train_encoders.rna
    table, keys = read_expression(config), job.keys(config.key)
    job.check(check_matches(table.index, keys, config))
    train_samples = table[table.index.isin(job.rows[config.key].dropna())]
    if config.init == "train":
        run = job.run("rna", config.steps, config.learning_rate)
        with curves(job.work.reports / "curves" / "rna") as log:
            encoder = train_expression(config, train_samples, replace(run, log=log))
        lineage = job.lineage
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
    metrics: dict[str, float] = {"train_samples": len(train_samples), "tiles_without_profile": without}
    metrics |= unmatched(table.index, keys) | encoder.fit_of(table)
    for name, samples in (("train", train_samples), ("held_out", held_out)):
        if len(samples):
            metrics[f"explained_variance_{name}"] = explained_variance(encoder, samples)
    return _Made({"key": config.key}, metrics, lineage)


def _genotype_encoder(job: _EncoderJob) -> _Made:
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
    return _Made({"channels": channels}, metrics)


def _markers(channels: tuple[str, ...]) -> list[str]:
    return [channel.removesuffix(f" {TESTED}") for channel in channels if channel.endswith(f" {TESTED}")]


def _hot(text: str) -> set[str]:
    return {f"{marker} {state}" for marker, state in parse_genotype(text).items()}


def _image_encoder(job: _EncoderJob) -> _Made:
    source = job.params.train_encoders.image.source
    tower = load_extractor(source, job.device)
    features = tower.features(job.store.read(spread(job.rows, _MOST_FEATURE_TILES)))
    facts = {"source": source, "mean": features.mean(0).tolist(), "scale": (features.std(0) + 1e-6).tolist()}
    lineage = Lineage() if source in OF_NO_PATIENT else Lineage(unknown=(source,))
    return _Made(facts | {"tower": tower.record}, lineage=lineage)
