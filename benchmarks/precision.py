"""How many times as fast the networks of recipes/histoloom-small.yaml are in other forms than float32, contiguous.

Each form does the same work in turns in the same run: training steps on all cores, the rest on one torch thread, as a
task has it. `compiled` is torch.compile beside `both`, its compilation apart; `batched` is one forward of all windows
beside one forward a window. The weights are drawn, not trained: they take the same time.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch

from benchmarks.packaged import recipe
from benchmarks.run import arguments, flat, report, seconds
from pipeline.cluster import one_thread
from pipeline.conditions.bus import Conditions, ConditionSpec
from pipeline.config import Params
from pipeline.models.autoencoder import build_autoencoder, posterior
from pipeline.models.denoiser import build_denoiser, denoise
from pipeline.models.precision import has_bf16

SPECS = (
    ConditionSpec("label", "vector", 3),
    ConditionSpec("text", "sequence", 128),
    ConditionSpec("mask", "map", 12),
    ConditionSpec("rna", "vector", 32),
)
WORDS = 16
FORMS = {
    "reference": (torch.contiguous_format, False),
    "channels_last": (torch.channels_last, False),
    "bf16": (torch.contiguous_format, True),
    "both": (torch.channels_last, True),
}
"""Name to (memory format, whether autocast to bf16). Those with it are left out on a CPU that would emulate it."""
Work = Callable[[], object]


def _cast(bf16: bool):
    return torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()


def _autoencoder(params: Params, memory: torch.memory_format) -> torch.nn.Module:
    return build_autoencoder(params.train_autoencoder).to(memory_format=memory)


def _denoiser(params: Params, memory: torch.memory_format) -> torch.nn.Module:
    config = params.train_denoiser
    side = params.tile.tile_px // params.train_autoencoder.down_factor
    return build_denoiser(config, SPECS, params.train_autoencoder.latent_channels, side).to(memory_format=memory)


def _inputs(params: Params, count: int) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    """Latents, times and conditions of so many windows."""
    side = params.tile.tile_px // params.train_autoencoder.down_factor
    given = Conditions(
        torch.randn(count, WORDS, 128), torch.ones(count, WORDS, dtype=torch.bool), torch.randn(count, 35),
        torch.randn(count, 12, side, side),
    )  # fmt: skip
    return torch.randn(count, params.train_autoencoder.latent_channels, side, side), torch.full((count,), 500), given


def _training(model: torch.nn.Module, loss: Work, bf16: bool) -> Work:
    optimiser = torch.optim.AdamW(model.parameters())

    def step() -> None:
        with _cast(bf16):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _frozen(work: Work, bf16: bool) -> Work:
    def forward() -> None:
        with torch.inference_mode(), _cast(bf16):
            work()

    return forward


def autoencoder_step(params: Params, count: int, memory: torch.memory_format, bf16: bool) -> Work:
    model, config = _autoencoder(params, memory), params.train_autoencoder
    images = torch.randn(config.batch_size, 3, config.crop_px, config.crop_px)
    return _training(model, lambda: (model.decode(model.encode(images).latents).sample - images).abs().mean(), bf16)


def denoiser_step(params: Params, count: int, memory: torch.memory_format, bf16: bool) -> Work:
    model, inputs = _denoiser(params, memory), _inputs(params, params.train_denoiser.batch_size)
    return _training(model, lambda: denoise(model, *inputs).float().square().mean(), bf16)


def encode(params: Params, count: int, memory: torch.memory_format, bf16: bool) -> Work:
    model, images = _autoencoder(params, memory), torch.randn(count, 3, params.tile.tile_px, params.tile.tile_px)
    return _frozen(lambda: posterior(model, images), bf16)


def decode(params: Params, count: int, memory: torch.memory_format, bf16: bool) -> Work:
    model, latents = _autoencoder(params, memory), _inputs(params, count)[0]
    return _frozen(lambda: model.decode(latents), bf16)


def forward(params: Params, count: int, memory: torch.memory_format, bf16: bool) -> Work:
    model, inputs = _denoiser(params, memory), _inputs(params, count)
    return _frozen(lambda: denoise(model, *inputs), bf16)


def medians(forms: dict[str, Work], repeats: int) -> dict[str, float]:
    """Median seconds of a call of each, taken in turns after one that doesn't count."""
    for work in forms.values():
        work()
    taken = [{name: seconds(work).wall for name, work in forms.items()} for _ in range(repeats)]
    return {name: statistics.median(turn[name] for turn in taken) for name in forms}


def compiled(params: Params, count: int, repeats: int) -> tuple[float, float]:
    """How many times as fast a compiled denoiser is, and how many seconds its compilation took."""
    model, inputs = _denoiser(params, torch.channels_last), _inputs(params, count)
    fast = torch.compile(model)
    works = {
        "as it is": _frozen(partial(denoise, model, *inputs), has_bf16("cpu")),
        "compiled": _frozen(partial(denoise, fast, *inputs), has_bf16("cpu")),
    }
    compilation = seconds(works["compiled"]).wall
    took = medians(works, repeats)
    return took["as it is"] / took["compiled"], compilation


def batched(params: Params, count: int, repeats: int) -> float:
    """How many times as fast one forward of all windows is as a forward for each."""
    model = _denoiser(params, torch.channels_last)
    one, all_of_them = _inputs(params, 1), _inputs(params, count)

    def singly() -> None:
        for _ in range(count):
            denoise(model, *one)

    together, half = partial(denoise, model, *all_of_them), has_bf16("cpu")
    took = medians({"singly": _frozen(singly, half), "batched": _frozen(together, half)}, repeats)
    return took["singly"] / took["batched"]


def main() -> None:
    options = arguments(__doc__)
    params = Params.model_validate(recipe())
    count, repeats = (4, 2) if options.smoke else (params.plan.batch_size, 7)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    keys, details = {}, {}
    forms = {name: form for name, form in FORMS.items() if has_bf16("cpu") or not form[1]}
    for work in (autoencoder_step, denoiser_step, encode, decode, forward):
        with nullcontext() if work in (autoencoder_step, denoiser_step) else one_thread():
            took = medians({name: work(params, count, *form) for name, form in forms.items()}, repeats)
        keys[work.__name__] = {name: took["reference"] / took[name] for name in forms if name != "reference"}
        details[f"{work.__name__}_s"] = took["reference"]
    with one_thread():
        keys["forward"]["batched"] = batched(params, count, repeats)
        if not options.smoke and shutil.which("g++"):
            keys["forward"]["compiled"], details["compilation_s"] = compiled(params, count, repeats)
    sizes = {"windows": count, "repeats": repeats, "channels": params.train_denoiser.channels}
    report("precision", options.smoke, sizes, flat(keys), details, options.json)


if __name__ == "__main__":
    main()
