"""The picture of what was taken from a slide: where tiles overlap, dots that can be seen and told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from histoloom.config import Tile
from histoloom.data.pixel_box import PixelBox
from histoloom.slides.annotate import Annotations
from histoloom.slides.artefacts import PADDING, PEN
from histoloom.slides.overlay import draw_overlay
from histoloom.slides.regions import Regions
from histoloom.slides.tissue import TissueMap

SIDE = 600
RED = (220, 0, 0)


@pytest.mark.parametrize(("stride", "downsample"), [(32, 1.0), (32, 4.0), (16, 4.0)])
def test_dots_are_seen_and_stay_apart(stride, downsample):
    config = Tile.model_validate(
        {"mpp": 1.0, "tile_px": 64, "stride_px": stride, "labels": {"source": "none", "classes": []}}
    )
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    tissue = TissueMap(np.ones((SIDE, SIDE), bool), downsample, white)
    places = np.arange(0, SIDE * downsample - 64, stride)
    tiles = [(PixelBox(x, y, 64, 64), "test") for y in places[:9] for x in places[:9]]
    picture = draw_overlay(None, tissue, Annotations(config, None, Regions.of(), None, None, None), tiles)
    dots, count = label((np.asarray(picture) == RED).all(-1))
    assert count == len(tiles)
    assert np.bincount(dots.ravel())[1:].min() >= max((stride / downsample / 4) ** 2, 4)


def test_what_was_left_out_is_yellow():
    config = Tile.model_validate({"mpp": 1.0, "labels": {"source": "none", "classes": []}})
    white, mask = np.full((SIDE, SIDE, 3), 255, np.uint8), np.zeros((SIDE, SIDE), bool)
    mask[:200] = True
    artefacts = np.zeros((SIDE, SIDE), np.uint8)
    artefacts[200:300], artefacts[300:400] = PEN, PADDING
    tissue = TissueMap(mask, 1.0, white, artefacts)
    picture = np.asarray(
        draw_overlay(None, tissue, Annotations(config, None, Regions.of(), None, None, None), [])
    ).astype(int)
    tissue, pen, padding, glass = (picture[y, 300] for y in (100, 250, 350, 500))
    assert (tissue == 255).all() and (pen == padding).all() and pen[0] > pen[2] + 60 and glass[0] < glass[2]
