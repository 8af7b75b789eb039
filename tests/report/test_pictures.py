"""What the report's pictures say under their tiles."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from histoloom.report.pictures import _fitted


@pytest.mark.parametrize("text", ["", "keratin", "low tissue quality", "does not show its label; low tissue quality"])
def test_a_caption_fits_its_tile_and_what_is_cut_off_shows(text):
    draw = ImageDraw.Draw(Image.new("RGB", (96, 14)))
    shown, font = _fitted(draw, text, 96)
    assert draw.textlength(shown, font) <= 96
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1]) and len(shown) > 10)
