"""A CLIP trained on the manifest's tile-caption pairs: open_clip's model, tokenizer and loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from histoloom.conditions.caption_length import TextReader
from histoloom.conditions.text import load_text_encoder, new_reader
from histoloom.config import Text
from histoloom.data.mapped import unpacked_tiles
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.training.loop import train
from histoloom.training.processes import everyones, own_rows
from histoloom.training.run import Numbers, TrainingRun, epoch_order

_MEAN, _STD = 0.5, 0.5
_BATCH = 64


def clip_config(config: Text) -> dict:
    """open_clip's model configuration for the sizes in params."""
    return {
        "embed_dim": config.width,
        "vision_cfg": {
            "image_size": config.image_px,
            "layers": config.layers,
            "width": config.width,
            "head_width": config.width // config.heads,
            "patch_size": max(config.image_px // 8, 1),
        },
        "text_cfg": {
            "context_length": config.context_length,
            "vocab_size": 49408,
            "width": config.width,
            "heads": config.heads,
            "layers": config.layers,
        },
    }


def train_clip(config: Text, store: TileStore, rows: pd.DataFrame, run: TrainingRun, folder: Path) -> None:
    """Train on `rows` and write an open_clip folder that `load_text_encoder` reads.

    Raises
    ------
    HistoloomError
        when the rows have fewer than two different captions: there is nothing to tell apart.
    """
    import open_clip

    places, distinct = pd.factorize(rows["caption"].fillna(""))
    of_caption, captions = torch.from_numpy(places), distinct.tolist()
    if len(captions) < 2:
        raise HistoloomError(
            "A text encoder needs at least two different captions in the train split. Use "
            "{composition} or {label} in tile.caption, or take 'text' out of train_denoiser.conditions."
        )
    settings = clip_config(config)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        model = open_clip.CLIP(settings["embed_dim"], settings["vision_cfg"], settings["text_cfg"]).to(run.device)
    ids, used = _chunked_ids(new_reader(config), captions)
    criterion = open_clip.ClipLoss()
    images = unpacked_tiles(store, rows, run.checkpoints)

    count = len(rows)
    run.batch_size = size = min(config.batch_size, count)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        index = epoch_order(run.seed, count, size, step)
        index = index[own_rows(len(index))]
        batch = _to_clip(images[index.numpy()], config.image_px)
        if config.noised:
            batch = _noised(batch, generator)
        text = of_caption[index]
        out = model(
            batch.to(run.device), ids[text, step % used[text]].to(run.device)
        )  # a long caption's chunks in turn
        return criterion(everyones(out[0]), everyones(out[1]), out[2]), {}

    train(model, loss, run)
    save_clip(model, settings, folder)


def _chunked_ids(reader: TextReader, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, chunks, tokens) ids, and (n,) how many chunks each caption fills, at least one."""
    chunked = [reader.chunks(caption) for caption in captions]
    used = torch.tensor([max(sum(map(bool, chunks)), 1) for chunks in chunked])
    return reader.tokenize([chunk for chunks in chunked for chunk in chunks]).unflatten(0, (len(captions), -1)), used


def save_clip(model: torch.nn.Module, settings: dict, folder: Path) -> None:
    """Write an open_clip folder: `settings` is what `clip_config` gave."""
    folder.mkdir(parents=True, exist_ok=True)
    size = settings["vision_cfg"]["image_size"]
    preprocess = {"size": [size, size], "mean": [_MEAN] * 3, "std": [_STD] * 3}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": settings, "preprocess_cfg": preprocess}, indent=2) + "\n", encoding="utf-8"
    )
    save_file(
        {n: t.detach().cpu().contiguous() for n, t in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )


def _to_clip(images: np.ndarray, size: int) -> torch.Tensor:
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if batch.shape[-1] != size:
        batch = torch.nn.functional.interpolate(batch, size=(size, size), mode="bilinear", antialias=True)
    return (batch - _MEAN) / _STD


def _noised(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture (b, 3, h, w) with a share of noise of its own: at all levels of any process that keeps the variance."""
    angle = torch.rand(len(images), 1, 1, 1, generator=generator) * torch.pi / 2
    return angle.cos() * images + angle.sin() * torch.randn(images.shape, generator=generator)


def likeness(folder: Path, max_tokens: int | None = None) -> Callable[[np.ndarray, list[str]], np.ndarray]:
    """The CLIP of an open_clip folder, as a function of tiles (n, h, w, 3) uint8 and captions to cosines (n, captions).

    The cosine of a caption that is read in chunks, up to `max_tokens`, is the mean of theirs.
    """
    import open_clip

    model = open_clip.create_model(f"local-dir:{folder}").eval()
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    side, reader = config["vision_cfg"]["image_size"], load_text_encoder(str(folder), None, max_tokens).reader

    @torch.inference_mode()
    def compare(images: np.ndarray, captions: list[str]) -> np.ndarray:
        ids, used = _chunked_ids(reader, captions)
        text = model.encode_text(torch.cat([chunks[:n] for chunks, n in zip(ids, used)]), normalize=True)
        starts, counts = (used.cumsum(0) - used).numpy(), used.numpy()
        out = np.empty((len(images), len(captions)), np.float32)
        for start in range(0, len(images), _BATCH):
            batch = _to_clip(images[start : start + _BATCH], side)
            cosines = (model.encode_image(batch, normalize=True) @ text.T).numpy()
            out[start : start + _BATCH] = np.add.reduceat(cosines, starts, 1) / counts
        return out

    return compare


def retrieval_recall(
    folder: Path, store: TileStore, rows: pd.DataFrame, max_tokens: int | None = None, k: int = 5
) -> dict[str, float]:
    """Fraction of held-out tiles whose own caption is among the k nearest of the distinct captions, and chance."""
    captions = sorted(set(rows["caption"].fillna("")))
    cosines = torch.from_numpy(likeness(folder, max_tokens)(store.read(rows), captions))
    k = min(k, len(captions))
    best = cosines.topk(k).indices
    own = torch.tensor([captions.index(c) for c in rows["caption"].fillna("")])
    return {
        f"recall_at_{k}": float((best == own[:, None]).any(1).float().mean()),
        f"recall_at_{k}_by_chance": k / len(captions),
        "captions": len(captions),
        "tiles": len(rows),
    }
