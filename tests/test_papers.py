"""CITATION.cff, CONTRIBUTING.md and SECURITY.md agree with the rest of the repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import histoloom

ROOT = Path(__file__).parents[1]
PAPERS = ("CONTRIBUTING.md", "SECURITY.md")


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version_and_names_whose_data_the_packaged_model_saw():
    cited = YAML(typ="safe").load(_text("CITATION.cff"))
    project = tomllib.loads(_text("pyproject.toml"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys() and cited["type"] == "software"
    assert cited["version"] == project["version"] == histoloom.__version__ and cited["license"] == project["license"]
    card = _text("pretrained/histoloom-base/README.md")
    by_name = {reference["authors"][0]["family-names"]: reference for reference in cited["references"]}
    assert set(by_name) == {"Liu", "Andersson", "Ehteshami Bejnordi", "Naylor"}
    for name, reference in by_name.items():
        assert re.fullmatch(r"10\.\d{4,}/\S+", reference["doi"]) and reference["title"] and reference["journal"]
        place = card if name != "Liu" else _text("systems/README.md")
        assert name in place and str(reference["year"]) in place


@pytest.mark.parametrize("name", PAPERS)
def test_links_targets_and_files_that_a_paper_names_are_there(name):
    text = _text(name)
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z-]+):", _text("Makefile"), re.MULTILINE))
    assert {target for target in re.findall(r"make ([a-z-]+)", text) if target not in ("sure",)} <= targets
    for place in re.findall(r"`((?:docs|tests|pipeline)/[\w./-]+)`", text):
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("name", PAPERS)
def test_no_address_is_named(name):
    """None is known: neither of mail nor of a page."""
    assert re.findall(r"https?://|\S+@\S+\.\S+", _text(name)) == []
