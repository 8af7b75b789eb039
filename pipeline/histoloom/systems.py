"""Published systems: a folder each, with what it changes in params, its data, and how the number of its claim is measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.config.learners import LearnerConfig
    from histoloom.uplift.learner_comparison import LearnerComparison

RECIPE, CODE, PAGE, EXPECTED = "recipe.yaml", "system.py", "README.md", "expected.json"
FULL, REAL = "full.yaml", "real.yaml"


class Measured(TypedDict):
    """What a system comes to beside its baseline, in one run.

    difference_interval : 95 % of value minus baseline. n : of what was measured. more : further numbers by name.
    """

    value: float
    baseline: float
    difference_interval: tuple[float, float]
    unit: str
    n: int
    more: dict[str, float]


def root() -> Path:
    """The folder of systems: beside the command in an installed package, else at the repository's top."""
    here = Path(__file__).parent / "cli" / "study" / "systems"
    return here if here.exists() else Path(__file__).parents[2] / "systems"


def names() -> list[str]:
    return sorted(folder.parent.name for folder in root().glob(f"*/{RECIPE}"))


def folder_of(name: str) -> Path:
    """A system's folder.

    Raises
    ------
    HistoloomError
        when there is none of this name.
    """
    if name not in names():
        raise HistoloomError(f"There is no system '{name}'. There are: {', '.join(names())}.")
    return root() / name


def code_of(name: str) -> ModuleType:
    """A system's own code: `prepare(folder, data, fold)`, `measure(studies)` and `STAGES`; `FOLDS` where it has several."""
    module_name = f"histoloom_system_{name}"
    spec = importlib.util.spec_from_file_location(module_name, folder_of(name) / CODE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def expected(name: str) -> dict[str, Any]:
    """The range of its number on drawn data."""
    return json.loads((folder_of(name) / EXPECTED).read_text(encoding="utf-8"))


def learner_pictures(
    comparison: LearnerComparison, learners: Mapping[str, LearnerConfig], test: str, count: int = 10
) -> dict[str, np.ndarray]:
    """Test tiles, what their masks are, what learners say, and how sure the first one is (black is unsure); by title."""
    from histoloom.report.pictures import mask_picture

    truth = comparison.truth(test)
    images = np.concatenate([fold.tests[test].images for fold in comparison.folds])
    few = np.unique(np.linspace(0, len(truth) - 1, count).astype(int))
    found = {name: comparison.masks(learner, test)[0][few] for name, learner in learners.items()}
    sure = comparison.certainty(next(iter(learners.values())), test)[0][few]
    return {
        "held-out tiles": images[few],
        "their masks": mask_picture(truth[few]),
        **{name: mask_picture(masks) for name, masks in found.items()},
        "how sure the first is": np.repeat((255 * sure).astype(np.uint8)[..., None], 3, -1),
    }


def paired_interval(
    differences: Sequence[float] | np.ndarray, groups: Sequence[str] | Any, draws: int = 2000
) -> tuple[float, float]:
    """95 % of the mean of differences, whole groups drawn with replacement, and tiles within them."""
    values, of = np.asarray(differences, float), np.asarray(groups)
    members = [np.flatnonzero(of == name) for name in np.unique(of)]
    rng, means = np.random.default_rng(0), []
    for _ in range(draws):
        chosen = [members[place] for place in rng.integers(0, len(members), len(members))]
        means.append(np.mean(np.concatenate([values[rng.choice(rows, len(rows))] for rows in chosen])))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
