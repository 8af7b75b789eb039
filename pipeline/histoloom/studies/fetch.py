"""Get the demo's slide. A study of your own has no such stage: its slides are yours."""

from __future__ import annotations

from histoloom.data.demo_slide import fetch_demo_slide
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    fetch_demo_slide(work.study.slides / "cmu_small_region.svs")
