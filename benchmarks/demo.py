"""What the demo takes, stage by stage, on this machine: `python -m benchmarks.demo`.

It clones the repository's last commit and runs `dvc repro` there, as `make demo` does after its set-up. With --without-bf16 the stages take the CPU
for one that does not compute bf16.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.run import flat, report
from histoloom.data.pixel_box import PixelBox
from histoloom.data.store import TileStore
from histoloom.report.pictures import contact_sheet
from histoloom.slides.open import open_slide

_COLUMNS, _WOVEN_PX, _QUALITY = 10, 1024, 90
ROOT = Path(__file__).parents[1]
_NO_BF16 = "import torch\n\ntorch.cpu.get_capabilities = dict\n"
"""Python runs a sitecustomize of the path before anything else. With the variable below, oneDNN doesn't use the instructions either."""


def seconds_by_stage(place: Path, environment: dict[str, str]) -> dict[str, float]:
    """Wall seconds of each stage of `dvc repro` in a clone, and of all."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
    command, found = [str(Path(sys.executable).with_name("dvc")), "repro"], {}
    started = before = time.monotonic()
    stage = None
    with subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", file=sys.stderr)
            if named := re.match(r"Running stage '(.*)':", line):
                now = time.monotonic()
                if stage is not None:
                    found[stage] = now - before
                stage, before = named[1], now
    if running.returncode:
        raise SystemExit(f"dvc repro ended with {running.returncode} in stage {stage}")
    end = time.monotonic()
    return found | {str(stage): end - before, "all": end - started}


def write_pictures(place: Path, folder: Path) -> None:
    """Write `demo.jpg`, in pairs of rows real tiles and the accepted ones that were begun from them, evenly spread and not chosen; and `woven.jpg`."""
    real, made = TileStore(place / "data/tiles"), TileStore(place / "data/synthetic", rows_from=place / "data/verdicts")
    rows = made.rows()
    rows = rows[rows["accepted"] & rows["input_ref"].notna()].sort_values("tile_id").reset_index(drop=True)
    sources = real.rows().set_index("tile_id", drop=False).loc[rows["input_ref"]]
    pick = np.linspace(0, len(rows) - 1, 2 * _COLUMNS).astype(int)
    lines = []
    for some in (pick[:_COLUMNS], pick[_COLUMNS:]):
        lines += [real.read(sources.iloc[some]), made.read(rows.iloc[some])]
    contact_sheet(np.concatenate(lines), columns=_COLUMNS).save(folder / "demo.jpg", quality=_QUALITY)
    with open_slide(place / "data/woven/skin/slide.tif") as slide:
        woven = slide.read(PixelBox(0, 0, slide.width, slide.height), slide.width / _WOVEN_PX)
    Image.fromarray(woven).save(folder / "woven.jpg", quality=_QUALITY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-bf16", action="store_true")
    parser.add_argument("--pictures", type=Path, help="write demo.jpg and woven.jpg here")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place, patches = Path(temporary) / "demo", Path(temporary) / "patches"
        patches.mkdir()
        (patches / "sitecustomize.py").write_text(_NO_BF16, encoding="utf-8")
        path = [str(place / "pipeline"), *[str(patches)] * options.without_bf16]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path),
            **({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"} if options.without_bf16 else {}),
        }
        found = seconds_by_stage(place, environment)
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
            write_pictures(place, options.pictures)
    report("demo", False, {"bf16": not options.without_bf16}, flat({"demo_s": found}), {}, options.json)


if __name__ == "__main__":
    main()
