"""Polygons become rasters of their own area, whose borders are exact; what lies beyond a frame is told."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import box, contains_xy, points
from shapely.geometry import Point, Polygon

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.regions import Regions
from histoloom.slides.small_areas import are_small_and_apart
from tests.build import box_ring

CLASSES = ("stroma", "tumour")
BIG, HOLE = box_ring(0, 0, 40, 40), box_ring(10, 10, 30, 30)


def _regions(*parts):
    return Regions.of((name, Polygon(outline, holes)) for name, outline, holes in parts)


def test_a_hole_is_not_of_the_class():
    ids = _regions(("tumour", BIG, [HOLE])).class_ids(CLASSES, PixelBox(0, 0, 50, 50), 1.0)
    assert ids.dtype == np.uint8 and ids.shape == (50, 50)
    assert ids[5, 5] == ids[35, 35] == 2
    assert ids[20, 20] == ids[45, 45] == 0


def test_an_island_in_a_hole_and_what_lies_under_it_show():
    regions = _regions(("stroma", BIG, []), ("tumour", BIG, [HOLE]), ("tumour", box_ring(18, 18, 22, 22), []))
    ids = regions.class_ids(CLASSES, PixelBox(0, 0, 40, 40), 1.0)
    assert (ids[5, 5], ids[12, 12], ids[20, 20]) == (2, 1, 2)


@pytest.mark.parametrize("order", [1, -1])
def test_where_polygons_overlap_the_later_class_wins_in_any_file_order(order):
    regions = _regions(("tumour", HOLE, []), ("stroma", BIG, []), ("nothing known", BIG, []))
    regions = Regions.of([*regions][::order])
    ids = regions.class_ids(CLASSES, PixelBox(0, 0, 40, 40), 1.0)
    assert (ids[20, 20], ids[5, 5]) == (2, 1)
    assert (regions.class_ids(CLASSES[::-1], PixelBox(0, 0, 40, 40), 1.0) > 0).all()


@given(st.integers(-20, 60), st.integers(-20, 60), st.sampled_from([0.5, 1.0, 2.0, 3.7]))
def test_a_box_of_a_polygon_is_cut_out_of_the_whole(x, y, downsample):
    outline = [(12, 3), (70, 20), (55, 66), (20, 60), (30, 30)]
    regions = _regions(("tumour", outline, []))
    ids = regions.class_ids(CLASSES, PixelBox(x, y, 24 * downsample, 24 * downsample), downsample)
    shape = Polygon(outline)
    columns, rows = np.meshgrid(x + (np.arange(24) + 0.5) * downsample, y + (np.arange(24) + 0.5) * downsample)
    apart = shape.boundary.distance(points(columns, rows)) > 1e-9
    assert ((ids == 2) == contains_xy(shape, columns, rows))[apart].all()


def nuclei(count: int, seed: int = 0) -> list[Polygon]:
    """Outlines of 12 px at random places apart from each other, uneven, of 20 points."""
    rng, turn = np.random.default_rng(seed), np.linspace(0, 2 * np.pi, 20, endpoint=False)
    out = []
    for number in range(count):
        middle = np.array(divmod(number, 32)) * 40 + 20 + rng.random(2) * 8
        radius, long = 6 * (1 + 0.1 * rng.standard_normal((20, 1))), rng.uniform(0.85, 1.18)
        out.append(Polygon(middle + radius * np.stack([long * np.cos(turn), np.sin(turn) / long], 1)))
    return out


@pytest.mark.parametrize("downsample", [1.0, 1.5, 2.0, 3.0, 4.0])
def test_nuclei_have_the_area_that_they_are_drawn_with(downsample):
    regions = Regions.of([("tumour", one) for one in nuclei(1000)])
    px = np.count_nonzero(regions.class_ids(CLASSES, PixelBox(0, 0, 1500 * downsample, 1500 * downsample), downsample))
    assert px * downsample**2 == pytest.approx(sum(one.area for one in regions.polygons), rel=0.005)
    each = np.bincount(
        regions.numbers(PixelBox(0, 0, 1500 * downsample, 1500 * downsample), downsample).ravel(),
        minlength=len(regions) + 1,
    )[1:]
    areas = np.array([one.area for one in regions.polygons]) / downsample**2
    assert (np.abs(each - areas) <= 1 + 0.02 * areas).all()


@given(st.floats(0, 4), st.floats(0, 4), st.floats(3, 6), st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.0]))
def test_nuclei_of_a_lattice_have_their_area_wherever_it_meets_the_pixels(x, y, radius, downsample):
    """Pixel centres alone make each of them wrong alike: 7 px become 5 to 9."""
    drawn = [Point(x + 32 * i + 20, y + 32 * j + 20).buffer(radius, 5) for i in range(8) for j in range(8)]
    regions = Regions.of([("tumour", one) for one in drawn])
    whole = regions.class_ids(CLASSES, PixelBox(0, 0, 300 * downsample, 300 * downsample), downsample)
    assert np.count_nonzero(whole) * downsample**2 == pytest.approx(64 * drawn[0].area, rel=0.021)
    part = regions.class_ids(
        CLASSES, PixelBox(25 * downsample, 11 * downsample, 40 * downsample, 40 * downsample), downsample
    )
    np.testing.assert_array_equal(part, whole[11:51, 25:65])


def test_small_squares_meet_a_large_one_without_a_gap_and_have_their_area_inside_one():
    large, small = box(0, 0, 60, 60), [box(60, y, 80, y + 20) for y in (0, 20, 40)]
    ids = Regions.of([("stroma", large), *(("tumour", one) for one in small)]).class_ids(
        CLASSES, PixelBox(0, 0, 90, 90), 3.0
    )
    assert (ids[:20, :27] > 0).all() and (ids[:20, :20] == 1).all()
    within = Regions.of([("stroma", large), ("tumour", box(21, 21, 38, 38))])
    assert np.count_nonzero(within.class_ids(CLASSES, PixelBox(0, 0, 90, 90), 3.0) == 2) in (
        32,
        33,
    )  # of 32.1; by centres 36


def test_nuclei_that_touch_are_left_as_their_pixel_centres_say():
    regions = Regions.of([("stroma", box(2, 2, 12, 12)), ("tumour", box(12, 2, 22, 12))])
    ids = regions.class_ids(CLASSES, PixelBox(0, 0, 24, 15), 3.0)
    assert ids[1].tolist() == [0, 1, 1, 1, 2, 2, 2, 0]


places = st.integers(0, 24) | st.floats(0, 24).map(lambda value: round(value, 2))


@given(places, places, st.integers(1, 20), st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0, 1.37]))
def test_squares_that_touch_neither_overlap_nor_leave_a_gap(x, y, side, downsample):
    names = tuple("abcd")
    corners = [(x + i * side, y + j * side) for i in range(2) for j in range(2)]
    squares = [box(left, top, left + side, top + side) for left, top in corners]
    ids = Regions.of(zip(names, squares)).class_ids(
        names, PixelBox(0, 0, 140 * downsample, 140 * downsample), downsample
    )
    for among, length in [(ids > 0, 2 * side), *((ids == number, side) for number in (1, 2, 3, 4))]:
        across, down = among.any(0), among.any(1)
        np.testing.assert_array_equal(among, np.outer(down, across))
        assert abs(across.sum() - length / downsample) <= 1 or not across.any()
        assert abs(down.sum() - length / downsample) <= 1 or not down.any()


def test_a_square_has_its_own_pixels_and_its_hole_too():
    ring = Polygon(box_ring(3, 4, 23, 24), [box_ring(8, 9, 13, 11)])
    ids = Regions.of([("stroma", ring)]).class_ids(CLASSES, PixelBox(0, 0, 30, 30), 1.0)
    expected = np.zeros((30, 30), np.uint8)
    expected[4:24, 3:23] = 1
    expected[9:11, 8:13] = 0
    np.testing.assert_array_equal(ids, expected)


def test_numbers_are_the_polygons_places_and_the_later_one_wins():
    regions = Regions.of([("tumour", box(0, 0, 4, 4)), ("other", box(2, 0, 6, 4)), ("tumour", box(80, 80, 90, 90))])
    numbers = regions.numbers(PixelBox(0, 0, 8, 1), 1.0)
    assert numbers.dtype == np.int32 and numbers.tolist() == [[1, 1, 2, 2, 2, 2, 0, 0]]
    assert regions.numbers(PixelBox(80, 80, 2, 1), 1.0).tolist() == [[3, 3]]
    assert Regions.of().numbers(PixelBox(0, 0, 2, 1), 1.0).tolist() == [[0, 0]]


@given(st.integers(-150, 100), st.integers(-150, 100), st.sampled_from([1.0, 2.0, 3.3]))
def test_an_outline_of_many_points_is_burnt_as_if_it_were_not_cut(x, y, downsample):
    turn = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    radius = 120 + 10 * np.sin(31 * turn)
    shape = Polygon(np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)).difference(Point(20, 10).buffer(50))
    ids = Regions.of([("tumour", shape)]).class_ids(
        CLASSES, PixelBox(x, y, 40 * downsample, 40 * downsample), downsample
    )
    columns, rows = np.meshgrid(x + (np.arange(40) + 0.5) * downsample, y + (np.arange(40) + 0.5) * downsample)
    apart = shape.boundary.distance(points(columns, rows)) > 1e-6
    assert ((ids == 2) == contains_xy(shape, columns, rows))[apart].all()


def test_what_lies_beyond_a_frame_is_counted_by_number_and_by_area():
    regions = Regions.of(
        [("a", box(0, 0, 10, 10)), ("a", box(90, 0, 110, 10)), ("b", box(200, 0, 210, 10)), ("b", box(-5, -5, 0, 95))]
    )
    assert regions.beyond(PixelBox(0, 0, 100, 100)) == (2, pytest.approx(700 / 900))
    assert regions.moved(5, 5).beyond(PixelBox(0, 0, 300, 300)) == (0, 0)
    assert Regions.of().beyond(PixelBox(0, 0, 1, 1)) == (0, 0)


def test_a_box_looks_at_the_polygons_near_it_alone():
    places = np.arange(400) * 16.0
    corners = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
    regions = Regions(("tumour",), np.zeros(len(corners), int), box(*corners.T, *(corners + 8).T))
    assert len(regions._near(PixelBox(160, 160, 64, 64))) == 25  # 16 within, and those that touch its border
    assert (regions.class_ids(CLASSES, PixelBox(160, 160, 64, 64), 1.0) > 0).sum() == 16 * 64


def _all_pairs(polygons: np.ndarray, downsample: float) -> np.ndarray:
    """Each polygon against each other, as are_small_and_apart is defined."""
    out = []
    for place, polygon in enumerate(polygons):
        left, top, right, bottom = np.array(polygon.bounds) / downsample
        area = polygon.area / downsample**2
        frame = box(*(np.array([left - 2, top - 2, right + 2, bottom + 2]) * downsample))
        others = np.delete(polygons, place)
        near = shapely.intersects(others, frame) & ~shapely.contains_properly(others, frame)
        out.append(1 / 64 <= area < 128 and max(right - left, bottom - top) < 20 and not near.any())
    return np.array(out)


@given(st.integers(0, 2**32), st.floats(1, 80), st.sampled_from([1.0, 2.5]), st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_which_polygons_stand_alone_is_what_all_pairs_say(seed, spread, downsample, count):
    rng = np.random.default_rng(seed)
    middles, sizes = rng.uniform(0, spread, (count, 2)), rng.choice([0.05, 0.5, 3.0, 9.0, 60.0], count)
    points = [shapely.MultiPoint(rng.normal(0, size, (7, 2)) + middle) for size, middle in zip(sizes, middles)]
    polygons = np.array([shapely.convex_hull(each) for each in points], object)
    assert are_small_and_apart(polygons, downsample).tolist() == _all_pairs(polygons, downsample).tolist()


@pytest.mark.parametrize("side", [0.004, 0.3])
def test_thousands_of_polygons_in_a_few_pixels_cost_little_memory(side):
    at = np.random.default_rng(0).uniform(0, 5, (20_000, 2))
    polygons = shapely.box(*at.T, *(at + side).T)
    tracemalloc.start()
    assert are_small_and_apart(polygons, 1.0).sum() == 0
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
