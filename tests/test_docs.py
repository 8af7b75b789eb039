"""The pages: what they say can be read, what they link to is there, and what they list is what the code has."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from histoloom.cli.reference import reference
from histoloom.data.schema import PLAN_ROW, SYNTHETIC_ROW, TILE_ROW
from tests.prose import ROOT, anchors, faults, links, pages, sentences


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_are_short_and_hold_few_numbers(page):
    found = [f"{page.name}:{line}: {what}: {text}" for line, what, text in faults(page.read_text(encoding="utf-8"))]
    assert found == [], "\n".join(found)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings(page):
    """Those of docs/ stay there, so that they hold on the site too."""
    for line, target, anchor in links(page.read_text(encoding="utf-8")):
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{page.name}:{line} leads to {target}, which is not there"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place.read_text(encoding="utf-8")), f"{page.name}:{line} leads to no #{anchor}"
        if page.is_relative_to(ROOT / "docs"):
            assert place.is_relative_to(ROOT / "docs"), f"{page.name}:{line} leads out of docs/: {target}"


def test_pages_that_code_names_are_there():
    named = {
        (path, page)
        for folder in ("pipeline", "benchmarks", "tests", "stages", "recipes")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml") and path != Path(__file__)
        for page in re.findall(r"docs/[\w/-]+\.\w+", path.read_text(encoding="utf-8"))
    }
    assert [
        f"{path.name}: {page}" for path, page in sorted(named) if not (ROOT / page).exists() and "NAME" not in page
    ] == []
    assert named


def test_every_key_of_params_has_a_meaning():
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    empty = [row[0] for row in rows if not re.sub(r"^of \w+:", "", row[-1].strip(" |")).strip()]
    assert len(rows) > 300 and empty == [], "write what the key means in pipeline/histoloom/config"


@pytest.mark.parametrize("schema", [TILE_ROW, SYNTHETIC_ROW, PLAN_ROW])
def test_every_column_is_on_the_page_of_file_formats(schema):
    page = (ROOT / "docs/reference/file-formats.md").read_text(encoding="utf-8")
    assert [name for name in schema.names if f"`{name}`" not in page] == []


def test_the_notebook_holds_little_and_no_path_of_a_machine():
    path = ROOT / "docs/tutorial.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text) < 600_000
    cells = json.loads(text)["cells"]
    prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert [*faults(prose)] == [] and sentences(prose)
    assert not re.search(r"/(home|root|tmp|Users)/", text)


def test_the_checker_finds_long_sentences_where_they_begin():
    long = " ".join(["word"] * 41) + "."
    assert next(faults(f"# Title\n\nShort.\n{long}\n"))[:2] == (4, "41 words, at most 40")
    assert next(faults(f"- One. {long}\n- Two.\n"))[0] == 1
    assert [*faults("A b.\n\n" + "| " + long + " |\n|---|\n")] == []
    assert [*faults("```\n" + long + "\n```\n")] == [] and [*faults("<!-- " + long + " -->\n")] == []


def test_the_checker_reports_a_long_average_once():
    twenty_one = " ".join(["Word"] + ["word"] * 20) + ". "
    assert [*faults(twenty_one * 3)] == [(1, "21.0 words a sentence, at most 20 on average", "")]


@pytest.mark.parametrize(
    "text, count",
    [
        ("It took 3 s for 2 tiles of 5 px.", 3),
        ("It is 0.1 to 0.3, and between 2 and 4 elsewhere.", 2),
        ("It is -0.1 to 0.2 (95 %), 1,024 x 1,024 px.", 2),
        ("As Song et al. (2021) and Su et al. (2023) and Ho et al. (2022) say.", 0),
        ("Set `a: 1`, `b: 2` and `c: 3` of her2st and EfficientNet-Lite0 and C5.", 0),
        ("[2 of 3](a/1/2/3.md) pictures ![4 and 5 and 6](x.png) are there.", 1),
    ],
)
def test_the_checker_counts_measurements(text, count):
    (sentence,) = sentences(text)
    assert len(sentence.measurements) == count


def test_the_checker_tells_sentences_apart():
    found = sentences(
        "One et al. (2020) said so. `code` ends it. Then (e.g. here) more? Yes.\n* An item\n* Another: 2."
    )
    assert [s.text for s in found] == [
        "One et al (2020) said so.", "Code ends it.", "Then (eg here) more?", "Yes.", "An item", "Another: 2.",
    ]  # fmt: skip
    assert [s.line for s in found] == [1, 1, 1, 1, 2, 3] and found[0].words == 6


def test_the_checker_finds_links():
    text = "[a](x.md#y) ![b](p/q.jpg) [c](https://e.org) [d](#here) `[e](no.md)`\n\n```\n[f](no.md)\n```\n"
    assert [*links(text)] == [(1, "x.md", "y"), (1, "p/q.jpg", ""), (1, "", "here")]
    assert anchors('# A `b`_c: d\n\n<a id="e"></a>\n') == {"a-b_c-d", "e"}


def test_docstrings_are_rewritten_as_numpy_s():
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/extensions/docstrings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "A tile.\n\npx : its side.\nmpp : its\nscale.\n\nParameters\n----------\na, b : numbers\n    of it.\n\nRaises\n------\nE\n    now : no."
    assert module.numpy_style(text).splitlines() == [
        "A tile.", "", "Attributes", "----------", "px", "    its side.", "mpp", "    its", "    scale.", "",
        "Parameters", "----------", "a, b", "    numbers", "    of it.", "", "Raises", "------", "E", "    now : no.",
    ]  # fmt: skip
    assert module.numpy_style("Colour : none.") == "Colour : none."
