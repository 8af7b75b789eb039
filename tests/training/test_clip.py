"""A CLIP reads long captions in chunks where params say so, in training and in comparison; short ones as they always were."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch

from histoloom.conditions.text import new_reader
from histoloom.config import Text
from histoloom.data.store import TileStore
from histoloom.training.clip import _chunked_ids, _to_clip, clip_config, likeness, save_clip, train_clip
from histoloom.training.run import TrainingRun
from tests.build import make_part, tile_rows, tiles

SIZES = Text(image_px=16, width=16, layers=1, heads=2, context_length=12, steps=4, batch_size=4, max_tokens=36)
LONG = "many large dark nuclei in nests of tumour cells "


@pytest.fixture
def clip(tmp_path):
    settings = clip_config(SIZES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_clip(
            open_clip.CLIP(settings["embed_dim"], settings["vision_cfg"], settings["text_cfg"]), settings, tmp_path
        )
    return tmp_path


def _cosines(folder, images, captions: list[str]) -> np.ndarray:
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.inference_mode():
        text = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(captions), normalize=True)
        return (model.encode_image(_to_clip(images, 16), normalize=True) @ text.T).numpy()


@pytest.mark.parametrize("max_tokens", [None, 36])
def test_short_captions_are_compared_as_they_always_were(clip, max_tokens):
    images, captions = tiles(3), ["tumour", "pale stroma, few nuclei", ""]
    np.testing.assert_array_equal(likeness(clip, max_tokens)(images, captions), _cosines(clip, images, captions))


def test_a_long_caption_s_cosine_is_the_mean_of_its_chunks(clip):
    images, caption = tiles(3), LONG * 2 + "stroma"
    chunks = [chunk for chunk in new_reader(SIZES).chunks(caption) if chunk]
    assert len(chunks) == 3
    found = likeness(clip, 36)(images, ["short", caption])
    np.testing.assert_allclose(found[:, 1], _cosines(clip, images, chunks).mean(1), atol=1e-6)
    ends = [LONG * 2 + end for end in ("stroma", "gland")]
    assert np.ptp(likeness(clip, 36)(images, ends), 1).min() > 0 and np.ptp(likeness(clip)(images, ends), 1).max() == 0


def test_the_end_of_a_long_caption_is_learnt(tmp_path):
    """Two captions that differ beyond the first chunk: with one chunk alone there is nothing to tell them apart."""
    rows = tile_rows(8, caption=[LONG * 2 + ("stroma" if n % 2 else "gland") for n in range(8)])
    make_part(tmp_path / "tiles", "a", rows, tiles(8))
    store, found = TileStore(tmp_path / "tiles"), {}
    for max_tokens in (None, 36):
        config = SIZES.model_copy(update={"max_tokens": max_tokens})
        out = tmp_path / str(max_tokens)
        run = TrainingRun("clip", config.steps, 1e-3, 0, out / "checkpoints", 100)
        train_clip(config, store, store.rows(), run, out / "clip")
        found[max_tokens] = (out / "clip/open_clip_model.safetensors").read_bytes()
    assert found[None] != found[36]
    ids, used = _chunked_ids(new_reader(SIZES), ["short", LONG * 2 + "stroma"])
    assert used.tolist() == [1, 3] and ids.shape == (2, 3, 12)
    assert (
        json.loads((tmp_path / "36/clip/open_clip_config.json").read_text())["model_cfg"]["text_cfg"]["context_length"]
        == 12
    )
