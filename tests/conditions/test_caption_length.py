"""No text is lost in chunks, what a tower doesn't read is counted, and short captions are read as they always were."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from histoloom.conditions.caption_length import TextReader, said
from histoloom.conditions.encode import ConditionSet, captions_read
from histoloom.conditions.text import load_text_encoder, new_reader, text_reader
from histoloom.config import Text
from histoloom.config.package import packaged
from tests.conditions.test_towers import LENGTH, bert_clip, own_clip, transformers_clip

CHINESE = "显微镜下可见肿瘤细胞呈巢状排列核大深染" * 4
ENGLISH = "nests of tumour cells with large dark nuclei " * 4


@cache
def reader(max_tokens: int | None = None) -> TextReader:
    return new_reader(Text(context_length=24, max_tokens=max_tokens))


@given(st.text("ab ,'显微镜\u00e9\U0001f52c", max_size=200))
def test_chunks_hold_all_of_a_text_in_its_order_and_each_is_read_whole(text):
    chunks = reader(24 * 100).chunks(text)
    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert all(reader().count(chunk) <= 24 for chunk in chunks)
    assert reader(24 * 100).measure([text])["captions_cut"] == 0


@given(st.lists(st.sampled_from(["tumour", "of", "nests", "显微镜"]), max_size=40))
def test_a_word_that_fits_a_chunk_is_never_cut(words):
    assert [word for chunk in reader(24 * 40).chunks(" ".join(words)) for word in chunk.split()] == words


@pytest.mark.parametrize(
    "max_tokens, cut, alike, tokens", [(None, 4, 2, 24), (48, 2, 1, 48), (77, 2, 1, 96), (600, 0, 0, 600)]
)
def test_what_is_not_read_is_counted_exactly(max_tokens, cut, alike, tokens):
    captions = [CHINESE + "癌", CHINESE + "良", ENGLISH + "malignant", ENGLISH + "benign", "short", None, ""]
    measured = reader(max_tokens).measure(captions)
    assert measured == {
        "distinct_captions": 5, "captions_cut": cut, "captions_alike": alike, "tokens_read": tokens,
    }  # fmt: skip
    assert (said(measured) is None) == (not cut)
    if cut:
        assert f"{cut} of 5 distinct captions are cut at {tokens} tokens" in said(measured)


@given(st.integers(0, 40))
def test_a_caption_is_cut_where_it_takes_more_tokens_than_there_are(words):
    assert reader().measure(["a " * words])["captions_cut"] == (words + 2 > 24)


def test_captions_that_differ_in_case_alone_read_alike():
    assert "read as another one does" in said(reader().measure(["Tumour", "tumour"]))


def test_max_tokens_reaches_the_end_of_text_without_spaces():
    tower = load_text_encoder(packaged("histoloom-base", "encoders/text"), max_tokens=600)
    tokens, mask = tower.encode([CHINESE + "癌", CHINESE + "良"])
    assert mask.sum(1).min() > 200 and not torch.equal(tokens[0], tokens[1])


@pytest.mark.parametrize("max_tokens", [None, 48])
def test_a_short_caption_s_tokens_are_those_of_the_tokenizer(max_tokens):
    captions = ["", "H&E, mostly tumour, some stroma", "many nuclei", CHINESE[:5]]
    ids = reader(max_tokens).ids(captions).unflatten(0, (len(captions), -1))
    assert torch.equal(ids[:, 0], SimpleTokenizer(context_length=24)(captions))
    assert torch.equal(
        ids[:, 1:].flatten(0, 1), SimpleTokenizer(context_length=24)([""] * len(ids[:, 1:].flatten(0, 1)))
    )


@pytest.mark.parametrize("make", [bert_clip, own_clip, transformers_clip])
def test_every_kind_of_tower_counts_what_it_reads(tmp_path, make):
    make(tmp_path)
    tower = text_reader(Text(source=str(tmp_path)))
    fits, too_long = "gland " * (LENGTH - 2), "gland " * (3 * LENGTH)
    assert tower.count("") == 2 and tower.measure([too_long])["captions_cut"] == 1
    assert tower.measure(["gland"])["captions_cut"] == 0
    assert make is own_clip or (
        tower.measure([fits])["captions_cut"] == 0 and tower.measure([fits + "of"])["captions_cut"] == 1
    )


def test_a_hub_s_tower_is_not_asked():
    assert text_reader(Text(source="hf-hub:no-such/model")) is None


def test_stages_write_and_say_what_is_not_read(capsys):
    tower = load_text_encoder(packaged("histoloom-base", "encoders/text"))
    found = captions_read(ConditionSet((tower,)), [ENGLISH, "short"], "sample")
    assert (found["captions_cut"], found["distinct_captions"]) == (1, 2)
    assert "sample: 1 of 2 distinct captions are cut" in " ".join(capsys.readouterr().err.split())
    assert captions_read(ConditionSet(()), [ENGLISH], "sample") == {} and Path(tower.source).is_dir()
