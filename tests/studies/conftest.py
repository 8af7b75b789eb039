"""Slides for the stages that cut them."""

from __future__ import annotations

import shutil

import pytest

from tests.build import make_slide
from tests.studies.tiling import SIDE


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for number in range(4):
        make_slide(folder / f"s{number}.svs", width=SIDE, height=SIDE, seed=number)
    return folder


@pytest.fixture
def slides(folder, drawn):
    """A study's folder with three slides, and s3 as one more."""
    shutil.copytree(drawn, folder / "data/slides")
    return folder
