"""What a wheel installs: one package, with all that a study needs inside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, folder: Path, code: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_small_with_its_model(installed):
    (wheel,) = installed.parent.glob("*.whl")
    assert wheel.stat().st_size <= 36e6


def test_its_top_level_is_the_package_alone(installed):
    assert {p.name for p in installed.iterdir() if p.suffix != ".dist-info"} == {"histoloom"}
    assert (installed / "histoloom/py.typed").is_file()


def test_a_registry_shows_a_page_whose_links_lead_somewhere(installed):
    (metadata,) = installed.glob("*.dist-info/METADATA")
    head, _, page = metadata.read_text(encoding="utf-8").partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert page.startswith("# histoloom") and "## Ten lines of Python" in page and "Not for diagnosis." in page
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links and all(link.startswith("https://") for link in links)


def test_every_extra_that_a_page_or_a_message_names_is_there(installed):
    (metadata,) = installed.glob("*.dist-info/METADATA")
    there = {*re.findall(r"^Provides-Extra: (\S+)$", metadata.read_text(encoding="utf-8"), re.M)}
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "pipeline").rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    found = re.findall(r"(?:histoloom|'\.|\"\.|wheel|whl)\[([a-z0-9_,-]+)\]", "\n".join(texts))
    named = {extra for each in found for extra in each.split(",")}
    assert {"remote", "dev"} <= named <= there, named - there


def test_it_makes_studies_and_has_its_packaged_model(installed, tmp_path):
    code = (
        "import histoloom; from histoloom.cli.main import cli; from histoloom.config.package import packaged\n"
        "cli(['init', 'study', '--recipe', 'adapt'], standalone_mode=False)\n"
        "print(histoloom.__file__, packaged('histoloom-base', 'denoiser'), sep='\\n')"
    )
    module, model = run(installed, tmp_path, code).splitlines()
    assert Path(module).is_relative_to(installed) and Path(model).is_relative_to(installed)
    assert "histoloom run tile" in (tmp_path / "study/dvc.yaml").read_text(encoding="utf-8")
