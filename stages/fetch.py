"""Get the demo's slide. A study of your own has no such stage: its slides are yours."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.data.demo_slide import fetch_demo_slide


def main() -> None:
    fetch_demo_slide(Path("data/slides/cmu_small_region.svs"))


if __name__ == "__main__":
    stage.run(main)
