"""The same tissue under two patients' ids is found, however the slide lay on the scanner; other tissue is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from histoloom.cli.main import cli
from histoloom.config import Tile
from histoloom.data.store import TileStore
from histoloom.quality.shared_tissue import find_duplicates
from tests.build import make_part, make_slide, make_study, tile_rows, tissue_picture

pytestmark = pytest.mark.long

SIDE, STRIDE = 48, 24


def _store(folder, pictures: dict[str, np.ndarray], patients: dict[str, str]) -> TileStore:
    for name, picture in pictures.items():
        places = [
            (y, x)
            for y in range(0, picture.shape[0] - SIDE + 1, STRIDE)
            for x in range(0, picture.shape[1] - SIDE + 1, STRIDE)
        ]
        rows = tile_rows(len(places), slide_id=name, patient_id=patients[name])
        rows = rows.assign(
            tile_id=[f"{name}_{x}_{y}" for y, x in places],
            x_level0_px=[x for _, x in places],
            y_level0_px=[y for y, _ in places],
        )
        make_part(folder / "data/tiles", name, rows, np.stack([picture[y : y + SIDE, x : x + SIDE] for y, x in places]))
    return TileStore(folder / "data/tiles")


def _tissue(seed: int) -> np.ndarray:
    return tissue_picture(512, 512, seed)[112:400, 112:400]


CONFIG = Tile(
    mpp=1.0, tile_px=SIDE, stride_px=STRIDE, labels={"source": "slide", "classes": ["tumour"]}, manifest="slides.csv"
)


@pytest.mark.parametrize(
    "seen_again",
    [
        lambda p: p,
        lambda p: np.ascontiguousarray(np.rot90(p)),
        lambda p: np.ascontiguousarray(p[7:, 10:, :][:, ::-1]),
    ],
)
def test_a_slide_under_two_ids_is_named(seen_again, tmp_path):
    pictures = {"a": _tissue(1), "b": _tissue(2), "again": seen_again(_tissue(1))}
    store = _store(tmp_path, pictures, {"a": "p1", "b": "p2", "again": "p3"})
    (fault,) = find_duplicates(store, CONFIG)
    assert "'a' and 'again'" in str(fault) and "slides.csv" in str(fault) and "patient_id" in fault.remedy


def test_one_patients_own_slides_may_be_alike(tmp_path):
    store = _store(
        tmp_path, {"a": _tissue(1), "again": _tissue(1), "b": _tissue(2)}, {"a": "p1", "again": "p1", "b": "p2"}
    )
    assert find_duplicates(store, CONFIG) == []


def test_the_command_needs_tiles_and_then_finds_them(folder):
    rows = [
        {"slide_id": n, "path": f"{n}.tif", "patient_id": p, "label": "tumour"} for n, p in (("a", "p1"), ("c", "p2"))
    ]
    make_study(
        ".",
        rows,
        {"tile_px": SIDE, "stride_px": STRIDE, "labels": {"source": "slide", "classes": ["tumour"]}},
        plan={"target": 9},
    )
    for row in rows:
        make_slide(folder / "data/slides" / row["path"], width=256, height=256)
    done = CliRunner().invoke(cli, ["validate", "--deep"])
    assert done.exit_code == 1 and "dvc repro tile" in done.output, done.output
    _store(folder, {"a": _tissue(1), "c": _tissue(1)}, {"a": "p1", "c": "p2"})
    done = CliRunner().invoke(cli, ["validate", "--deep"])
    assert done.exit_code == 1 and "'a' and 'c'" in " ".join(done.output.split()), done.output
