"""The tutorial notebook runs from its first cell to its last."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

_NOTEBOOK = Path(__file__).parents[1] / "docs/tutorial.ipynb"


@pytest.mark.long
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )  # of histoloom's command
    notebook = nbformat.read(_NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    told = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=told).execute()
    assert (tmp_path / "study/data/tiles").is_dir()
    made, before = (_pictures(of) for of in (notebook, nbformat.read(_NOTEBOOK, as_version=4)))
    assert made == before > 4, "run the notebook anew and keep its outputs"


def _pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/jpeg" in output.get("data", {}) for output in outputs)
