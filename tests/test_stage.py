"""What a stage's work is kept under: params, inputs and code, and nothing that stays the same when these change."""

from __future__ import annotations

import pytest

import pipeline
from pipeline.data.commit import contents
from pipeline.data.manifest import SlideEntry
from pipeline.slides.summarise import summarised
from pipeline.stage import code_fingerprint


@pytest.mark.parametrize("above", ["report", "study"])
def test_code_counts_wherever_it_is_installed(tmp_path, monkeypatch, above):
    root = tmp_path / above / "pipeline"
    for folder in ("data", "report"):
        (root / folder).mkdir(parents=True)
    monkeypatch.setattr(pipeline, "__file__", str(root / "__init__.py"))
    found = []
    for sources in (("1", "1"), ("1", "2"), ("2", "2")):
        for folder, text in zip(("data", "report"), sources):
            (root / folder / "a.py").write_text(text)
        code_fingerprint.cache_clear()
        found.append(code_fingerprint())
    code_fingerprint.cache_clear()
    assert found[0] == found[1] != found[2], "the report alone makes nothing that is taken up"


def test_what_a_training_begins_from_counts_by_what_it_holds(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = contents("scratch", None, str(tmp_path))
    (tmp_path / "config.json").write_text("{ }")
    after = contents("scratch", None, str(tmp_path))
    assert before[:2] == after[:2] == [None, None] and before[2] != after[2]


def test_an_edited_script_summarises_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = (SlideEntry("s", tmp_path / "s.svs", "p", 2, caption="a long report"),)
    said = []
    for words in ("short", "shorter"):
        (tmp_path / "mine.sh").write_text(f"cat > /dev/null; echo {words}")
        said.append(summarised(entries, "sh mine.sh", tmp_path / "kept")[0].caption)
    assert said == ["short", "shorter"]
