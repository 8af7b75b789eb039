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

from benchmarks.run import flat, report

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-bf16", action="store_true")
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
    report("demo", False, {"bf16": not options.without_bf16}, flat({"demo_s": found}), {}, options.json)


if __name__ == "__main__":
    main()
