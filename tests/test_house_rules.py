"""What the code promises of itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from histoloom.studies.dvc_yaml import repository_yaml
from histoloom.studies.stages import STAGES

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("pipeline", "stages") for path in (ROOT / folder).rglob("*.py"))

_NUMPY_GENERATORS = {"default_rng", "Generator", "Philox", "PCG64", "SeedSequence", "BitGenerator"}
_TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial"}
_TORCH_DRAWS |= {f"{name}_like" for name in ("rand", "randn", "randint")}
_TORCH_GLOBALS = {"manual_seed", "seed", "set_rng_state", "initial_seed"}
_PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def _dotted(node: ast.AST) -> str:
    """'np.random.rand' of an attribute chain; '' of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{before}.{node.attr}" if (before := _dotted(node.value)) else ""
    return ""


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _global_randomness(node: ast.AST) -> bool:
    if any(name.split(".")[0] == "random" for name in _imports(node)):
        return True
    if not isinstance(node, ast.Call):
        return False
    *module, name = _dotted(node.func).split(".")
    if module[-2:] in (["np", "random"], ["numpy", "random"]):
        return name not in _NUMPY_GENERATORS
    if module in (["torch"], ["torch", "cuda"]):
        given = {keyword.arg for keyword in node.keywords}
        return name in _TORCH_GLOBALS or (name in _TORCH_DRAWS and "generator" not in given)
    return False


def _pickle(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom) and [name.name for name in node.names] == ["UnpicklingError"]:
        return False  # what torch raises where a file holds more than tensors
    if any(name.split(".")[0] in _PICKLES for name in _imports(node)):
        return True
    if not isinstance(node, ast.Call):
        return False
    keywords = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
    unsafe_load = _dotted(node.func) in ("torch.load", "torch.save") and keywords.get("weights_only") is not True
    return unsafe_load or keywords.get("allow_pickle") is True or keywords.get("trust_remote_code") is True


def _print(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _dotted(node.func) == "print"


def _eval(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and (
        _dotted(node.func) in ("eval", "exec", "os.system")
        or any(k.arg == "shell" and getattr(k.value, "value", False) for k in node.keywords)
    )


def _bare_except(node: ast.AST) -> bool:
    return isinstance(node, ast.ExceptHandler) and (
        node.type is None or _dotted(node.type) in ("Exception", "BaseException")
    )


def _absolute_path(node: ast.AST) -> bool:
    text = node.value if isinstance(node, ast.Constant) else None
    return isinstance(text, str) and bool(
        re.fullmatch(r"(/(home|work|root|tmp|usr|data|mnt|opt)\b|[A-Z]:\\|~/).*", text)
    )


_MAY = {("_pickle", "pipeline/histoloom/training/processes.py")}
"""A training's other processes are sent what they are to do by the one that started them, through a pipe; no file is read."""
RULES = [_global_randomness, _pickle, _print, _eval, _bare_except, _absolute_path]


def _breaches(text: str, rule) -> list[int]:
    return [node.lineno for node in ast.walk(ast.parse(text)) if rule(node)]


@pytest.mark.parametrize("rule", RULES)
def test_no_source_breaks_a_rule(rule):
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        if (rule.__name__, str(path.relative_to(ROOT))) not in _MAY
        for line in _breaches(path.read_text(encoding="utf-8"), rule)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text, rule",
    [
        ("import random", _global_randomness),
        ("from random import choice", _global_randomness),
        ("np.random.seed(0)", _global_randomness),
        ("x = numpy.random.rand(3)", _global_randomness),
        ("torch.manual_seed(0)", _global_randomness),
        ("torch.randn(3)", _global_randomness),
        ("import pickle", _pickle),
        ("torch.load('x')", _pickle),
        ("np.load('x', allow_pickle=True)", _pickle),
        ("f(trust_remote_code=True)", _pickle),
        ("print(1)", _print),
        ("eval('1')", _eval),
        ("run('x', shell=True)", _eval),
        ("try:\n    pass\nexcept Exception:\n    pass", _bare_except),
        ("p = '/home/me/x'", _absolute_path),
    ],
)
def test_the_rules_find_what_they_ban(text, rule):
    assert _breaches(text, rule)


@pytest.mark.parametrize(
    "text", ["np.random.default_rng(1).random()", "torch.randn(3, generator=g)", "torch.load('x', weights_only=True)"]
)
def test_the_rules_let_pass_what_is_allowed(text):
    assert not [rule for rule in RULES if _breaches(text, rule)]


def test_files_and_functions_are_short_and_named_for_what_they_do():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 320, path
        assert path.stem not in ("utils", "helpers", "misc", "common"), path
        assert ast.get_docstring(ast.parse(text)), path


def test_no_configuration_holds_an_absolute_path():
    for name in (
        "params.yaml",
        "cluster.yaml",
        "dvc.yaml",
        *(f"recipes/{p.name}" for p in (ROOT / "recipes").glob("*.yaml")),
    ):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            assert not re.search(r"""[:\[ "'](/|~/)\w""", line.split("#")[0]), f"{name}: {line}"


def _run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_imports_point_downwards():
    done = _run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dvc_yaml_is_what_the_stages_state():
    assert (ROOT / "dvc.yaml").read_text(encoding="utf-8") == repository_yaml(), (
        'write it anew: python -c "from histoloom.studies.dvc_yaml import repository_yaml as y; print(y(), end=str())" > dvc.yaml'
    )


def test_each_stage_is_a_file_and_each_file_a_stage():
    assert {p.stem for p in (ROOT / "stages").glob("[!_]*.py")} == set(STAGES)
    assert all((ROOT / f"pipeline/histoloom/studies/{name}.py").is_file() for name in STAGES)
    assert all(stage.desc.endswith(".") for stage in STAGES.values())


@pytest.mark.parametrize(
    "statement",
    ["import histoloom.cli.main", "import stages.tile", "import histoloom.studies.stage_work, histoloom.studies.plan"],
)
def test_what_needs_no_torch_loads_none(statement):
    done = _run(sys.executable, "-c", f"import sys; {statement}; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
