"""What a published system comes to beside its baseline: its study made and run, then measured (systems/NAME/system.py).

Data are drawn unless --data names a folder of real ones. A study that was run before is gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

import histoloom
from benchmarks.studies import change_params
from benchmarks.systems_page import write_pages
from benchmarks.systems_picture import write_picture
from histoloom.cli.init import SystemStudy, make_study
from histoloom.cluster import one_thread
from histoloom.data.commit import digest, sha256_file
from histoloom.data.study_folder import Study
from histoloom.studies.stages import STAGES
from histoloom.systems import Measured, code_of, folder_of, names

FOLDER = Path(".work/systems")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=names(), help="the system")
    parser.add_argument("--data", type=Path, help="a folder of real data, as the system's page names it")
    parser.add_argument("--recipe", type=Path, help="what is changed in its params, such as more steps")
    parser.add_argument("--folder", type=Path, help="where its studies lie; unstated, .work/systems")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--picture", type=Path, help="write a picture of its tiles here, a .jpg")
    parser.add_argument("--page", action="store_true", help="write docs/systems.md and docs/systems")
    asked = parser.parse_args()
    if asked.page:
        write_pages()
        return
    if asked.name is None:
        parser.error("name a system, or --page")
    studies, found, seconds = measured(asked.name, asked.data, asked.recipe, asked.folder or FOLDER)
    figures = {
        **{f"{asked.name}.{key}": value for key, value in found.items() if key != "more"},
        **{f"{asked.name}.more.{key}": value for key, value in found["more"].items()},
        f"{asked.name}.data": "drawn" if asked.data is None else asked.data.name,
        f"{asked.name}.seconds": round(seconds),
    }
    print(json.dumps(figures, indent=1))
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if asked.picture is not None:
        write_picture(code_of(asked.name), studies[0], asked.picture)


def measured(name: str, data: Path | None, recipe: Path | None, folder: Path) -> tuple[list[Study], Measured, float]:
    """A system's studies, what it comes to, and how long all that took this time."""
    code = code_of(name)
    folds = getattr(code, "FOLDS", {}).get("drawn" if data is None else "real", 1)
    start, studies = time.monotonic(), []
    for fold in range(folds):
        place = folder / f"{name}-{'drawn' if data is None else data.name}-{fold}"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            recipes = () if recipe is None else (str(recipe),)  # it may change the stages and the data
            make_study(place, recipes, system=SystemStudy(name, None if data is None else data.resolve(), fold))
            _on_this_machine(place)
        if recipe is not None:
            change_params(place / "params.yaml", YAML(typ="safe").load(recipe.read_text(encoding="utf-8")))
        run(place, [stage for stage in code.STAGES if not STAGES[stage].per_model])
        studies.append(Study(place))
    with one_thread():
        found = code.measure(studies)
    return studies, found, time.monotonic() - start


def measured_once(name: str) -> Measured:
    """What a system comes to on drawn data. It is measured again only where its recipe, its code or histoloom's has changed; a run that was broken off
    is gone on with."""
    package = Path(histoloom.__file__).parent
    code = {str(path.relative_to(package)): sha256_file(path) for path in sorted(package.rglob("*.py"))}
    read = [path for path in sorted(folder_of(name).iterdir()) if path.suffix == ".py" or path.name == "recipe.yaml"]
    own = {path.name: sha256_file(path) for path in read}
    key = digest([own, code])[:12]
    kept = FOLDER / "checked" / f"{name}@{key}"
    for other in kept.parent.glob(f"{name}@*"):
        if other != kept:
            shutil.rmtree(other)
    record = kept / "measured.json"
    if not record.is_file():
        _, found, _ = measured(name, None, None, kept)
        record.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return json.loads(record.read_text(encoding="utf-8"))


def run(folder: Path, stages: Sequence[str]) -> None:
    """Run a study's stages and those before them that are out of date."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *stages], cwd=folder, env=os.environ | {"PATH": path}, check=False
    )
    if done.returncode:
        sys.exit(f"dvc repro failed in {folder}")


def _on_this_machine(folder: Path) -> None:
    """One process and one thread without a cluster: what is measured is small."""
    (folder / "cluster.yaml").write_text("workers: 0\ntraining_threads: 1\n", encoding="utf-8")


if __name__ == "__main__":
    main()
