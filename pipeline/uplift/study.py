"""What the `uplift` stage does with a study."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import Params
from pipeline.data.commit import commit_part, digest, write_json
from pipeline.data.rows import held_out_rows
from pipeline.data.store import MADE, TileStore, made_stores
from pipeline.errors import HistoloomError
from pipeline.progress import console
from pipeline.uplift.analysis import analyse
from pipeline.uplift.learner import learn, predict, run_command
from pipeline.uplift.protocol import Run, choose, protocol_of, runs_of

PREDICTIONS = "predictions.parquet"
ATTEMPTS = Path(".histoloom/uplift.jsonl")
_LEAST_TEST = 10


@dataclass(frozen=True)
class UpliftPart:
    """One task of `uplift`: plain data, with paths that every worker can read."""

    run: Run
    tiles: Path
    made: tuple[Path, ...]
    verdicts: Path
    params: Params
    device: str
    parts: Path
    work: Path


@dataclass(frozen=True)
class _Tiles:
    """Labelled rows and the stores that their images lie in."""

    real: TileStore
    made: list[TileStore]
    train: pd.DataFrame
    synthetic: pd.DataFrame
    test: pd.DataFrame
    classes: tuple[str, ...]

    def images(self, rows: pd.DataFrame) -> np.ndarray:
        """Of rows of any of the stores, in their order, (n, h, w, 3) uint8."""
        parts = [(store, rows[rows["store"] == number]) for number, store in enumerate([self.real, *self.made])]
        found = [store.read(part) for store, part in parts if len(part)]
        order = np.argsort(np.concatenate([np.flatnonzero(rows["store"] == n) for n in range(len(parts))]))
        return np.concatenate(found)[order]


def _load(params: Params, tiles: Path, made: Sequence[Path], verdicts: Path) -> _Tiles:
    real = TileStore(tiles)
    rows = real.rows().assign(store=0)
    labelled = rows[rows["label"].isin(params.tile.labels.classes)]
    train = labelled[labelled["split"] == "train"]
    classes = tuple(c for c in params.tile.labels.classes if (train["label"] == c).any())
    stores = made_stores(made, rows_from=verdicts)
    synthetic = [store.rows().assign(store=number) for number, store in enumerate(stores, 1)]
    synthetic = (
        pd.concat(synthetic, ignore_index=True) if synthetic else train.head(0).assign(accepted=True, purpose="")
    )
    kept = synthetic["accepted"].astype(bool) & (synthetic["purpose"] == "augment") & synthetic["label"].isin(classes)
    test = held_out_rows(rows)
    test = test[test["label"].isin(classes)]
    return _Tiles(
        real,
        stores,
        train.reset_index(drop=True),
        synthetic[kept].reset_index(drop=True),
        test.reset_index(drop=True),
        classes,
    )


def uplift_part(job: UpliftPart) -> dict:
    """Train one classifier and predict the test tiles with it, unless that was done."""
    return commit_part(job.parts, job.run.name, lambda folder: _write_predictions(job, folder))["info"]


uplift_part.uses_torch = True


def _write_predictions(job: UpliftPart, folder: Path) -> dict:
    config, data = job.params.uplift, _load(job.params, job.tiles, job.made, job.verdicts)
    real, synthetic = choose(job.run, data.train, data.synthetic, job.params.seed)
    rows = pd.concat([real, synthetic], ignore_index=True)
    images, test = data.images(rows), data.images(data.test)
    seed = int(digest([job.params.seed, job.run.seed])[:7], 16)
    if config.command:
        found = run_command(
            config,
            images,
            rows["label"].tolist(),
            test,
            data.test["tile_id"].tolist(),
            data.classes,
            seed,
            job.work / job.run.name,
        )
    else:
        truth = rows["label"].map({name: number for number, name in enumerate(data.classes)}).to_numpy(np.int64)
        model = learn(
            config, images, truth, len(data.classes), classical=job.run.classical, seed=seed,
            work=job.work / job.run.name, device=job.device,
        )  # fmt: skip
        found = predict(model, test, config.image_px, job.device)
    pd.DataFrame(found, columns=list(data.classes)).assign(tile_id=data.test["tile_id"]).to_parquet(
        folder / PREDICTIONS
    )
    return {"real": len(real), "synthetic": len(synthetic)}


def uplift_study(
    params: Params,
    work,
    device: str,
    pool: Callable[[int], AbstractContextManager],
    tiles: Path = Path("data/tiles"),
    made: Sequence[Path | str] = MADE,
    verdicts: Path = Path("data/verdicts"),
    output: Path | str = "data/uplift",
    reports: Path = Path("reports/uplift"),
    attempts: Path = ATTEMPTS,
) -> dict:
    """Train every classifier of the protocol, and say what synthetic tiles changed.

    The protocol is written before anything is predicted. Classifiers that were trained before are taken up.

    Raises
    ------
    HistoloomError
        when there are too few labelled tiles to test on, or one class alone.
    """
    config, data = params.uplift, _load(params, tiles, made, verdicts)
    if config.seeds == 0:
        work.promote_parts([], output)
        write_json(reports / "metrics.json", {"left_out": "uplift.seeds is 0"})
        return {}
    _check(data)
    runs, left_out = _possible(runs_of(config), data)
    protocol = protocol_of(config, runs, data.test, data.classes)
    write_json(reports / "protocol.json", protocol)
    tried = _count(attempts, digest(protocol))
    folders = (tiles.resolve(), tuple(Path(m).resolve() for m in made), verdicts.resolve(), params, device)
    jobs = [UpliftPart(run, *folders, work.parts.resolve(), (work.root / "training").resolve()) for run in runs]
    with pool(len(jobs)) as call:
        infos = call(uplift_part, jobs, "uplift")
    names = [run.name for run in runs]
    work.promote_parts(names, output)
    predictions: dict[tuple[str, float], list[np.ndarray]] = {}
    for run in runs:
        table = pd.read_parquet(Path(output) / run.name / PREDICTIONS).set_index("tile_id").loc[data.test["tile_id"]]
        predictions.setdefault((run.arm, run.ratio), []).append(table[list(data.classes)].to_numpy())
    found = analyse(predictions, data.test, data.classes, config.arms[0], params.seed)
    for arm in found["arms"]:
        info = next(i for run, i in zip(runs, infos) if (run.arm, run.ratio) == (arm["arm"], arm["ratio"]))
        arm["trained_on"] = info
    found |= {
        "left_out": left_out,
        "steps": config.steps,
        "protocols_tried": tried,
        "test_split": data.test["split"].iloc[0],
    }
    write_json(reports / "metrics.json", found)
    return found


def _check(data: _Tiles) -> None:
    if len(data.classes) < 2:
        raise HistoloomError(
            f"uplift needs two classes in the train split, and there are {len(data.classes)}. Label more, or set uplift.seeds: 0."
        )
    if len(data.test) < _LEAST_TEST:
        raise HistoloomError(
            f"uplift needs labelled held-out tiles to test on, and there are {len(data.test)}. Change tile.split, or set "
            "uplift.seeds: 0."
        )


def _possible(runs: list[Run], data: _Tiles) -> tuple[list[Run], dict[str, str]]:
    """The runs that there are tiles for, and why the other arms are left out."""
    shown, left_out = set(data.synthetic["label"]), {}
    for arm in dict.fromkeys(run.arm for run in runs):
        if "synthetic" in arm and not shown:
            left_out[arm] = "no synthetic tile was accepted"
        elif arm == "synthetic" and (missing := [c for c in data.classes if c not in shown]):
            left_out[arm] = f"no synthetic tile shows {', '.join(missing)}"
    for arm, why in left_out.items():
        console.print(f"uplift: '{arm}' is left out, because {why}", markup=False)
    return [run for run in runs if run.arm not in left_out], left_out


def _count(path: Path, protocol: str) -> int:
    """Note that this protocol was begun, and say how many different ones this study has tried."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stream.write(json.dumps({"protocol": protocol, "begun": now}) + "\n")
    lines = path.read_text(encoding="utf-8").splitlines()
    return len({json.loads(line)["protocol"] for line in lines})
