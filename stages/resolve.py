"""Write every param with its default, and what the files hold that params name."""

from __future__ import annotations

from pipeline import stage
from pipeline.config import load_params
from pipeline.data.named_files import write_resolved


def main() -> None:
    write_resolved(load_params())


if __name__ == "__main__":
    stage.run(main)
