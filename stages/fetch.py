"""Get the demo's slide. A study of your own has no such stage: its slides are yours."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.config import load_params
from pipeline.data.demo_slide import fetch_demo_slide


def main() -> None:
    fetch_demo_slide(Path(load_params().tile.slides_root) / "cmu_small_region.svs")


if __name__ == "__main__":
    stage.run(main)
