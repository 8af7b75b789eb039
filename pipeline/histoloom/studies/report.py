"""Write the report: one self-contained page, and one for each woven slide."""

from __future__ import annotations

from histoloom.progress import console
from histoloom.report.page import write_report
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    output = work.study.reports() / "index.html"
    write_report(work.study, output)
    console.print(f"report: {output.resolve()}")
