"""Train a study on a machine that has no network and takes, and gives back, small files alone.

`pack` writes what the training stages read as pieces. `wheels` fetches the packages that the machine lacks. There, `train` unpacks the pieces,
runs the stages for so many minutes and writes what was trained as pieces again. Here, `unpack` puts that into the study.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

import histoloom
from benchmarks.pieces import BEGUN, add_content, add_files, cores, open_pieces, pack_study, pieces, unpack_study
from benchmarks.wheels import fetch_wheels
from histoloom.data.commit import commit_part, discard, hash_tree, read_record, replace_tree
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.studies import train_denoiser
from histoloom.studies.stage_work import Work, open_work
from histoloom.studies.stages import STAGES, places

TRAINING = ("train_encoders", "train_autoencoder", "encode", "train_denoiser")
_STOPPING_S = 30
_MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="write a study's training inputs as pieces")
    pack.add_argument(
        "--models", action="store_true", help="with what is trained already, so that the other stages alone run"
    )
    wheels = commands.add_parser("wheels", help="fetch the packages that the training stages import")
    wheels.add_argument(
        "--there",
        type=Path,
        required=True,
        help="what the machine has: a package a line, as `pip list` or `pip freeze` say",
    )
    wheels.add_argument("--python", default="3.12", help="the machine's version of Python")
    trains = commands.add_parser("train", help="there: run the training stages")
    trains.add_argument("--pieces", type=Path, help="unpack the study from here first")
    trains.add_argument("--minutes", type=float, required=True, help="after so many, training stops and is written")
    trains.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    back = commands.add_parser("unpack", help="put what was trained into the study")
    back.add_argument("--pieces", type=Path, required=True, help="what came back")
    for command in (pack, trains, back):
        command.add_argument("study", type=Path)
    for command, megabytes in ((pack, 50), (wheels, 50), (trains, 15)):
        command.add_argument("--out", type=Path, required=True, help="a new folder")
        command.add_argument(
            "--piece-mb", type=float, default=megabytes, help=f"MiB of a piece, at most; unstated, {megabytes}"
        )
    asked = parser.parse_args()
    try:
        print(json.dumps(_done(asked), indent=1))
    except HistoloomError as error:
        sys.exit(f"error: {error}")


def _done(asked: argparse.Namespace) -> dict[str, Any]:
    if asked.command == "unpack":
        return put_back(asked.pieces, Study(asked.study))
    limit = int(asked.piece_mb * _MIB)
    if asked.command == "pack":
        return pack_study(Study(asked.study), asked.out, limit, models=asked.models)
    if asked.command == "wheels":
        return fetch_wheels(asked.out, asked.there, asked.python, limit)
    end = time.monotonic() + 60 * asked.minutes
    if asked.pieces:
        unpack_study(asked.pieces, asked.study, cores())
    cluster = f"workers: 0\ndevice: {asked.device}\ntraining_threads: {cores()}\n"
    (asked.study / "cluster.yaml").write_text(cluster, encoding="utf-8")
    return train(Study(asked.study), end, asked.out, limit)


def train(study: Study, end: float, out: Path, limit: int) -> dict[str, Any]:
    """Run the training stages that have not been run, until `end` of the monotonic clock, and write what was trained; what was done."""
    seconds: dict[str, float] = {}
    unfinished = None
    for stage in TRAINING:
        if not _pending(study, stage):
            continue
        _take_up(study, stage)
        start = time.monotonic()
        done = _run(study, stage, end)
        seconds[stage] = round(time.monotonic() - start, 1)
        if not done:
            unfinished = stage
            break
        discard(study.root / BEGUN / stage)
    steps = write_trained(study, unfinished, out, limit)
    sizes = [path.stat().st_size for path in out.glob("piece-*")]
    return {"seconds": seconds, "stopped_in": unfinished, "steps": steps, "pieces": len(sizes), "bytes": sum(sizes)}


def _each(study: Study) -> list[Study]:
    """The study of each of several models; itself where there is one."""
    return [study.of(name) for name in study.stated.models] or [study]


def _pending(study: Study, stage: str) -> bool:
    made = places(STAGES[stage].outputs, [*study.stated.models])
    return any(not (study.root / place).exists() for place in made) or (study.root / BEGUN / stage).is_dir()


def _take_up(study: Study, stage: str) -> None:
    """Put checkpoints from another machine where the stage looks for its own, unless it has any."""
    for own in _each(study):
        begun = study.root / BEGUN / stage / own.model
        if not begun.is_dir():
            continue
        with open_work(stage, own) as work:
            for step in sorted(begun.rglob("step-*")):
                _adopt(step, work.root / step.parent.relative_to(begun))


def _adopt(step: Path, folder: Path) -> None:
    if not any(read_record(path) for path in folder.glob("step-*")):
        commit_part(folder, step.name, lambda into: _copied(step, into))


def _copied(source: Path, into: Path) -> None:
    for name in ("state.safetensors", "run.json"):
        shutil.copy(source / name, into / name)


def _run(study: Study, stage: str, end: float) -> bool:
    """Run a stage as a process of its own; whether it ended before `end`.

    Raises
    ------
    HistoloomError
        when it failed.
    """
    code = f"from histoloom.studies.stage_work import main; main({stage!r})"
    paths = [str(Path(histoloom.__file__).parents[1].resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=study.root, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    ) as process:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_STOPPING_S)
            except subprocess.TimeoutExpired:
                process.kill()
            return False
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise HistoloomError(f"stage '{stage}' ended with {process.returncode}; what it said stands above.")
    return True


def write_trained(study: Study, unfinished: str | None, out: Path, limit: int) -> dict[str, int]:
    """Write the trained models, and of a stage that isn't over the newest checkpoints: weights and average as fp16, no optimiser.

    A denoiser whose training isn't over is written as a model too, of its average as it is. Returns the step that each training is at.
    """
    steps: dict[str, int] = {}
    facts: dict[str, Any] = {"tiles": hash_tree(study.tiles), "stopped_in": unfinished, "steps": steps}
    with tempfile.TemporaryDirectory() as temporary, pieces(out, limit, facts) as tar:
        for own in _each(study):
            newest = _newest(own.work(unfinished)) if unfinished else {}
            closes = unfinished == "train_denoiser" and bool(newest)
            made = [own.encoders, own.autoencoder, *([] if closes else [own.denoiser])]
            for folder in (*made, *(own.reports(stage) for stage in TRAINING)):
                add_files(tar, folder, folder.relative_to(study.root).as_posix())
            for place, step in newest.items():
                name = f"begun/{unfinished}/{own.model}/{place}/{step.name}".replace("//", "/")
                add_content(tar, f"{name}/state.safetensors", _halved(step / "state.safetensors"))
                add_files(tar, step / "run.json", f"{name}/run.json")
                steps[f"{unfinished}/{own.model}/{place}".replace("//", "/")] = int(step.name.removeprefix("step-"))
            if closes:
                closed = _closed(own, newest["checkpoints"], Path(temporary) / (own.model or "study"))
                add_files(tar, closed.denoiser, own.denoiser.relative_to(study.root).as_posix())
    return steps


def _newest(work: Path) -> dict[str, Path]:
    """Folder of checkpoints in a stage's work folder to the newest whole one."""
    found = sorted(path for path in work.rglob("step-*") if read_record(path))
    return {"/".join(path.relative_to(work).parts[1:-1]): path for path in found}


def _halved(path: Path) -> bytes:
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("optimiser/")}
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    return save({n: half if torch.isfinite(half).all() else kept[n] for n, half in halves.items()})


def _closed(study: Study, step: Path, folder: Path) -> Study:
    """A study beside this one whose training of the denoiser ends at this checkpoint, run; the training itself is left as it is."""
    folder.mkdir()
    for place in ("data", "manifests"):
        (folder / place).symlink_to((study.root / place).resolve(), target_is_directory=True)
    last = {"steps": int(step.name.removeprefix("step-"))}
    stated = study.stated.model_copy(update={"train_denoiser": study.stated.train_denoiser.model_copy(update=last)})
    closed = Study(folder, study.model)
    vars(closed).update(stated=stated, cluster=study.cluster)
    with open_work("train_denoiser", closed) as work:
        _adopt(step, _checkpoints(work))
        train_denoiser.run(work)
    return closed


def _checkpoints(work: Work) -> Path:
    return work.root / "checkpoints"


def put_back(folder: Path, study: Study) -> dict[str, Any]:
    """Put what was trained elsewhere into the study: models with their lineage, reports, and checkpoints of what isn't over.

    Raises
    ------
    HistoloomError
        when pieces are not whole, or were trained on other tiles than the study's.
    """
    came = study.root / ".work/came"
    discard(came)
    came.mkdir(parents=True)
    index = open_pieces(folder, came)
    if index["tiles"] != hash_tree(study.tiles):
        raise HistoloomError(
            f"{folder} was trained on other tiles than {study.tiles} holds: unpack it into the study that was packed, or run `tile` as then."
        )
    put = []
    for lineage in sorted(came.glob("models/**/lineage.json")):
        place = lineage.parent.relative_to(came)
        replace_tree(lineage.parent, study.root / place)
        put.append(place.as_posix())
    for stage in TRAINING:
        if (reports := came / "reports" / stage).is_dir():
            replace_tree(reports, study.root / "reports" / stage)
    discard(study.root / BEGUN)
    if (came / "begun").is_dir():
        replace_tree(came / "begun", study.root / BEGUN)
    discard(came)
    return {"put": put, "stopped_in": index["stopped_in"], "steps": index["steps"]}


if __name__ == "__main__":
    main()
