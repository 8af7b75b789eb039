"""How many times as fast the networks of recipes/histoloom-base.yaml are in other forms than float32, contiguous.

Each form does the same work in turns in the same run: on a CPU training steps on all cores, the rest on one torch thread, as a
task has it; on a GPU where there is one. `int8` is beside `channels_last`. `compiled` is torch.compile beside `both`, its compilation apart, on a GPU with CUDA
graphs; `graphed` is what the pipeline does on a GPU, CUDA graphs without compiling; `batched` is one forward of all windows beside
one forward a window. The weights are drawn, not trained: they take the same time.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch

from benchmarks.packaged import MODEL, recipe, specs_of
from benchmarks.run import arguments, chip, flat, report, seconds
from histoloom.allocator import keep_freed_memory
from histoloom.backbones.backbone import Backbone
from histoloom.backbones.int8 import has_int8
from histoloom.backbones.precision import has_bf16
from histoloom.backbones.unet import UNet
from histoloom.cluster import one_thread
from histoloom.conditions.batch import Conditions
from histoloom.config import Params
from histoloom.targets.autoencoder import build_autoencoder, posterior

WORDS = 16
FORMS = {
    "reference": (torch.contiguous_format, torch.float32),
    "channels_last": (torch.channels_last, torch.float32),
    "bf16": (torch.contiguous_format, torch.bfloat16),
    "both": (torch.channels_last, torch.bfloat16),
    "fp16": (torch.channels_last, torch.float16),
}
"""Name to (memory format, what autocast computes in). What a device hasn't is left out: bf16 that would be emulated, fp16 on a CPU."""
GPU_WINDOWS = 512
"""So many at once, and in a training step: fewer don't fill a GPU."""
Work = Callable[[], object]


def _cast(dtype: torch.dtype):
    return nullcontext() if dtype == torch.float32 else torch.autocast(chip(), dtype)


def _forms() -> dict[str, tuple[torch.memory_format, torch.dtype]]:
    known = {torch.float32} | ({torch.bfloat16} if has_bf16(chip()) else set())
    known |= {torch.float16} if chip() == "cuda" else set()
    return {name: form for name, form in FORMS.items() if form[1] in known}


def _fastest() -> torch.dtype:
    return torch.bfloat16 if has_bf16(chip()) else torch.float32


def _autoencoder(params: Params, memory: torch.memory_format) -> torch.nn.Module:
    return build_autoencoder(params.train_autoencoder).to(chip(), memory_format=memory)


def _denoiser(params: Params, memory: torch.memory_format) -> Backbone:
    config = params.train_denoiser
    side = params.tile.tile_px // params.train_autoencoder.down_factor
    shape = params.train_autoencoder.latent_channels, side, side
    return UNet.build(config, specs_of(MODEL), shape).to(chip(), memory_format=memory)


def _inputs(params: Params, count: int) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    """Latents, times and conditions of so many windows."""
    side = params.tile.tile_px // params.train_autoencoder.down_factor
    sizes: Counter[str] = Counter()
    for spec in specs_of(MODEL):
        sizes[spec.shape] += spec.size
    given = Conditions(
        torch.randn(count, WORDS, sizes["sequence"]), torch.ones(count, WORDS, dtype=torch.bool), torch.randn(count, sizes["vector"]),
        torch.randn(count, sizes["map"], side, side),
    ).to(chip())  # fmt: skip
    latents = torch.randn(count, params.train_autoencoder.latent_channels, side, side, device=chip())
    return latents, torch.full((count,), 500, device=chip()), given


def _training(model: torch.nn.Module, loss: Work, dtype: torch.dtype) -> Work:
    optimiser = torch.optim.AdamW(model.parameters())

    def step() -> None:
        with _cast(dtype):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _batch(on_a_cpu: int) -> int:
    return on_a_cpu if chip() == "cpu" else GPU_WINDOWS


def _frozen(work: Work, dtype: torch.dtype) -> Work:
    def forward() -> None:
        with torch.inference_mode(), _cast(dtype):
            work()

    return forward


def autoencoder_step(params: Params, count: int, memory: torch.memory_format, dtype: torch.dtype) -> Work:
    model, config = _autoencoder(params, memory), params.train_autoencoder
    images = torch.randn(_batch(config.batch_size), 3, config.crop_px, config.crop_px, device=chip())
    return _training(model, lambda: (model.decode(model.encode(images).latents).sample - images).abs().mean(), dtype)


def denoiser_step(params: Params, count: int, memory: torch.memory_format, dtype: torch.dtype) -> Work:
    model, inputs = _denoiser(params, memory), _inputs(params, _batch(params.train_denoiser.batch_size))
    return _training(model, lambda: model(*inputs).square().mean(), dtype)


def encode(params: Params, count: int, memory: torch.memory_format, dtype: torch.dtype) -> Work:
    images = torch.randn(count, 3, params.tile.tile_px, params.tile.tile_px, device=chip())
    model = _autoencoder(params, memory)
    return _frozen(lambda: posterior(model, images).mean, dtype)


def decode(params: Params, count: int, memory: torch.memory_format, dtype: torch.dtype) -> Work:
    model, latents = _autoencoder(params, memory), _inputs(params, count)[0]
    return _frozen(lambda: model.decode(latents), dtype)


def forward(params: Params, count: int, memory: torch.memory_format, dtype: torch.dtype) -> Work:
    model, inputs = _denoiser(params, memory), _inputs(params, count)
    return _frozen(lambda: model(*inputs), dtype)


def _forward_of(model: torch.nn.Module, inputs: tuple) -> Work:
    return _frozen(partial(model, *inputs), _fastest())


def medians(forms: dict[str, Work], repeats: int) -> dict[str, float]:
    """Median seconds of a call of each, taken in turns after one that doesn't count."""
    for work in forms.values():
        work()
    taken = [{name: seconds(work).wall for name, work in forms.items()} for _ in range(repeats)]
    return {name: statistics.median(turn[name] for turn in taken) for name in forms}


def compiled(params: Params, count: int, repeats: int) -> tuple[float, float]:
    """How many times as fast a compiled denoiser is, and how many seconds its compilation took."""
    model, inputs = _denoiser(params, torch.channels_last), _inputs(params, count)
    fast = torch.compile(model, mode="default" if chip() == "cpu" else "reduce-overhead")
    works = {"as it is": _forward_of(model, inputs), "compiled": _forward_of(fast, inputs)}
    compilation = seconds(works["compiled"]).wall
    took = medians(works, repeats)
    return took["as it is"] / took["compiled"], compilation


def graphed(params: Params, count: int, repeats: int) -> float:
    """How many times as fast a replayed forward is."""
    model, other = (_denoiser(params, torch.channels_last).requires_grad_(False) for _ in range(2))
    works = {name: _forward_of(which, _inputs(params, count)) for name, which in (("bare", model), ("graphed", other))}
    other.freeze(chip(), precision="bf16")
    took = medians(works, repeats)
    return took["bare"] / took["graphed"]


def in_integers(params: Params, count: int, repeats: int) -> float:
    """How many times as fast a denoiser's forward is in int8 as in fp32, channels last both."""
    model, other = (_denoiser(params, torch.channels_last) for _ in range(2))
    inputs = _inputs(params, count)
    works = {
        kind: _frozen(partial(which.freeze("cpu", precision=kind), *inputs), torch.float32)
        for kind, which in (("fp32", model), ("int8", other))
    }
    took = medians(works, repeats)
    return took["fp32"] / took["int8"]


def batched(params: Params, count: int, repeats: int) -> float:
    """How many times as fast one forward of all windows is as a forward for each."""
    model = _denoiser(params, torch.channels_last)
    one, all_of_them = _inputs(params, 1), _inputs(params, count)

    def singly() -> None:
        for _ in range(count):
            model(*one)

    together, half = partial(model, *all_of_them), _fastest()
    took = medians({"singly": _frozen(singly, half), "batched": _frozen(together, half)}, repeats)
    return took["singly"] / took["batched"]


def main() -> None:
    keep_freed_memory()  # as a stage does
    options = arguments(__doc__)
    params = Params.model_validate(recipe())
    count, repeats = (4, 2) if options.smoke else (_batch(params.plan.batch_size), 7)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    keys, details = {}, {}
    forms = _forms()
    for work in (autoencoder_step, denoiser_step, encode, decode, forward):
        with nullcontext() if work in (autoencoder_step, denoiser_step) else one_thread():
            took = medians({name: work(params, count, *form) for name, form in forms.items()}, repeats)
        keys[work.__name__] = {name: took["reference"] / took[name] for name in forms if name != "reference"}
        details[f"{work.__name__}_s"] = took["reference"]
    with one_thread():
        keys["forward"]["batched"] = batched(params, count, repeats)
        if chip() == "cpu" and has_int8():
            keys["forward"]["int8"] = in_integers(params, count, repeats)
        if chip() == "cuda":
            sizes = (params.plan.batch_size, count)
            keys["forward"]["graphed"] = {str(size): graphed(params, size, repeats) for size in sizes}
        if not options.smoke and shutil.which("g++"):
            keys["forward"]["compiled"], details["compilation_s"] = compiled(params, count, repeats)
    sizes = {"windows": count, "repeats": repeats, "channels": params.train_denoiser.channels}
    report("precision", options.smoke, sizes, flat(keys), details, options.json)


if __name__ == "__main__":
    main()
