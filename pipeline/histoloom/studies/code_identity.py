"""Which code a stage's work depends on, and its identity: what another version of it began is not taken up."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import histoloom
from histoloom.config import Params, Section
from histoloom.config.learners import DenoiserLearner, LearnerConfig
from histoloom.data.commit import digest
from histoloom.errors import HistoloomError
from histoloom.registry import LOADS, PLACES, Kind, module_of
from histoloom.studies.stages import STAGES

_HOW_IT_RUNS = {
    f"histoloom.{name}"
    for name in ("cluster", "scheduler", "progress", "errors", "studies.stage_work", "training.processes")
}
"""Modules that decide where and how work is done and what is said of it, not what it makes."""


def code_sha256(stage: str, params: Params) -> str:
    """sha256 of the code that decides what a stage makes: its file, its sections of params, the registered pieces that params name, and
    all that these import.

    Comments, docstrings and descriptions don't count.
    """
    return _sha256(stage, _pieces(stage, params))


def _pieces(stage: str, params: Params) -> frozenset[str]:
    learners = _learners(stage, params)
    names: dict[Kind, set[str]] = {kind: set() for kind in PLACES} | {"learner": {learner.name for learner in learners}}
    for link in params.run_models.values():
        for kind, of_kind in _named(link).items():
            names[kind] |= {*of_kind}
    names["repair"] |= {"model"} if params.tile.repair.is_on else set()
    named = [(kind, name) for kind in STAGES[stage].loads for name in names[kind]]
    in_turn = [(kind, name) for piece in named for kind in LOADS.get(piece, ()) for name in names[kind]]
    if "learner" in STAGES[stage].loads:
        in_turn += [(kind, name) for learner in learners for kind, of in learner.loads.items() for name in of]
    return frozenset(module_of(kind, name) for kind, name in [*named, *in_turn])


def _learners(stage: str, params: Params) -> tuple[LearnerConfig, ...]:
    """The learner of the experiment, or that which the mask filter looks with; `anomaly` loads what the learner `denoiser` does."""
    if stage == "uplift":
        return (params.uplift.learner_config,)
    of: dict[str, LearnerConfig] = {"mask": params.train_filters.segmenter_config}
    of |= {"anomaly": DenoiserLearner()} if stage == "filter" else {}
    return tuple(learner for name, learner in of.items() if name in params.filter.use)


def _named(params: Params) -> dict[Kind, tuple[str, ...]]:
    """What the params of one model name."""
    config = params.train_denoiser
    return {
        "target": (config.target.name,),
        "target_fit": tuple(name for name in (config.target.name,) if name in PLACES["target_fit"]),
        "backbone": (config.backbone,),
        "condition": config.encoded,
        "reduce": tuple(dict.fromkeys(request.reduce.name for request in params.plan.requests)) or ("each",),
        "condition_fit": tuple(name for name in config.encoded if name in PLACES["condition_fit"]),
    }


@cache
def _sha256(stage: str, pieces: frozenset[str]) -> str:
    return digest({name: _meaning(_file(name)) for name in code_of(stage, pieces)})


def code_of(stage: str, pieces: frozenset[str] = frozenset()) -> list[str]:
    """The modules, as 'histoloom.data.store', that a stage's file and these pieces import, directly or not, wherever the import
    stands."""
    found, open_ = set(), {f"histoloom.studies.{stage}", *_sections(stage), *pieces}
    while open_:
        found.add(name := open_.pop())
        open_ |= {module for module in _imported(_file(name)) if _decides(module)} - found
    return sorted(found)


def folders_of(stage: str) -> list[str]:
    """The package's folders, from this repository's top, that hold that code and all that params may name, and the stage's own file."""
    pieces = frozenset(place.partition(":")[0] for kind in STAGES[stage].loads for place in PLACES[kind].values())
    parts = [module.split(".")[1:] for module in code_of(stage, pieces)]
    folders = {part[0] for part in parts if len(part) > 1 and part[0] not in ("config", "studies")}
    return [f"pipeline/histoloom/studies/{stage}.py", *(f"pipeline/histoloom/{name}" for name in sorted(folders))]


def _decides(module: str) -> bool:
    """A section's values are known of the stage's params, and its code of `_sections`."""
    return module not in _HOW_IT_RUNS and module != "histoloom.config" and module not in _of_sections().values()


def _sections(stage: str) -> set[str]:
    """The modules of the sections of params that the stage takes whole."""
    return {_of_sections()[key] for key in STAGES[stage].params if key in _of_sections()} | {"histoloom.config.base"}


@cache
def _of_sections() -> dict[str, str]:
    """Section of params to its module."""
    kinds = {name: field.annotation for name, field in Params.model_fields.items()}
    found = {
        name: kind.__module__ for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)
    }
    return found | {"": Params.__module__}


def _root() -> Path:
    return Path(histoloom.__file__).parent


def _file(module: str) -> Path | None:
    """A module's file, or None for what is no module; a piece from outside is named by its file."""
    if module.endswith(".py"):
        return Path(module)
    place = _root().joinpath(*module.split(".")[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _imported(path: Path) -> frozenset[str]:
    found = set()
    for node in ast.walk(_parsed(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{name}" for name in names] + [node.module]
        found |= {name for name in names if name.startswith("histoloom.") and _file(name) is not None}
    return frozenset(found)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise HistoloomError(f"{path}, which 'extensions' names, can't be read: {error}") from error


@cache
def _meaning(path: Path) -> str:
    """A module's syntax tree without what is written for people."""
    tree = _parsed(path)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [statement for statement in body if not _is_text(statement)]
        if isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
