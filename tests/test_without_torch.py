"""What a study does before it trains needs no torch: a slide is tiled and the store read where torch can't be imported."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.build import make_slide, make_study
from tests.studies.tiling import slide_row

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/how-to/install.md"

_BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
_RUN = """
import sys
from histoloom.cli.main import cli

cli(sys.argv[1:])
"""
_READ = """
import histoloom

store = histoloom.open_store("data/tiles")
rows = store.rows()
print(len(rows), store.read(rows.head(2)).shape)
"""


def _dependencies() -> dict[str, str]:
    """Name to requirement, of the package without extras."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return {re.split(r"[\[><=]", each)[0]: each for each in stated}


def _listed() -> set[str]:
    """The packages that the page names for an installation without torch."""
    (block,) = re.findall(
        r"```\n([^`]*)\npip install --no-deps histoloom\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    return {re.split(r"\[", word.strip("'"))[0] for word in block.replace("\\\n", " ").split()[2:]}


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    modules = {"scikit-learn": "sklearn", "faiss-cpu": "faiss", "open-clip-torch": "open_clip", "pillow": "PIL"}
    away = {*_dependencies()} - _listed()
    blocked = {modules.get(name, name.replace("-", "_").lower()) for name in away} | {"SimpleITK"}
    command = [sys.executable, "-W", "ignore", "-c", _BLOCKED.format(names=sorted(blocked)) + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def drafted(folder) -> Path:
    """A study of three slides, and nothing else."""
    for number in range(3):
        make_slide(f"data/slides/s{number}.svs", width=128, height=128, seed=number)
    rows = [slide_row(number, label=("tumour", "stroma", "tumour")[number]) for number in range(3)]
    make_study(".", rows, {"masks": {"source": "stain", "classes": ["nucleus", "clear"]}})
    Path("cluster.yaml").write_text("workers: 0\n")
    return folder


def test_the_page_names_dependencies_of_the_package_alone():
    assert _listed() <= {*_dependencies()}
    assert "torch" not in _listed()


@pytest.mark.long
def test_a_slide_is_tiled_and_the_store_is_read(drafted):
    for command in (["--help"], ["validate"], ["run", "resolve"], ["run", "tile"], ["preview", "data/tiles"]):
        done = _python(_RUN, *command)
        assert done.returncode == 0, (command, done.stdout + done.stderr)
    read = _python(_READ)
    assert read.stdout.split() == ["12", "(2,", "64,", "64,", "3)"], read.stderr


@pytest.mark.long
def test_a_study_is_made(folder):
    make_slide("slides/a.svs", width=128, height=128)
    done = _python(_RUN, "init", "study", "--slides", "slides")
    assert done.returncode == 0 and (folder / "study/dvc.yaml").is_file(), done.stderr


def test_what_needs_a_missing_package_says_so(folder):
    done = _python(_RUN, "sample", "look")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "needs the package 'torch'" in done.stderr and "pip install" in done.stderr
