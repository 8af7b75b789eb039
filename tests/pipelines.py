"""Pipelines of Stable Diffusion's form, tiny and untrained, made in code of diffusers' and transformers' own classes."""

from __future__ import annotations

import json
from pathlib import Path

import torch

TEXT_WIDTH = 32
TOKENS = 24
SCALING = 0.31


def make_pipeline(folder: Path, **unet) -> Path:
    """Write a pipeline of random weights.

    Parameters
    ----------
    unet : settings of the UNet that are to be others.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        tokenizer = _tokenizer(folder.with_name(f"{folder.name}-tokenizer"))
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        text = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=TOKENS, pad_token_id=tokenizer.pad_token_id, **ends,
        )  # fmt: skip
        sizes = {
            "sample_size": 16, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": TEXT_WIDTH, "attention_head_dim": 4,
        }  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, sample_size=32, scaling_factor=SCALING,
        )  # fmt: skip
        pipeline = StableDiffusionPipeline(
            vae=vae,
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(**sizes | unet),
            scheduler=DDIMScheduler(
                beta_start=0.0009, beta_end=0.0125, beta_schedule="scaled_linear", clip_sample=False,
                steps_offset=1, set_alpha_to_one=False,
            ),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _tokenizer(folder: Path):
    """CLIP's tokenizer over the letters, and a few words of histology."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True)
    letters = [chr(c) for c in range(33, 127)]
    merges = ["t u", "tu m", "tum o", "tumo u", "tumou r</w>", "s t", "st r", "str o", "stro m", "strom a</w>"]
    words = ["".join(merge.split()) for merge in merges]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *words, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(vocabulary)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)
