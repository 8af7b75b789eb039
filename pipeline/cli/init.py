"""`histoloom init`: a study from the repository's own dvc.yaml, params.yaml and cluster.yaml."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

import pipeline
from pipeline.data.schema import REQUIRED_SLIDE_COLUMNS
from pipeline.errors import HistoloomError
from pipeline.progress import console

_SUFFIXES = {".svs", ".ndpi", ".mrxs", ".tif", ".tiff", ".scn", ".bif", ".svslide", ".vms", ".png", ".jpg", ".jpeg"}
_COLUMNS = (*REQUIRED_SLIDE_COLUMNS, "mpp", "label", "caption", "split", "annotations", "mask", "instances")
VERSION_FILE = "histoloom.version"

_GITIGNORE = "/data/slides/\n/.work/\n/.histoloom/\n/.venv/\n__pycache__/\n"
_README = """# A histoloom study

1. State your slides in `manifests/slides.csv`, and your choices in `params.yaml`.
2. `histoloom validate` lists every fault of both.
3. `dvc repro` makes the dataset and `reports/index.html`; run it again after any change, or after a crash.

Keep `.histoloom/salt` safe and private: the patient codes of emitted datasets come from it.
"""


def _template(name: str) -> Path:
    """A file that studies are made from: beside this one in an installed package, else at the repository's top."""
    here = Path(__file__).parent / "study" / name
    return here if here.exists() else Path(__file__).parents[2] / name


def make_study(folder: Path, recipes: tuple[str, ...] = (), slides: Path | None = None) -> None:
    """Make a study at `folder`, a git and DVC repository with one commit.

    Raises
    ------
    HistoloomError
        when the folder holds something already, a recipe isn't there, or git is missing.
    """
    if folder.exists() and any(folder.iterdir()):
        raise HistoloomError(f"{folder} is not empty. Name a new folder, so that nothing of yours is overwritten.")
    if shutil.which("git") is None:
        raise HistoloomError("git is not installed, and a study is a git repository. Install git, then run this again.")
    overlays = [_read_recipe(name) for name in ("study", *recipes)]
    (folder / "manifests" / "annotations").mkdir(parents=True)
    (folder / "reviews").mkdir()
    for place in ("manifests/annotations", "reviews"):
        (folder / place / ".gitkeep").touch()
    _write_params(folder, overlays, slides)
    shutil.copy(_template("cluster.yaml"), folder / "cluster.yaml")
    _write_dvc_yaml(folder)
    (folder / VERSION_FILE).write_text(f"histoloom {pipeline.__version__}\n", encoding="utf-8")
    (folder / ".gitignore").write_text(_GITIGNORE, encoding="utf-8")
    (folder / "README.md").write_text(_README, encoding="utf-8")
    _write_manifest(folder / "manifests" / "slides.csv", slides)
    _version(folder)
    console.print(
        f"A study at {folder}. Next: fill in manifests/slides.csv and params.yaml, then "
        f"cd {folder}, histoloom validate, dvc repro.",
        markup=False,
    )


def _read_recipe(name: str) -> dict:
    path = Path(name) if Path(name).suffix else _template("recipes") / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _template("recipes").glob("*.yaml")))
        raise HistoloomError(f"There is no recipe '{name}'. There are: {known}; or name a file.")
    return YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}


def merge(base: dict, overlay: dict) -> None:
    """Write what the overlay states into the base: mappings merge, all else replaces; `~` after a key empties it."""
    for key, value in overlay.items():
        if isinstance(value, dict) and value and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value


def _write_params(folder: Path, overlays: list[dict], slides: Path | None) -> None:
    yaml = YAML()
    params = yaml.load(_template("params.yaml").read_text(encoding="utf-8"))
    for overlay in overlays:
        merge(params, overlay)
    if slides is not None:
        params["tile"]["slides_root"] = str(slides.resolve())
    else:
        (folder / params["tile"]["slides_root"]).mkdir(parents=True, exist_ok=True)
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)


def _write_dvc_yaml(folder: Path) -> None:
    """The repository's stages without the demo's `fetch`; for its code and packaged models, a study depends on the stated version."""
    yaml = YAML()
    yaml.width = 200
    pipeline_file = yaml.load(_template("dvc.yaml").read_text(encoding="utf-8"))
    del pipeline_file["stages"]["fetch"]
    for stage in pipeline_file["stages"].values():
        kept = [
            d for d in stage["deps"] if not str(d).startswith(("stages/", "pipeline/", "pretrained", "data/slides"))
        ]
        stage["deps"] = [VERSION_FILE, *kept]
    with (folder / "dvc.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(pipeline_file, stream)


def _write_manifest(path: Path, slides: Path | None) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _COLUMNS, restval="")
        writer.writeheader()
        for file in sorted(slides.rglob("*")) if slides else []:
            if file.is_file() and file.suffix.lower() in _SUFFIXES:
                writer.writerow({"slide_id": file.stem, "path": file.relative_to(slides).as_posix()})


def _version(folder: Path) -> None:
    """git and dvc init, and a first commit: training curves are kept against one."""
    commands = [
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "config", "core.analytics", "false"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "-m", "A histoloom study"],
    ]
    named = {"GIT_AUTHOR_NAME": "histoloom", "GIT_AUTHOR_EMAIL": "histoloom@localhost"}
    committer = {k.replace("AUTHOR", "COMMITTER"): v for k, v in named.items()}
    known = subprocess.run(["git", "config", "user.email"], capture_output=True, check=False).returncode == 0
    environment = os.environ | ({} if known else named | committer)
    for command in commands:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise HistoloomError(f"'{' '.join(command)}' failed in {folder}: {done.stderr.strip()}")
