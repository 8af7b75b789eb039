"""Conditions are dropped each on its own, and what cannot be encoded is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conditions.bus import Conditions, ConditionSpec, cat, dropped
from pipeline.conditions.encode import Encoders, batch, null
from pipeline.conditions.label import encode_labels
from pipeline.conditions.text import TextEncoder, load_text_encoder
from pipeline.errors import HistoloomError

ROWS = 4000


def _conditions(rows: int, value: float) -> Conditions:
    """Two vectors of 2 and 3, a sequence of 3 tokens and a map, all of one value."""
    return Conditions(
        sequence=torch.full((rows, 3, 4), value),
        sequence_mask=torch.full((rows, 3), value > 0),
        vector=torch.full((rows, 5), value),
        map=torch.full((rows, 2, 2, 2), value),
    )


def _specs(*drops: float) -> tuple[ConditionSpec, ...]:
    shapes = (("label", "vector", 2), ("text", "sequence", 4), ("site", "vector", 3), ("mask", "map", 2))
    return tuple(ConditionSpec(*shape, drop) for shape, drop in zip(shapes, drops))


def _gone(out: Conditions) -> torch.Tensor:
    """(conditions, rows) bool: which were dropped, each of them wholly."""
    parts = [out.vector[:, :2], out.sequence.flatten(1), out.vector[:, 2:], out.map.flatten(1)]
    assert all((part == part[:, :1]).all() for part in parts)
    assert ((out.sequence[:, 0, 0] > 0)[:, None] == out.sequence_mask).all()
    return torch.stack([part[:, 0] < 0 for part in parts])


def test_each_condition_is_dropped_with_its_own_probability_and_alone():
    drops = torch.tensor([0.1, 0.3, 0.5, 0.2])
    given_, nothing = _conditions(ROWS, 1.0), _conditions(1, -1.0)
    gone = _gone(dropped(given_, nothing, _specs(*drops.tolist()), torch.Generator().manual_seed(0)))
    tolerance = 4 * (drops * (1 - drops) / ROWS).sqrt()
    assert ((gone.float().mean(1) - drops).abs() < tolerance).all()
    assert (torch.corrcoef(gone.float()) - torch.eye(4)).abs().max() < 0.07
    assert (given_.vector == 1).all() and (given_.sequence == 1).all() and (given_.map == 1).all()


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4), st.integers(1, 9), st.integers(0, 99))
def test_probabilities_of_none_and_one_are_exact(drops, rows, seed):
    out = dropped(_conditions(rows, 1.0), _conditions(1, -1.0), _specs(*drops), torch.Generator().manual_seed(seed))
    assert (_gone(out) == torch.tensor(drops, dtype=bool)[:, None]).all()


def test_joining_batches_keeps_their_order_and_absences():
    joined = cat([_conditions(2, 1.0), _conditions(3, -1.0)])
    assert joined.vector[:, 0].tolist() == joined.map[:, 0, 0, 0].tolist() == [1, 1, -1, -1, -1]
    assert joined.sequence_mask.sum() == 6
    alone = cat([Conditions(vector=torch.ones(1, 2))] * 2)
    assert alone.sequence is alone.map is None and len(alone.vector) == 2


CLASSES = ("tumour", "stroma")


def test_labels_are_one_hot_and_a_missing_one_is_zeros():
    found = encode_labels(["stroma", None, "tumour", float("nan")], CLASSES)
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 1], [0, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("label", ["tumor", "", "TUMOUR"])
def test_an_unknown_label_is_an_error_that_names_the_known(label):
    with pytest.raises(HistoloomError, match=f"Label '{label}' is not one .* tumour, stroma"):
        encode_labels(["stroma", label], CLASSES)


def _letters() -> TextEncoder:
    """A text tower of four tokens: a letter's code in each of three channels."""

    def tokenize(captions):
        return torch.tensor([[ord(c) for c in caption[:4].ljust(4, "\0")] for caption in captions])

    return TextEncoder("letters", 3, tokenize, lambda ids: ids[..., None].repeat(1, 1, 3), lambda ids: ids > 0)


@given(st.lists(st.tuples(st.sampled_from(["abc", "", "x", None]), st.sampled_from([*CLASSES, None])), min_size=1))
def test_distinct_captions_are_encoded_once_and_given_back_to_their_rows(rows):
    table = pd.DataFrame(rows, columns=["caption", "label"], dtype=object)
    encoders = Encoders(CLASSES, _letters(), ("label", "text"))
    arrays = encoders.arrays(table)
    assert len(arrays["text_tokens"]) == 1 + len({caption for caption, _ in rows if caption})
    found = batch(arrays, np.arange(len(rows))[::-1])
    for (caption, label), vector, tokens, mask in zip(rows[::-1], found.vector, found.sequence, found.sequence_mask):
        assert "".join(chr(int(c)) for c in tokens[mask, 0]) == (caption or "")
        assert vector.tolist() == [float(label == name) for name in CLASSES]
    nothing = null(arrays)
    assert not nothing.vector.any() and not nothing.sequence.any() and len(nothing.vector) == len(nothing.sequence) == 1


@pytest.mark.parametrize("names", [("label",), ("text",)])
def test_a_condition_that_is_not_in_use_is_absent(names):
    encoders = Encoders(CLASSES, _letters(), names)
    arrays = encoders.arrays(pd.DataFrame({"label": ["tumour"], "caption": ["a"]}))
    found = batch(arrays, np.array([0]))
    assert (found.vector is not None, found.sequence is not None) == ("label" in names, "text" in names)
    (spec,) = encoders.specs({"label": 0.2})
    assert (spec.name, spec.size, spec.drop) == (("label", 2, 0.2) if names == ("label",) else ("text", 3, 0.0))


@pytest.mark.parametrize(
    "make", [None, {}, {"config.json": "{}"}, {"open_clip_config.json": "{}"}, {"config.json": "no"}]
)
def test_a_source_that_is_no_text_encoder_says_what_would_be(tmp_path, make):
    folder = tmp_path / "tower"
    if make is not None:
        folder.mkdir()
        for name, text in make.items():
            (folder / name).write_text(text)
    with pytest.raises(HistoloomError, match=r"tower' (is no text encoder|could not be loaded)"):
        load_text_encoder(str(folder))


@pytest.mark.parametrize("source", ["nonsense", "", "train", "hf-hub:", "transformers:"])
def test_a_nonsense_source_is_an_error_of_words(folder, source):
    with pytest.raises(HistoloomError):
        load_text_encoder(source)
