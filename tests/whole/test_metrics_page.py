"""The page of metrics names every key that a study writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.prose import ROOT

pytestmark = pytest.mark.long

_OF_THE_STUDY = {"left", "right", "train", "val", "test", "woven", "real+synthetic"}
"""Names of classes, splits, slides and arms."""


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from () if key in ("rejected_for", "val") else _keys(inner)  # reasons in words; arms and labels
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def test_every_key_is_on_the_page(study):
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    filters = (ROOT / "docs/how-to/judge-what-was-made.md").read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`([^`]+)`", page + filters))
    known = {*re.split(r"[.\[\], ]+", code), "wrong colour"}
    paths = sorted(study.glob("reports/*/metrics.json"))
    assert len(paths) > 10
    unknown = {
        f"{path.parent.name}: {key}"
        for path in paths
        for key in _keys(json.loads(path.read_text(encoding="utf-8")))
        if re.sub(r"_at_\d+", "_at_K", key) not in known | _OF_THE_STUDY
    }
    assert unknown == set()
