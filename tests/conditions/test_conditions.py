"""Conditions are dropped each on its own, and what cannot be encoded is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.conditions.batch import Conditions, augmented, cat, dropped, only
from histoloom.conditions.encode import ConditionSet, batch, null
from histoloom.conditions.genotype import GenotypeCondition, genotype_channels
from histoloom.conditions.label import LabelCondition, encode_labels
from histoloom.conditions.magnification import MagnificationCondition
from histoloom.conditions.mask import MaskCondition, mask_map, turned_maps
from histoloom.conditions.rna import RnaCondition
from histoloom.conditions.symmetries import SYMMETRIES, apply_symmetry
from histoloom.conditions.text import TextCondition, load_text_encoder
from histoloom.config import Encode
from histoloom.config.channels import detailed, mask_channels, read_channels
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.config.yaml_reader import check_section
from histoloom.data.store import UNKNOWN
from histoloom.errors import HistoloomError

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
    given_, nulls = _conditions(ROWS, 1.0), _conditions(1, -1.0)
    gone = _gone(dropped(given_, nulls, _specs(*drops.tolist()), torch.Generator().manual_seed(0)))
    tolerance = 4 * (drops * (1 - drops) / ROWS).sqrt()
    assert ((gone.float().mean(1) - drops).abs() < tolerance).all()
    assert (torch.corrcoef(gone.float()) - torch.eye(4)).abs().max() < 0.07
    assert (given_.vector == 1).all() and (given_.sequence == 1).all() and (given_.map == 1).all()


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4), st.integers(1, 9), st.integers(0, 99))
def test_probabilities_of_none_and_one_are_exact(drops, rows, seed):
    out = dropped(_conditions(rows, 1.0), _conditions(1, -1.0), _specs(*drops), torch.Generator().manual_seed(seed))
    assert (_gone(out) == torch.tensor(drops, dtype=bool)[:, None]).all()


@given(st.sets(st.sampled_from(["label", "text", "site", "mask"])), st.integers(1, 3))
def test_only_the_named_conditions_are_given(names, rows):
    out = only(_conditions(rows, 1.0), _conditions(1, -1.0), _specs(0, 0, 0, 0), names)
    assert _gone(out).all(1).tolist() == [name not in names for name in ("label", "text", "site", "mask")]


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


def _letters() -> TextCondition:
    """A text tower of four tokens: a letter's code in each of three channels."""

    def tokenize(captions):
        return torch.tensor([[ord(c) for c in caption[:4].ljust(4, "\0")] for caption in captions])

    return TextCondition("letters", 3, tokenize, lambda ids: ids[..., None].repeat(1, 1, 3), lambda ids: ids > 0)


@given(st.lists(st.tuples(st.sampled_from(["abc", "", "x", None]), st.sampled_from([*CLASSES, None])), min_size=1))
def test_distinct_captions_are_encoded_once_and_given_back_to_their_rows(rows):
    table = pd.DataFrame(rows, columns=["caption", "label"], dtype=object)
    encoders = ConditionSet((LabelCondition(CLASSES), _letters()))
    arrays, specs = encoders.arrays(table, None), encoders.specs()
    assert len(arrays["text_tokens"]) == 1 + len({caption for caption, _ in rows if caption})
    found = batch(arrays, specs, np.arange(len(rows))[::-1])
    for (caption, label), vector, tokens, mask in zip(rows[::-1], found.vector, found.sequence, found.sequence_mask):
        assert "".join(chr(int(c)) for c in tokens[mask, 0]) == (caption or "")
        assert vector.tolist() == [float(label == name) for name in CLASSES]
    nulls = null(arrays, specs)
    assert not nulls.vector.any() and not nulls.sequence.any() and len(nulls.vector) == len(nulls.sequence) == 1


@pytest.mark.parametrize("names", [("label",), ("text",)])
def test_a_condition_that_is_not_in_use_is_absent(names):
    encoders = ConditionSet(tuple({"label": LabelCondition(CLASSES), "text": _letters()}[name] for name in names))
    arrays = encoders.arrays(pd.DataFrame({"label": ["tumour"], "caption": ["a"]}), None)
    found = batch(arrays, encoders.specs(), np.array([0]))
    assert (found.vector is not None, found.sequence is not None) == ("label" in names, "text" in names)
    (spec,) = encoders.specs({"label": 0.2, "text": 0.0}.get)
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


@given(st.lists(st.text("abc de", max_size=30), min_size=1, max_size=4), st.integers(1, 4))
def test_long_captions_are_read_in_chunks_and_no_word_that_fits_is_lost(captions, chunks):
    tower = replace(_letters(), max_tokens=4 * chunks)
    tokens, mask = tower.encode(captions)
    assert tokens.shape[:2] == mask.shape == (len(captions), 4 * chunks)
    for caption, values, used in zip(captions, tokens[..., 0], mask):
        read = "".join(chr(int(v)) for v in values[used])
        words = "".join(caption.split())
        if all(len(word) <= 3 for word in caption.split()) and len(words) + len(caption.split()) <= 3 * chunks:
            assert read.replace(" ", "") == words


def test_forms_are_called_symmetries():
    _, (fault,) = check_section({"forms": "turns"}, Encode, Path("params.yaml"))
    assert "it is called 'symmetries' now" in str(fault)


def test_an_image_s_eight_symmetries_are_all_there_are():
    tile = np.arange(16).reshape(4, 4)
    turned = {apply_symmetry(tile, number).tobytes() for number in range(SYMMETRIES["turns"])}
    assert turned == {np.rot90(t, k).tobytes() for t in (tile, tile.T) for k in range(4)} and len(turned) == 8


@given(
    st.sampled_from([1, 2, 4]), st.lists(st.integers(0, 7), min_size=1, max_size=4), st.booleans(), st.integers(0, 99)
)
def test_a_turned_map_is_the_map_of_the_turned_tile_at_any_detail(detail, symmetries, edges, seed):
    rng, size = np.random.default_rng(seed), (len(symmetries), 16, 16)
    ids, edge = rng.integers(0, 3, size), rng.integers(0, 2, size) if edges else None
    channels = mask_channels(("nucleus", "gland"), edges=edges, detail=detail)
    assert read_channels(channels) == (mask_channels(("nucleus", "gland"), edges=edges, detail=1), detail)
    first = turned_maps(mask_map(ids, edge, channels, 4, 4), np.array(symmetries), channels)
    turned = [
        np.stack([apply_symmetry(one, number) for one, number in zip(rows, symmetries)])
        for rows in (ids, edge)
        if rows is not None
    ]
    second = mask_map(*turned, *([] if edges else [None]), channels, 4, 4)
    assert first.shape == (len(symmetries), len(channels), 4, 4)
    np.testing.assert_array_equal(first, second)
    ids, edge = ids[:1], edge if edge is None else edge[:1]
    coarse = mask_map(ids, edge, mask_channels(("nucleus", "gland"), edges=edges, detail=1), 4, 4)[0]
    fine = mask_map(ids, edge, channels, 4, 4)[0]
    np.testing.assert_allclose(fine.reshape(len(coarse), -1, 4, 4).mean(1, dtype=np.float64), coarse, atol=1e-3)


@given(st.integers(0, 7), st.integers(0, 99))
def test_a_mask_turns_with_its_tile(symmetry, seed):
    """Turning the map at the latents' scale is turning the mask."""
    mask = np.random.default_rng(seed).integers(0, 3, (1, 16, 16), dtype=np.uint8)
    encoder = MaskCondition(("background", "nucleus", "gland"), 4)
    (spec,) = ConditionSet((encoder,)).specs()
    arrays, turned = (encoder.arrays(None, lambda _, m=m: m) for m in (mask, apply_symmetry(mask, symmetry)))
    found = batch(arrays, (spec,), np.array([0]), np.array([symmetry])).map
    torch.testing.assert_close(found, batch(turned, (spec,), np.array([0])).map)
    assert (found.sum(1) == 1).all()


def test_a_mask_s_edges_part_what_touches():
    tiles = {"mask": np.ones((1, 8, 8), np.uint8), "edge": np.zeros((1, 8, 8), np.uint8)}
    tiles["edge"][:, :, 4] = 1
    found = MaskCondition(("background", "nucleus", "edge"), 4).arrays(None, tiles.get)["mask"][0]
    assert found[1].min() == 1 and found[0].max() == 0
    assert found[2, 0].tolist() == [0, 0, 0.5, 0]


def test_an_unknown_mask_is_the_null():
    channels = mask_channels(("nucleus",), edges=True, detail=2)
    unknown = np.full((1, 16, 16), UNKNOWN, np.uint8)
    assert not mask_map(unknown, np.zeros_like(unknown), channels, 4, 4).any()


def test_a_background_mask_is_not_the_null():
    encoder = MaskCondition(("background", "nucleus"), 2)
    arrays, specs = encoder.arrays(None, lambda _: np.zeros((1, 8, 8), np.uint8)), ConditionSet((encoder,)).specs()
    assert batch(arrays, specs, np.array([0])).map.any() and not null(arrays, specs).map.any()


GENOTYPES = pd.Series(["TP53=altered;ERBB2=gain", "TP53=wt", "", None, "ERBB2=loss"])


def test_genotypes_have_three_states_and_untested_is_the_null():
    encoder = GenotypeCondition(genotype_channels(GENOTYPES))
    assert encoder.channels == ("TP53 tested", "TP53 altered", "ERBB2 tested", "ERBB2 gain", "ERBB2 loss")
    found = encoder.arrays(pd.DataFrame({"genotype": GENOTYPES, "tile_id": "t"}), None)["genotype"]
    assert found.tolist() == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5, [0, 0, 1, 0, 1]]


@pytest.mark.parametrize("text", ["KRAS=wt", "TP53=loss"])
def test_a_genotype_that_the_model_never_saw_is_an_error(text):
    encoder = GenotypeCondition(genotype_channels(GENOTYPES))
    with pytest.raises(HistoloomError, match="is not one that the model was made for"):
        encoder.arrays(pd.DataFrame({"genotype": [text], "tile_id": "t"}), None)


def test_a_tile_without_a_profile_has_the_null_code():
    codes = pd.DataFrame([[0.5, -1.0], [0.0, 0.0]], index=["p1", "p2"], columns=["code 0", "code 1"])
    found = RnaCondition(codes).arrays(pd.DataFrame({"rna": ["p2", None, "p1", "other"]}), None)["rna"]
    assert found.tolist() == [[0, 0, 1], [0, 0, 0], [0.5, -1, 1], [0, 0, 0]]


def test_magnification_is_a_logarithm_and_knows_when_it_is_not_given():
    found = MagnificationCondition().arrays(pd.DataFrame({"mpp": [0.25, 1.0, None]}), None)["magnification"]
    assert found.tolist() == [[-2, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("detail", [1, 2])
def test_noise_on_a_picture_is_as_much_as_the_network_is_told(detail):
    """The colours get it, the last channels tell it, and other maps and what else is given stay."""
    cells = detail * detail
    colours = tuple(f"c{n}" for n in range(3))
    specs = (
        ConditionSpec("mask", "map", 2, channels=("background", "nucleus")),
        ConditionSpec("picture", "map", 4 * cells, channels=detailed((*colours, "noise"), detail)),
    )
    told = Conditions(vector=torch.ones(3, 2), map=torch.zeros(3, 2 + 4 * cells, 8, 8))
    noise, levels = torch.randn(told.map.shape), torch.tensor([0.0, 0.2, 0.5])
    out = augmented(told, specs, {"picture": levels}, noise)
    assert torch.equal(out.vector, told.vector) and not out.map[:, :2].any() and not out.map[0].any()
    for row, level in enumerate(levels):
        assert torch.allclose(out.map[row, 2:-cells], level * noise[row, 2:-cells])
        assert (out.map[row, -cells:] == level).all()
    assert not told.map.any() and augmented(told, specs, {}, noise) is told
