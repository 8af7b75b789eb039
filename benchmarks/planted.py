"""What filters catch of tiles that nobody would take, mixed into a study's own; and what they gain by an independent judge.

Both take the folder of a study that ran to `filter`, with a test split. What was done of it lies in its `.work/planted` and is taken up again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from ruamel.yaml import YAML
from torch import nn

from benchmarks.run import chip
from histoloom.backbones.denoiser import load_denoiser, save_denoiser
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config.extractors import JUDGE
from histoloom.data.commit import write_json
from histoloom.data.plan import PLAN
from histoloom.data.rows import held_out_rows, spread, spread_by
from histoloom.data.schema import REFUSED
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.quality.filters.base import Filter, Fitting, Tiles, as_made, joined, tiles_of
from histoloom.quality.filters.filter_set import EXTRACTOR, FILTERS, load_filter_set
from histoloom.quality.filters.realism import RealismFilter
from histoloom.studies.stage_work import run_stage

FALSE_REJECTION, PLANTED_SHARE, DRAWS = 0.05, 0.2, 1000
_MOST, _SAMPLED = 300, 200
"""Real and synthetic tiles of a class that are looked at; tiles that a bad model makes."""


def planted(folder: Path, others: Path | None) -> dict:
    """KIND to FILTER to the share of planted tiles that it catches, where it rejects 5 % of real test tiles; `all`: any of them, each at its part of 5 %.

    All real tiles are as the autoencoder gives them back, so that what is caught is not merely what was scanned.
    """
    study, work = Study(folder), folder / ".work/planted"
    params, real = study.params, study.real()
    record = json.loads((study.filters / EXTRACTOR).read_text(encoding="utf-8"))
    extractor = load_extractor(record["name"], chip()).check(record)

    def some(store: TileStore, rows: pd.DataFrame) -> Tiles:
        return tiles_of(store, spread_by(rows, rows["label"], _MOST).reset_index(drop=True), extractor)

    rows = real.rows()
    train, val, test = (
        as_made(study, some(real, rows[rows["split"] == split]), chip()) for split in ("train", "val", "test")
    )
    good = joined([some(store, store.rows()) for store in study.synthetic_stores(verdicts=False)])
    fitting = Fitting(train, train.rows, list, study, work, chip(), held_out=val)
    found = {}
    for kind, make in _kinds(study, work, test, others):
        kept = work / f"{kind}.json"
        if not kept.is_file():
            bad = make()
            few = spread(bad.rows, max(1, round(PLANTED_SHARE * len(good)))).index
            mixed = joined([good, bad.part(bad.rows.index.isin(few))])
            filters = _filters(study, replace(fitting, synthetic=mixed), params.filter.use)
            write_json(kept, _caught(filters, test, bad))
        found[kind] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _kinds(study: Study, work: Path, test: Tiles, others: Path | None) -> Iterator[tuple[str, Callable[[], Tiles]]]:
    labels = sorted(test.rows["label"].dropna().unique())
    following = dict(zip(labels, [*labels[1:], *labels[:1]]))
    if len(labels) > 1:
        known = test.part(test.rows["label"].notna().to_numpy(bool))
        yield "other_class", lambda: _named(known, known.rows["label"].map(following))
    if others is not None:
        yield "other_organ", lambda: as_made(study, _pictures(others, study.params.tile.tile_px, labels, test), chip())
    if study.params.train_denoiser.steps:
        yield "early", lambda: _of_model(_copied(study, work / "early"), _train_less, test)
    yield "untrained", lambda: _of_model(_copied(study, work / "untrained"), _forget, test)


def _filters(study: Study, fitting: Fitting, use: tuple[str, ...]) -> list[Filter]:
    own = load_filter_set(study.filters).filters
    late = [FILTERS[name].fit(fitting) for name in use if FILTERS[name].of_generator]
    return [*(f for f in own if f.calibrated), *(f for f in late if f is not None)]


def _caught(filters: list[Filter], test: Tiles, bad: Tiles) -> dict[str, float]:
    found, any_real, any_bad = {}, np.zeros(len(test), bool), np.zeros(len(bad), bool)
    for filter_ in filters:
        column = "log_density_ratio" if isinstance(filter_, RealismFilter) else filter_.column
        real, planted = (filter_.scores(tiles)[column].to_numpy(float) for tiles in (test, bad))
        if np.isfinite(real).any():
            found[filter_.name] = float(_rejected(filter_, real, planted, FALSE_REJECTION).mean())
            any_bad |= _rejected(filter_, real, planted, FALSE_REJECTION / len(filters))
            any_real |= _rejected(filter_, real, real, FALSE_REJECTION / len(filters))
    return found | {"all": float(any_bad.mean()), "false_rejection_of_all": float(any_real.mean()), "tiles": len(bad)}


def _rejected(filter_: Filter, real: np.ndarray, scores: np.ndarray, fraction: float) -> np.ndarray:
    known = real[np.isfinite(real)]
    limit = np.quantile(known, 1 - fraction if filter_.high_is_bad else fraction)
    return np.asarray(filter_.rejects(scores, float(limit)))


def _named(tiles: Tiles, labels: pd.Series) -> Tiles:
    """Tiles under other labels and names, as if somebody had made them."""
    rows = tiles.rows.assign(label=labels.to_numpy(object), masked=False, split_group="planted")
    rows["tile_id"] = [f"planted-{n}" for n in range(len(rows))]
    return Tiles(tiles.images, rows, lambda _: None, tiles.extractor)


def _pictures(folder: Path, side: int, labels: list[str], like: Tiles) -> Tiles:
    """The middle of each picture in a folder, labelled in turn."""
    images = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif"))[
        :_SAMPLED
    ]:
        picture = Image.open(path).convert("RGB")
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        if min(left, top) >= 0:
            images.append(np.asarray(picture.crop((left, top, left + side, top + side))))
    if not images:
        raise SystemExit(f"{folder} holds no picture of at least {side} px a side")
    rows = like.rows.iloc[np.arange(len(images)) % len(like)].reset_index(drop=True)
    tiles = Tiles(np.stack(images), rows, lambda _: None, like.extractor)
    return _named(tiles, pd.Series([(labels or [None])[n % max(len(labels), 1)] for n in range(len(images))]))


def _copied(study: Study, folder: Path) -> Path:
    """A copy of what a study has, of whose plan some hundred tiles are left; files are linked, since stages replace them whole."""
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        skipped = shutil.ignore_patterns(
            ".work", ".git", ".dvc", "synthetic", "verdicts", "woven*", "dataset", "uplift"
        )
        shutil.copytree(study.root, part, copy_function=os.link, ignore=skipped)
        place = part / "data/plan" / PLAN
        plan = pd.read_parquet(place)
        plan = plan[plan["purpose"] != "predict"]
        parts = plan["part"].value_counts(sort=False).cumsum()
        kept = plan[plan["part"].isin(parts.index[: int((parts < _SAMPLED).sum()) + 1])]
        place.unlink()
        kept.to_parquet(place, index=False)
        part.rename(folder)
    return folder


def _of_model(folder: Path, spoil: Callable[[Path], None], like: Tiles) -> Tiles:
    if not (folder / "data/synthetic").exists():
        with chdir(folder):
            spoil(folder)
            run_stage("sample")
    store = TileStore(folder / "data/synthetic")
    made = tiles_of(store, store.rows(), like.extractor)
    return _named(made, made.rows["label"])


def _train_less(folder: Path) -> None:
    """A tenth of the steps."""
    yaml, path = YAML(), Path("params.yaml")
    stated = yaml.load(path.read_text(encoding="utf-8"))
    steps = Study().params.train_denoiser.steps
    stated.setdefault("train_denoiser", {})["steps"] = max(1, steps // 10)
    path.unlink()  # a link
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(stated, stream)
    run_stage("train_denoiser")


def _forget(folder: Path) -> None:
    """All weights that know how to be drawn are drawn anew."""
    place = Study().denoiser
    network, record = load_denoiser(place, "cpu")
    for module in network.modules():
        if isinstance(module, nn.Module) and callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    spoilt = place.with_name("spoilt")
    shutil.rmtree(spoilt, ignore_errors=True)
    save_denoiser(network, record, spoilt)
    for path in place.iterdir():
        if path.is_file() and not (spoilt / path.name).exists():
            shutil.copy(path, spoilt / path.name)
    shutil.rmtree(place)
    spoilt.rename(place)


def gain(folder: Path) -> dict:
    """KID of accepted tiles less its floor, over that of as many unfiltered ones of each label, in the judge's features; and without each filter.

    Below 1, accepted tiles are nearer to real held-out tiles. The interval draws the split groups of the real tiles, and the samples.
    """
    study, judge = Study(folder), load_extractor(JUDGE, chip())
    rows = study.real().rows()
    real = spread(held_out_rows(rows), 1000)
    made = []
    for store in study.synthetic_stores():
        of_store = store.rows()
        chosen = spread(of_store[of_store["purpose"] == "evaluate"], 1000)
        made.append((chosen, judge.features(store.read(chosen))))
    samples, features = pd.concat([r for r, _ in made]), np.concatenate([f for _, f in made])
    reasons = [set(r) - {REFUSED} for r in samples["reject_reasons"]]
    seen = judge.features(study.real().read(real))
    groups, labels = real["split_group"].to_numpy(str), samples["label"].fillna("").to_numpy(str)
    found = _over_unfiltered(features, labels, np.array([not r for r in reasons]), seen, groups)
    for name in study.params.filter.use:
        others = np.array([not r - {FILTERS[name].reason} for r in reasons])
        found |= {
            f"without.{name}": _over_unfiltered(features, labels, others, seen, groups)["accepted_over_unfiltered"]
        }
    return found


def _over_unfiltered(
    features: np.ndarray, labels: np.ndarray, accepted: np.ndarray, real: np.ndarray, groups: np.ndarray
) -> dict:
    rng, count = np.random.default_rng(0), int(accepted.sum())
    if min(count, len(real)) < 20:
        return {"accepted_over_unfiltered": float("nan"), "tiles": count}
    drawn = [
        rng.permutation(np.flatnonzero(labels == of))[: (accepted & (labels == of)).sum()] for of in np.unique(labels)
    ]
    sets = [features[accepted], features[np.concatenate(drawn)], real]
    kernels = {(a, b): _kernel(sets[a], sets[b]) for a, b in ((0, 0), (1, 1), (2, 2), (0, 2), (1, 2))}
    names, of = np.unique(groups, return_inverse=True)
    half = rng.permutation(len(names))[of] % 2 == 0 if len(names) > 1 else rng.permutation(len(of)) % 2 == 0

    def ratio(weights: list[np.ndarray]) -> float:
        halves = [weights[2] * half, weights[2] * ~half]
        floor = _mmd(kernels[2, 2], kernels[2, 2], kernels[2, 2], *halves)
        kid = [_mmd(kernels[n, n], kernels[2, 2], kernels[n, 2], weights[n], weights[2]) for n in (0, 1)]
        return (kid[0] - floor) / (kid[1] - floor)

    values = []
    for _ in range(DRAWS):
        times = [np.bincount(rng.integers(0, n, n), minlength=n).astype(float) for n in (count, count, len(names))]
        values.append(ratio([*times[:2], times[2][of]]))
    interval = [float(v) for v in np.nanquantile(values, [0.025, 0.975])]
    whole = [np.ones(count), np.ones(count), np.ones(len(of))]
    return {"accepted_over_unfiltered": float(ratio(whole)), "interval": interval, "tiles": count, "groups": len(names)}


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KID's polynomial kernel (Binkowski et al. 2018)."""
    return (first.astype(np.float64) @ second.T.astype(np.float64) / first.shape[1] + 1) ** 3


def _mmd(one: np.ndarray, other: np.ndarray, both: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared MMD of weighted tiles: a tile makes no pair with itself, however often it is drawn."""

    def within(kernel: np.ndarray, weights: np.ndarray) -> float:
        squared = np.square(weights)
        return (weights @ kernel @ weights - squared @ kernel.diagonal()) / max(
            weights.sum() ** 2 - squared.sum(), 1e-12
        )

    return (
        within(one, first)
        + within(other, second)
        - 2 * (first @ both @ second) / max(first.sum() * second.sum(), 1e-12)
    )
