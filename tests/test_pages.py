"""The Python code of pages runs as it stands: all blocks of a page, in order, in one namespace."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.build import make_part, tile_rows, tissue_picture

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Each block of a page with the place that an error is to name."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start(1))
        yield f"{page.name}, block at line {line + 1}", "\n" * line + found[1]


def run_page(page: Path) -> dict:
    """Run a page in the current folder; the names that its blocks leave."""
    names: dict = {"__name__": "page"}
    for place, code in blocks(page):
        exec(compile(code, place, "exec"), names)
    return names


def use_in_python() -> None:
    """A store of labelled tiles with masks, and a scan."""
    images = np.stack([tissue_picture(128, 128, seed=number) for number in range(40)])
    masks = np.zeros((40, 128, 128), np.uint8)
    masks[:, 20:30, 20:30], masks[:, 60:70, 80:90] = 1, 2
    labels = [("cancer", "immune", "other")[number % 3] for number in range(40)]
    rows = tile_rows(40, label=labels, split=["train"] * 16 + ["test"] * 24, mpp=0.69)
    make_part("data/tiles", "slide", rows, images, masks=masks)
    Image.fromarray(tissue_picture(160, 140, seed=99)).save("scan.png")


PAGES: dict[str, Callable[[], None]] = {"docs/how-to/use-in-python.md": use_in_python}
"""Pages whose blocks are run, and what makes the files that they read in an empty folder. Add a page here."""


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, folder, capsys):
    PAGES[page]()
    names = run_page(ROOT / page)
    assert len(names) > 5


def test_every_page_of_the_list_has_code_and_links_that_lead_somewhere():
    for page in PAGES:
        path = ROOT / page
        assert [*blocks(path)], page
        text = path.read_text(encoding="utf-8")
        headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
        for target in re.findall(r"\]\(([^)]+)\)", text):
            file, _, anchor = target.partition("#")
            assert not file or (path.parent / file).is_file(), target
            assert file or anchor in headings, target


def test_an_error_names_the_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nx = 1\n```\n\ntext\n\n```python\ny = x\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as found:
        run_page(page)
    last = found.traceback[-1]
    assert (last.path.name if isinstance(last.path, Path) else str(last.path)) == "page.md, block at line 10"
    assert last.lineno + 1 == 11
