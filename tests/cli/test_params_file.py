"""The params.yaml of a new study: what recipes state and nothing else, in the order of the stages, each comment beside its own key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from histoloom.cli.init import make_study
from histoloom.cli.params_file import comment_of, params_text
from histoloom.cli.recipe import merge
from histoloom.config import Params, Section, Tile, TrainDenoiser
from histoloom.studies.stages import STAGES

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if path.stem != "study")
SYSTEMS = sorted((ROOT / "systems").glob("*/*.yaml"))
KEY = re.compile(r"( *(?:- )?)([\w.-]+):( .*|$)")


def _merged(*paths: Path) -> dict:
    out: dict = {}
    for path in (ROOT / "recipes/study.yaml", *paths):
        merge(out, YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {})
    return out


def _field(path: list[str]) -> FieldInfo | None:
    """The field of a key, by the keys above it; None of what lies inside a value."""
    section: type[Section] | None = Params
    field: FieldInfo | None = None
    for place, key in enumerate(path):
        if section is None:
            return None
        if place == 1 and path[0] == "models":
            field = None  # a name of the user's
            continue
        field = section.written_keys().get(key)
        if field is None:
            return None
        kind = field.annotation
        kind = get_args(kind)[0] if get_origin(kind) is tuple else kind  # an item of a list
        section = kind if isinstance(kind, type) and issubclass(kind, Section) else None
        if path[0] == "models" and place == 0:
            section = kind.__args__[1]
    return field


def _commented(text: str) -> list[tuple[list[str], str]]:
    """Every line that begins with a key, as the keys down to it, with the comment beside it or in the lines above."""
    out, above, stack = [], [], []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.strip().lstrip("# "))
        elif found := KEY.fullmatch(line):
            stack = [(indent, key) for indent, key in stack if indent < len(found[1])] + [(len(found[1]), found[2])]
            beside = found[3].partition(" # ")[2].strip()
            out.append(([key for _, key in stack], " ".join(above) or beside))
            above = []
        elif not line.strip():
            above = []
    return out


def _without_nulls(node):
    return {k: _without_nulls(v) for k, v in node.items() if v is not None} if isinstance(node, dict) else node


@pytest.mark.parametrize(
    "paths", [(), *((path,) for path in RECIPES + SYSTEMS)], ids=lambda p: "_".join(x.parent.name + x.stem for x in p)
)
def test_each_comment_is_of_the_key_that_it_stands_beside(paths):
    params = _merged(*paths)
    text = params_text(params)
    assert _without_nulls(YAML(typ="safe").load(text)) == _without_nulls(params)
    assert max(map(len, text.splitlines())) <= 120 or paths
    stages = [keys[0] for keys, _ in _commented(text) if len(keys) == 1 and keys[0] in STAGES]
    assert stages == [name for name in STAGES if name in params]
    said = 0
    for keys, comment in _commented(text):
        if keys[0] in STAGES and len(keys) == 1:
            assert comment == STAGES[keys[0]].desc
            continue
        assert comment == comment_of(_field(keys)), keys
        said += bool(comment)
    assert said > 30


@pytest.mark.parametrize(
    "section, key, words",
    [
        (Tile, "stain", "none, macenko or reinhard; "),
        (TrainDenoiser, "steps", "0 uses the loaded weights as they are"),
        (TrainDenoiser, "batch_size", "tiles or windows in a step"),
    ],
)
def test_a_comment_is_made_of_a_key_s_own_words(section, key, words):
    said = comment_of(section.written_keys()[key])
    assert said.startswith(words) and bool(said) == bool(words)


def test_text_that_looks_like_a_switch_is_quoted_and_what_null_means_is_kept():
    text = params_text(
        {"tile": {"manifest": None, "upsample": None, "stain": "none"}, "train_denoiser": {"mixed_precision": "no"}}
    )
    assert 'mixed_precision: "no"' in text and "upsample" not in text
    assert "manifest: null" in text or "manifest:  " in text
    assert YAML(typ="safe").load(text)["tile"] == {"manifest": None, "stain": "none"}


def test_init_writes_it_with_the_folder_of_slides(tmp_path):
    (tmp_path / "slides").mkdir()
    make_study(tmp_path / "study", slides=tmp_path / "slides")
    text = (tmp_path / "study/params.yaml").read_text(encoding="utf-8")
    assert text == params_text(_merged() | {"tile": _merged()["tile"] | {"slides_root": str(tmp_path / "slides")}})
