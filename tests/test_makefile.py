"""`make setup` shows what it is doing, in a few lines, and fails where pip fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIP = """\
Collecting torch==2.14.1
  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (899.8 MB)
Collecting six
  Downloading six-1.16.0-py2.py3-none-any.whl (11 kB)
  Using cached pyarrow-20.0.0-cp311-cp311-manylinux_2_28_x86_64.whl (42.3 MB)
  Using cached pandas-2.3.0-cp311-cp311-manylinux_2_17_x86_64.whl (12.4 MB)
Installing collected packages: six, torch, pandas
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what `make setup` reads, whose pip says what pip says, and installs nothing."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "said").write_text(PIP)
    stub = tmp_path / ".venv/bin/python"
    stub.write_text(
        '#!/bin/sh\n[ "$2" = pip ] || exit 0\ncat said\n[ ! -f broken ] || { echo "ERROR: no disk left"; exit 1; }\n'
    )
    stub.chmod(0o755)
    return tmp_path


def _setup(folder: Path) -> subprocess.CompletedProcess:
    """As from a shell: where `make test` runs this, the outer make's variables would add its lines on folders."""
    env = {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    return subprocess.run(["make", "setup"], cwd=folder, capture_output=True, text=True, check=False, env=env)


def test_large_packages_and_steps_are_shown_and_the_rest_is_in_a_file(checkout):
    done = _setup(checkout)
    assert done.returncode == 0, done.stderr
    first, second, *lines = done.stdout.splitlines()
    assert "2 to 3 minutes" in first and second.startswith("1 of 2: packages")
    assert lines[:3] == [
        "Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (899.8 MB)",
        "Using cached pyarrow-20.0.0-cp311-cp311-manylinux_2_28_x86_64.whl (42.3 MB)",
        "Installing collected packages",
    ]
    assert lines[3].startswith("2 of 2") and lines[4].startswith("Done.") and len(lines) == 5
    assert (checkout / ".venv/setup.log").read_text() == PIP
    assert _setup(checkout).stdout.count("of 2") == 0, "what is set up is not set up again"


def test_where_pip_fails_set_up_fails_with_its_error_and_is_not_ready(checkout):
    (checkout / "broken").touch()
    done = _setup(checkout)
    assert done.returncode != 0 and "ERROR: no disk left" in done.stdout and "setup.log" in done.stdout
    assert not (checkout / ".venv/.ready").exists()
    (checkout / "broken").unlink()
    assert _setup(checkout).returncode == 0


def test_packages_that_are_there_already_are_no_failure(checkout):
    (checkout / "said").write_text("Requirement already satisfied: torch\n")
    assert _setup(checkout).returncode == 0
