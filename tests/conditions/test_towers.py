"""Towers as hubs have them, made tiny in a folder: open_clip with a BERT for text, and with CLIP's own; transformers' CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.conditions.text import load_text_encoder
from histoloom.errors import HistoloomError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "tumour", "stroma", "of", "gland"]
VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
LENGTH = 16


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", **special)


def save_open_clip(folder: Path, text: dict) -> None:
    settings = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": text}
    kind = open_clip.model.CustomTextCLIP if "hf_model_name" in text else open_clip.CLIP
    model = kind(**settings)
    preprocess = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": preprocess}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")


def bert_clip(folder: Path) -> None:
    """As BiomedCLIP is: a BERT reads the text."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder / "bert")
    for place in (folder, folder / "bert"):
        tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]").save_pretrained(place)
    name = str(folder / "bert")
    pooler = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
    save_open_clip(folder, {"hf_model_name": name, "hf_tokenizer_name": name, "context_length": LENGTH} | pooler)


def own_clip(folder: Path) -> None:
    save_open_clip(folder, {"context_length": LENGTH, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1})


def transformers_clip(folder: Path) -> None:
    """As PLIP is."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = CLIPTextConfig(vocab_size=len(WORDS), max_position_embeddings=LENGTH, eos_token_id=3, **sizes)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
    whole = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    CLIPModel(whole).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    tokenizer(pad_token="[SEP]", bos_token="[CLS]", eos_token="[SEP]").save_pretrained(folder)


@pytest.mark.parametrize("make", [bert_clip, own_clip, transformers_clip])
def test_a_tower_s_captions_are_read_whole_and_padding_does_not_count(tmp_path, make):
    make(tmp_path)
    tower = load_text_encoder(str(tmp_path), max_tokens=2 * LENGTH)
    captions = ["tumour of stroma", "", "gland " * 20, "gland " * 20 + "stroma"]
    tokens, mask = tower.encode(captions)
    assert tokens.shape == (4, 2 * LENGTH, 32) and tokens.isfinite().all()
    counts = mask.sum(1).tolist()
    assert counts[0] >= 5 and counts[1] == 2 and counts[3] > counts[2] > LENGTH
    again, _ = tower.encode(captions[2:] + captions[:2])
    torch.testing.assert_close(again[2:][mask[:2]], tokens[:2][mask[:2]])
    assert (tokens[0] - tokens[2]).abs().max() > 1e-3


@pytest.mark.parametrize("make", [bert_clip, own_clip, transformers_clip])
def test_the_same_folder_embeds_pictures(tmp_path, make):
    make(tmp_path)
    extractor = load_extractor(str(tmp_path), "cpu")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    features = extractor.features(pictures)
    assert features.shape == (3, extractor.size) == (3, 16) and np.ptp(features, 0).max() > 0
    record = load_extractor(str(tmp_path), "cpu").record
    assert extractor.check(record) is extractor
    with pytest.raises(HistoloomError, match=r"are not those \(otherweights"):
        extractor.check(record | {"weights_sha256": "otherweights"})


def test_a_network_of_timm_embeds_pictures_with_weights_from_a_file(tmp_path):
    model = timm.create_model("test_resnet", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    extractor = load_extractor("timm:test_resnet", "cpu", str(tmp_path / "weights.pth"))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    settings = timm.data.resolve_model_data_config(model)
    side, mean, std = settings["input_size"][-1], settings["mean"], settings["std"]
    values = torch.nn.functional.interpolate(
        torch.from_numpy(pictures).movedim(3, 1) / 255, size=(side, side), mode="bicubic", antialias=True
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
    with torch.inference_mode():
        expected = model.eval()((values.clamp(0, 1) - mean) / std).numpy()
    np.testing.assert_allclose(extractor.features(pictures), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["timm:no_such_network", "transformers:no-such/model", "nothing"])
def test_an_extractor_that_is_not_to_be_had_is_named(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HistoloomError, match=name):
        load_extractor(name, "cpu")


@pytest.mark.parametrize(
    "text", [{"hf_model_name": "no-such/model"}, {"hf_model_name": 3}, {"unheard_of": 1}, None, []]
)
def test_a_clip_s_folder_of_other_settings_is_said(tmp_path, text, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    own_clip(tmp_path)
    place = tmp_path / "open_clip_config.json"
    stated = json.loads(place.read_text())
    stated["model_cfg"]["text_cfg"] = text
    place.write_text(json.dumps(stated))
    for load in (load_text_encoder, lambda source: load_extractor(source, "cpu")):
        with pytest.raises(HistoloomError, match="could not be loaded"):
            load(str(tmp_path))


def test_a_folder_is_no_hub_s_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home/john").mkdir(parents=True)
    transformers_clip(tmp_path / "home/john")
    for load in (load_text_encoder, lambda source: load_extractor(source, "cpu")):
        with pytest.raises(HistoloomError, match=r"'transformers:home/john' is a folder.*Write 'home/john' alone"):
            load("transformers:home/john")
        load("home/john")
