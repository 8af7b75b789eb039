"""Planted damage: what it touches is known, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from histoloom.data.damage import REGIONS, WHOLE, damage


def _tiles(count: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 230, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", [*REGIONS, *WHOLE])
def test_damage_changes_what_it_says_and_nothing_else(kind):
    tiles = _tiles(6)
    found = damage(tiles, [kind], 3)
    changed = (found.images != tiles).any(-1)
    assert not (changed & ~found.where).any()
    assert changed[found.where].mean() > 0.5
    assert found.where.all() == (kind in WHOLE) and found.where.any((1, 2)).all()


def test_a_tile_s_damage_depends_on_its_place_and_the_seed_alone():
    tiles = _tiles(5)
    few, all_ = damage(tiles[:3], ["ink"], 7), damage(tiles, ["ink"], 7)
    assert (few.images == all_.images[:3]).all()
    assert (damage(tiles, ["ink"], 8).images != all_.images).any()


def test_kinds_are_taken_in_turn():
    assert damage(_tiles(4), ["ink", "noise"], 0).kinds.tolist() == ["ink", "noise"] * 2
