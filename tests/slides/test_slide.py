"""Boxes of a slide are read ahead: in order, more at once where reads are slow, and never far ahead."""

from __future__ import annotations

import time
from threading import Lock

import pytest

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.slide import read_ahead


class CountedReads:
    """A slide whose reads take a while; it counts them."""

    def __init__(self, seconds: float):
        self.seconds, self.begun, self.now, self.most, self._lock = seconds, 0, 0, 0, Lock()

    def read(self, box: PixelBox[float], downsample: float) -> float:
        with self._lock:
            self.begun, self.now = self.begun + 1, self.now + 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        return box.left


BOXES = [PixelBox(float(number), 0.0, 1.0, 1.0) for number in range(40)]


@pytest.mark.parametrize("count", [0, 1, 40])
def test_pictures_come_in_the_order_of_their_boxes(count):
    with read_ahead(CountedReads(0.001), BOXES[:count], 1) as pictures:
        assert list(pictures) == [float(number) for number in range(count)]


def test_slow_reads_wait_side_by_side():
    slide = CountedReads(0.05)
    with read_ahead(slide, BOXES, 1) as pictures:
        list(pictures)
    assert slide.most == 8


def test_a_slow_caller_is_not_read_far_ahead_of():
    slide = CountedReads(0)
    with read_ahead(slide, BOXES, 1) as pictures:
        for number, _ in enumerate(pictures):
            time.sleep(0.01)
            assert slide.begun <= number + 1 + 8


def test_nothing_is_read_any_more_when_the_caller_stops():
    slide = CountedReads(0.01)
    with pytest.raises(KeyboardInterrupt), read_ahead(slide, BOXES, 1) as pictures:
        next(pictures)
        raise KeyboardInterrupt
    assert slide.begun < len(BOXES)
