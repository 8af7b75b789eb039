"""Write the report: one self-contained page."""

from __future__ import annotations

from pathlib import Path

from pipeline import stage
from pipeline.config import load_params
from pipeline.progress import console
from pipeline.report.study import write_report


def main() -> None:
    output = Path("reports/index.html")
    write_report(load_params(), output)
    console.print(f"report: {output.resolve()}")


if __name__ == "__main__":
    stage.run(main)
