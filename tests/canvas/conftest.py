"""A folder with masks and tables that slides may name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.build import box_ring, feature, write_csv, write_geojson


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_geojson("halves.json", feature("left", box_ring(0, 0, 80, 64)), feature("right", box_ring(80, 0, 160, 64)))
    write_geojson("other.json", feature("middle", box_ring(0, 0, 80, 64)))
    Image.fromarray(np.zeros((128, 100), np.uint8)).save("narrow.png")
    Image.fromarray(np.full((128, 160), 3, np.uint8)).save("three.png")
    write_csv("field.csv", [{"row": 0, "col": 0, "label": "left"}, {"row": 0, "col": 1, "label": "right"}])
    write_csv("hole.csv", [{"row": 0, "col": 0}, {"row": 1, "col": 1}])
    write_csv("typo.csv", [{"row": 0, "col": "x", "label": "lefft", "colour": "red"}])
    write_csv("wrong.csv", [{"row": 0, "col": "x", "label": "lefft"}])
    write_csv("old.csv", [{"row": 0, "col": 0, "number.age": "7,5", "cohort.site": "a"}])
    return tmp_path
