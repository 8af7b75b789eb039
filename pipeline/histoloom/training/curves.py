"""Training curves through dvclive, so that `dvc plots` shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def curves(folder: Path | str) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Yield log(step, numbers), which writes one table a number under `folder`."""
    from dvclive import Live

    with Live(dir=str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False) as live:

        def log(step: int, numbers: dict[str, float]) -> None:
            live.step = step
            for name, value in numbers.items():
                live.log_metric(name, value)

        yield log
    (Path(folder) / "metrics.json").unlink(missing_ok=True)  # the last numbers, which `dvc plots` can't draw
