"""The one training loop: AdamW, warm-up, EMA, mixed precision, curves, and checkpoints that resume exactly.

Everything drawn at a step comes from a generator keyed by (seed, step), so the data order and the noise of step n are
the same whether or not the run was broken before it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from histoloom.backbones.precision import native
from histoloom.data.commit import commit_part, read_record
from histoloom.errors import HistoloomError
from histoloom.progress import console, progress

LossFunction = Callable[[int, torch.Generator], tuple[torch.Tensor, dict[str, float | torch.Tensor]]]
_KEPT_CHECKPOINTS = 2
_LOG_EVERY = 10


@dataclass
class TrainingRun:
    """What a loop is asked to do.

    steps : optimiser steps in all, counted from the first run's start.
    learning_rate, warmup_steps : linear warm-up, then half a cosine down.
    ema_decay : decay of the average of the weights, or None for no average.
    checkpoints : folder for checkpoints; the newest there is resumed.
    resume_from : a checkpoint's folder that must be there, for a run that goes on from another.
    """

    title: str
    steps: int
    learning_rate: float
    seed: int
    checkpoints: Path
    checkpoint_every: int
    warmup_steps: int = 0
    ema_decay: float | None = None
    mixed_precision: str = "no"
    device: str = "cpu"
    weight_decay: float = 0.01
    resume_from: str | None = None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one training step."""
    key = hashlib.sha256(f"train/{seed}/{step}".encode()).digest()[:7]
    return torch.Generator().manual_seed(int.from_bytes(key, "little"))


def on_device(generator: torch.Generator, device: torch.device | str) -> torch.Generator:
    """A generator there that is keyed as this one was: itself on a CPU. A GPU's numbers are others than a CPU's."""
    place = torch.device(device)
    return generator if place.type == "cpu" else torch.Generator(place).manual_seed(generator.initial_seed())


def epoch_order(seed: int, count: int, batch_size: int, step: int) -> torch.Tensor:
    """Indices of the batch of a step: each epoch is a fresh permutation, and no epoch is cut short."""
    wanted, out = range(step * batch_size, (step + 1) * batch_size), []
    for epoch in range(wanted.start // count, (wanted.stop - 1) // count + 1):
        order = torch.randperm(count, generator=step_generator(seed, -1 - epoch))
        low, high = max(wanted.start - epoch * count, 0), min(wanted.stop - epoch * count, count)
        out.append(order[low:high])
    return torch.cat(out)


def learning_rate_factor(step: int, warmup_steps: int, steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then half a cosine down to a hundredth."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def train(model: torch.nn.Module, loss: LossFunction, run: TrainingRun, log=None) -> dict[str, torch.Tensor] | None:
    """Train `model` in place.

    Parameters
    ----------
    loss : (step, generator) to the loss of that step's batch, and numbers to log.
    log : called as log(step, numbers) every ten steps, and again for the history of a resumed run.

    Returns
    -------
    The averaged weights by name where `ema_decay` is set, else None; `run.history` holds the curve.

    Raises
    ------
    HistoloomError
        when `resume_from` holds no checkpoint, or the loss is not finite.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # else what is trained first in a process settles the precision of all
    precision = native(run.mixed_precision, run.device)
    if precision != run.mixed_precision:
        console.print(f"{run.title}: this {run.device} has no {run.mixed_precision}, so it computes in {precision}")
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=run.device == "cpu")
    model.train().to(
        memory_format=torch.channels_last
    )  # as it will be used; a step is as fast either way (benchmarks/precision.py)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=run.learning_rate, weight_decay=run.weight_decay)
    prepared, optimiser = accelerator.prepare(model, optimiser)
    average = None if run.ema_decay is None else {n: p.detach().clone() for n, p in model.named_parameters()}
    start = _resume(run, model, optimiser, average, accelerator)
    for step, numbers in run.history if log else []:
        log(step, numbers)
    with torch.random.fork_rng(), progress(run.title, run.steps) as advance:
        advance(start)
        shown = ""
        for step in range(start, run.steps):
            numbers = _step(run, step, loss, prepared, parameters, optimiser, average, accelerator)
            last = step + 1 == run.steps
            logged, kept = ((step + 1) % every == 0 or last for every in (_LOG_EVERY, run.checkpoint_every))
            # To read a number is to wait for a GPU, which has work for steps ahead.
            if logged or kept or run.device == "cpu":
                numbers = _read(run, step, numbers)
                shown = f"loss {numbers['loss']:.4f}"
            if logged:
                run.history.append((step + 1, numbers))
                if log:
                    log(step + 1, numbers)
            if kept:
                _save(run, step + 1, model, optimiser, average, accelerator)
            advance(1, shown)
    model.eval()
    return average


def _step(
    run: TrainingRun, step: int, loss: LossFunction, model, parameters, optimiser, average, accelerator
) -> dict[str, float | torch.Tensor]:
    for group in optimiser.param_groups:
        group["lr"] = run.learning_rate * learning_rate_factor(step, run.warmup_steps, run.steps)
    # On a CPU the fused attention's backward takes longer than plain products do, for as few tokens as latents have.
    attention = sdpa_kernel(SDPBackend.MATH) if run.device == "cpu" else nullcontext()
    generator = step_generator(run.seed, step)
    # Dropout and stochastic depth draw from torch's own generators.
    for own in (torch.default_generator, *torch.cuda.default_generators):
        own.manual_seed(generator.initial_seed())
    with accelerator.autocast(), attention:
        value, numbers = loss(step, generator)
    accelerator.backward(value)
    accelerator.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if average is not None:
        decay = min(run.ema_decay, (1 + step) / (10 + step))
        now = dict(accelerator.unwrap_model(model).named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), [now[name] for name in average], 1 - decay)
    return {"loss": value.detach(), **numbers}


def _read(run: TrainingRun, step: int, numbers: dict[str, float | torch.Tensor]) -> dict[str, float]:
    read = {name: float(value) for name, value in numbers.items()}
    if not math.isfinite(read["loss"]):
        raise HistoloomError(
            f"{run.title}: the loss is {read['loss']} at step {step}. Lower the learning rate, or use "
            "mixed_precision: no. Checkpoints before it are kept."
        )
    return read


def _save(run: TrainingRun, step: int, model, optimiser, average, accelerator) -> None:
    def write(folder: Path) -> dict:
        tensors = {f"model/{n}": t for n, t in model.state_dict().items()}
        state = optimiser.state_dict()["state"]
        tensors |= {f"optimiser/{i}/{k}": torch.as_tensor(v) for i, values in state.items() for k, v in values.items()}
        tensors |= {f"average/{n}": t for n, t in (average or {}).items()}
        save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, folder / "state.safetensors")
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
        (folder / "run.json").write_text(json.dumps({"step": step, "history": run.history, "scaler": scaler}))
        return {"step": step}

    commit_part(run.checkpoints, f"step-{step:07d}", write)
    kept = sorted(p for p in run.checkpoints.glob("step-*") if read_record(p))
    for old in kept[:-_KEPT_CHECKPOINTS]:
        for file in sorted(old.rglob("*"), reverse=True):
            file.unlink()
        old.rmdir()


def _resume(run: TrainingRun, model, optimiser, average, accelerator) -> int:
    """Load the newest checkpoint, or the one that was asked for; return the step to go on from."""
    own = sorted(p for p in run.checkpoints.glob("step-*") if read_record(p)) if run.checkpoints.is_dir() else []
    if own:
        folder = own[-1]
    elif run.resume_from is not None:
        folder = Path(run.resume_from)
        if read_record(folder) is None:
            raise HistoloomError(
                f"{run.title}: asked to resume from '{folder}', and there is no whole checkpoint there. "
                "Mend resume_from, or set it to null to start anew."
            )
    else:
        return 0
    state = load_file(folder / "state.safetensors", device=run.device)
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    part = {
        kind: {n.removeprefix(f"{kind}/"): t for n, t in state.items() if n.startswith(f"{kind}/")}
        for kind in ("model", "optimiser", "average")
    }
    try:
        model.load_state_dict(part["model"])
    except RuntimeError as error:
        raise HistoloomError(f"{run.title}: the checkpoint {folder} is of another model: {error}") from error
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in part["optimiser"].items():
        index, key = name.split("/")
        moments.setdefault(int(index), {})[key] = tensor.cpu() if key == "step" else tensor
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    for name, tensor in part["average"].items():
        if average is not None:
            average[name].copy_(tensor)
    if facts["scaler"] and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(facts["scaler"])
    run.history[:] = [(step, numbers) for step, numbers in facts["history"]]
    return facts["step"]
