"""What the code promises of itself."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("pipeline", "stages") for path in (ROOT / folder).rglob("*.py"))
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

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


RULES = [_global_randomness, _pickle, _print, _eval, _bare_except, _absolute_path]


def _breaches(text: str, rule) -> list[int]:
    return [node.lineno for node in ast.walk(ast.parse(text)) if rule(node)]


@pytest.mark.parametrize("rule", RULES)
def test_no_source_breaks_a_rule(rule):
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
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


_LIST = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    for module in [m for m in sys.modules if m.split(".")[0] in ("pipeline", "stages")]:
        del sys.modules[module]
    importlib.import_module("stages." + name)
    found[name] = sorted({".".join(m.split(".")[:2]) for m in sys.modules if m.startswith("pipeline.")})
sys.stdout.write(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What of the pipeline each stage's import loads: 'pipeline.data', 'pipeline.config', ..."""
    done = _run(sys.executable, "-c", _LIST, *STAGES)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_that_it_loads(name, loaded):
    folders = {m.replace(".", "/") for m in loaded[name] if (ROOT / m.replace(".", "/")).is_dir()}
    folders -= {"pipeline/config"}  # a new key with a default changes no stage's result
    code = {d for d in STAGES[name]["deps"] if d.startswith(("pipeline", "stages"))}
    assert code == {f"stages/{name}.py"} | folders


def test_each_stage_is_a_file_and_each_file_a_stage():
    assert {p.stem for p in (ROOT / "stages").glob("[!_]*.py")} == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m stages.{name}" and stage["desc"].endswith(".")


@pytest.mark.parametrize(
    "statement", ["import pipeline.cli.main", "import stages.tile", "import stages.plan, pipeline.stage"]
)
def test_what_needs_no_torch_loads_none(statement):
    done = _run(sys.executable, "-c", f"import sys; {statement}; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr
