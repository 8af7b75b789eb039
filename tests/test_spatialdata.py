"""The snippet of docs/how-to/exchange-formats.md that makes SpatialData of a study's tiles, where its extra is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.build import make_slide
from tests.studies.tiling import slide_row, study, tile_slides

PAGE = Path(__file__).parents[1] / "docs/how-to/exchange-formats.md"


@pytest.mark.filterwarnings("ignore")
def test_the_tiles_of_a_slide_are_read_back(folder):
    spatialdata = pytest.importorskip("spatialdata", reason="the extra spatialdata is not installed")
    for number in range(3):
        make_slide(f"data/slides/s{number}.svs", width=256, height=256, mpp=0.5, seed=number)
    tile_slides(study([slide_row(number) for number in range(3)], {"stride_px": 32}).tile)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (snippet,) = [block for block in blocks if "import spatialdata" in block]
    exec(compile(snippet, PAGE.name, "exec"), {})
    found = spatialdata.read_zarr("s1.zarr")
    squares, rows = found["tiles"], found["rows"].obs
    assert len(squares) == len(rows) > 1 and set(squares.geometry.area) == {128.0**2}
    assert rows["tile_id"].str.startswith("s1").all()
