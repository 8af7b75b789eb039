"""A tiny whole study, made as a user would make one: `histoloom init`, then `dvc repro`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.build import make_slide

SIDE = 384
HANGS_S = 1500
FILTERS = ("quality", "distance", "label", "mask", "text", "anomaly", "near_copy")
TINY = {
    "tile": {
        "mpp": 1.0,
        "tile_px": 32,
        "stride_px": 32,
        "tissue": {"mpp": 8.0, "min_fraction": 0.5},
        "labels": {"source": "polygons", "classes": ["left", "right"]},
        "masks": {"source": "polygons", "classes": ["left", "right"]},
    },
    "train_encoders": {"text": {"image_px": 32, "width": 32, "layers": 1, "steps": 6, "batch_size": 16}},
    "train_autoencoder": {"channels": 16, "down_factor": 4, "steps": 20, "batch_size": 8, "checkpoint_every": 10},
    "train_denoiser": {
        "conditions": ["label", "text", "mask"],
        "channels": [16, 32],
        "steps": 12,
        "batch_size": 8,
        "checkpoint_every": 4,
        "warmup_steps": 2,
    },
    "plan": {"target": 60, "max_per_class": 20, "evaluation_tiles": 12, "batch_size": 8, "batches_per_part": 1},
    "sample": {"steps": 4},
    "sample_slides": {
        "slides": [
            {
                "name": "woven",
                "width_px": 120,
                "height_px": 88,
                "mask": "manifests/canvases/woven.geojson",
                "outside": "glass",
                "source_groups": ["patient-slide-train"],
            }
        ],
        "steps": 4,
        "block_latent_px": 16,
        "checkpoint_every": 2,
        "batch_size": 4,
    },
    "train_filters": {"false_rejection": dict.fromkeys(FILTERS, 0.0), "segmenter_steps": 4},
    "filter": {"use": [*FILTERS, "realism"], "min_yield": 0.0},
    "emit": {"captions": True},
    "evaluate": {"kid_subsets": 4},
    "uplift": {"arms": ["real", "real+synthetic"], "seeds": 1, "steps": 2, "batch_size": 8, "image_px": 32},
}


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """The test's own environment, with this interpreter's commands first on the path, and more."""
    bin_folder = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "HISTOLOOM_SALT": "a salt for tests",
        "PYTHONFAULTHANDLER": "1",
        **(more or {}),
    }


def run(
    folder: Path, *command: str, check: bool = True, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run a command in a study; a failure shows what it printed, and one that hangs where each of its threads stood."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=HANGS_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)
            out, err = process.communicate()
            raise AssertionError(f"{' '.join(command)} took more than {HANGS_S} s:\n{out[-3000:]}\n{err}") from None
        except BaseException:  # Ctrl-C doesn't reach another session
            os.killpg(process.pid, signal.SIGKILL)
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} gave {done.returncode}:\n{out[-3000:]}\n{err[-3000:]}")
    return done


def dvc(
    folder: Path, *arguments: str, check: bool = True, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    return run(folder, sys.executable, "-m", "dvc", *arguments, check=check, more=more)


def stage(folder: Path, name: str, check: bool = True) -> subprocess.CompletedProcess:
    return run(folder, "histoloom", "run", name, check=check)


def edit_yaml(path: Path, **sections) -> None:
    """Merge sections into a YAML file."""
    yaml = YAML()
    loaded = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in sections.items():
        if isinstance(value, dict):
            loaded[key].update(value)
        else:
            loaded[key] = value
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(loaded, stream)


def halves(path: Path, side: int = SIDE) -> None:
    """A slide's left and right half as QuPath would export them."""
    features = []
    for name, (x0, x1) in {"left": (0, side // 2), "right": (side // 2, side)}.items():
        ring = [[x0, 0], [x1, 0], [x1, side], [x0, side], [x0, 0]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "annotation", "classification": {"name": name}},
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def add_slide(folder: Path, name: str, split: str, seed: int) -> None:
    """Put one slide more into a study: its file, its annotations, its row."""
    make_slide(folder / "data" / "slides" / f"{name}.tif", width=SIDE, height=SIDE, mpp=1.0, seed=seed)
    halves(folder / "manifests" / "annotations" / f"{name}.geojson")
    manifest = folder / "manifests" / "slides.csv"
    with manifest.open(newline="", encoding="utf-8") as stream:
        columns = csv.DictReader(stream).fieldnames
    with manifest.open("a", newline="", encoding="utf-8") as stream:
        row = {"slide_id": name, "path": f"{name}.tif", "patient_id": f"patient-{name}", "split": split}
        csv.DictWriter(stream, columns, restval="").writerow(row | {"annotations": f"{name}.geojson"})


def make_tiny_study(folder: Path) -> Path:
    """Three slides of three patients, one a split; sizes at which a stage takes seconds."""
    recipe = folder.with_suffix(".recipe.yaml")
    with recipe.open("w", encoding="utf-8") as stream:
        YAML().dump(TINY, stream)
    run(folder.parent, str(Path(sys.executable).with_name("histoloom")), "init", str(folder), "--recipe", str(recipe))
    for seed, split in enumerate(("train", "val", "test")):
        add_slide(folder, f"slide-{split}", split, seed)
    edit_yaml(folder / "cluster.yaml", workers=0, training_threads=1)
    (folder / "manifests/canvases").mkdir()
    halves(folder / "manifests/canvases/woven.geojson", 88)
    return folder


def copy_study(study: Path, target: Path) -> Path:
    """A copy to be broken, without work folders and locks."""
    shutil.copytree(study, target, symlinks=True, ignore=shutil.ignore_patterns(".work", "tmp"))
    return target


def woven_files(woven: Path) -> dict[str, bytes]:
    """The files of woven slides, but for the record of how long they took."""
    return {p.relative_to(woven).as_posix(): p.read_bytes() for p in woven.rglob("*.*") if p.name != "commit.json"}
