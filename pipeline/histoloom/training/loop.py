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

Numbers = dict[str, float | torch.Tensor]
LossFunction = Callable[[int, torch.Generator], tuple[torch.Tensor, Numbers]]
"""(step, generator) to the loss of the step's batch, and what else is to be logged by name."""
Log = Callable[[int, dict[str, float]], None]
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
    log : called as log(step, numbers) every ten steps, and again for the history of a resumed run.
    measure, patience : called at each checkpoint, and the less the better. After `patience` checkpoints that are no better than the best,
        training stops. The model is left as it was at the best.
    measured : what was measured, each with its step.
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
    log: Log | None = None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    measure: Callable[[], float] | None = None
    patience: int | None = None
    measured: list[tuple[int, float]] = field(default_factory=list)

    @property
    def best(self) -> int | None:
        """The step at which the least was measured, the first of equal ones."""
        return min(self.measured, key=lambda at: at[1])[0] if self.measured else None

    @property
    def is_over(self) -> bool:
        """Whether as many checkpoints as `patience` says are no better than the best."""
        return self.patience is not None and sum(step > (self.best or 0) for step, _ in self.measured) >= self.patience


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
    """Fraction of the learning rate at a step: linear warm-up, then half a cosine down to a hundredth."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def train(model: torch.nn.Module, loss: LossFunction, run: TrainingRun) -> dict[str, torch.Tensor] | None:
    """Train `model` in place.

    Parameters
    ----------
    loss : (step, generator) to the loss of that step's batch, and numbers to log.

    Returns
    -------
    The averaged weights by name where `ema_decay` is set, else None; `run.history` holds the curve.

    Raises
    ------
    HistoloomError
        when `resume_from` holds no checkpoint, or the loss is not finite.
    """
    loop = _Loop(model, loss, run)
    start = loop.resume()
    if run.log:
        for step, logged in run.history:
            run.log(step, logged)
    with torch.random.fork_rng(), progress(run.title, run.steps) as advance:
        advance(start)
        shown = ""
        for step in range(start, run.steps):
            if run.is_over:
                break
            numbers, done = loop.step(step), step + 1
            logs, keeps = (done % every == 0 or done == run.steps for every in (_LOG_EVERY, run.checkpoint_every))
            # To read a number is to wait for a GPU, which has work for steps ahead.
            if logs or keeps or run.device == "cpu":
                read = _read(run, step, numbers)
                shown = f"loss {read['loss']:.4f}"
            if logs:
                run.history.append((done, read))
                if run.log:
                    run.log(done, read)
            if keeps:
                loop.measure(done)
                loop.save(done)
            advance(1, shown)
    loop.take_best()
    model.eval()
    return loop.average


class _Loop:
    """A model in training: its optimiser, the average of its weights, and what is kept of them."""

    def __init__(self, model: torch.nn.Module, loss: LossFunction, run: TrainingRun):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # else what is trained first in a process settles the precision of all
        precision = native(run.mixed_precision, run.device)
        if precision != run.mixed_precision:
            console.print(f"{run.title}: this {run.device} has no {run.mixed_precision}, so it computes in {precision}")
        self.model, self.loss, self.run = model, loss, run
        self.accelerator = Accelerator(
            mixed_precision="no" if precision == "fp32" else precision, cpu=run.device == "cpu"
        )
        # As it will be used; a step is as fast either way (benchmarks/precision.py).
        model.train().to(memory_format=torch.channels_last)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(self.parameters, lr=run.learning_rate, weight_decay=run.weight_decay, fused=True)
        self.optimiser = self.accelerator.prepare(model, optimiser)[1]
        keeps_average = run.ema_decay is not None
        self.average = {n: p.detach().clone() for n, p in model.named_parameters()} if keeps_average else None

    def step(self, step: int) -> Numbers:
        """One step of the optimiser; the loss, and what it gave to log."""
        run = self.run
        for group in self.optimiser.param_groups:
            group["lr"] = run.learning_rate * learning_rate_factor(step, run.warmup_steps, run.steps)
        # On a CPU the fused attention's backward takes longer than plain products do, for as few tokens as latents have.
        attention = sdpa_kernel(SDPBackend.MATH) if run.device == "cpu" else nullcontext()
        generator = step_generator(run.seed, step)
        # Dropout and stochastic depth draw from torch's own generators.
        for own in (torch.default_generator, *torch.cuda.default_generators):
            own.manual_seed(generator.initial_seed())
        with self.accelerator.autocast(), attention:
            value, numbers = self.loss(step, generator)
        self.accelerator.backward(value)
        self.accelerator.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._update_average(step)
        return {"loss": value.detach(), **numbers}

    def _update_average(self, step: int) -> None:
        """An exponential moving average, whose decay grows to its own in the first steps."""
        if self.average is None or self.run.ema_decay is None:
            return
        decay = min(self.run.ema_decay, (1 + step) / (10 + step))
        now = dict(self.model.named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), [now[name] for name in self.average], 1 - decay)

    def measure(self, step: int) -> None:
        if self.run.measure is None:
            return
        self.model.eval()
        with torch.no_grad():
            self.run.measured.append((step, self.run.measure()))
        self.model.train()

    def take_best(self) -> None:
        """Load the best checkpoint, where one was measured."""
        if self.run.best is not None:
            state = load_file(self.run.checkpoints / _name(self.run.best) / "state.safetensors", device=self.run.device)
            self._load_weights(state)

    def save(self, step: int) -> None:
        """Keep a checkpoint; of those before, the last one and the best stay."""

        def write(folder: Path) -> dict:
            tensors = {f"model/{n}": t for n, t in self.model.state_dict().items()}
            moments = self.optimiser.state_dict()["state"].items()
            tensors |= {f"optimiser/{i}/{k}": torch.as_tensor(v) for i, values in moments for k, v in values.items()}
            tensors |= {f"average/{n}": t for n, t in (self.average or {}).items()}
            plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
            save_file(plain, folder / "state.safetensors")
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
            facts = {"step": step, "history": self.run.history, "scaler": scaler, "measured": self.run.measured}
            (folder / "run.json").write_text(json.dumps(facts))
            return {"step": step}

        commit_part(self.run.checkpoints, _name(step), write)
        for old in _checkpoints(self.run)[:-_KEPT_CHECKPOINTS]:
            if self.run.best is not None and old.name == _name(self.run.best):
                continue
            for file in sorted(old.rglob("*"), reverse=True):
                file.unlink()
            old.rmdir()

    def resume(self) -> int:
        """Load the newest checkpoint, or the one that was asked for; return the step to go on from."""
        folder = _begun_from(self.run)
        if folder is None:
            return 0
        state = load_file(folder / "state.safetensors", device=self.run.device)
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        try:
            self._load_weights(state)
        except RuntimeError as error:
            raise HistoloomError(f"{self.run.title}: the checkpoint {folder} is of another model: {error}") from error
        self._load_moments(_of_kind(state, "optimiser"))
        if facts["scaler"] and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.run.history[:] = [(step, numbers) for step, numbers in facts["history"]]
        if folder.parent == self.run.checkpoints:  # else the best lies with another run
            self.run.measured[:] = [(step, value) for step, value in facts.get("measured", [])]
        return facts["step"]

    def _load_weights(self, state: dict[str, torch.Tensor]) -> None:
        self.model.load_state_dict(_of_kind(state, "model"))
        if self.average is not None:
            for name, tensor in _of_kind(state, "average").items():
                self.average[name].copy_(tensor)

    def _load_moments(self, tensors: dict[str, torch.Tensor]) -> None:
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            index, key = name.split("/")
            # The fused step takes moments and weights as they lie in memory, so they have to lie alike.
            laid = tensor.cpu() if key == "step" else torch.empty_like(self.parameters[int(index)]).copy_(tensor)
            moments.setdefault(int(index), {})[key] = laid
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _of_kind(state: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(f"{kind}/"): t for n, t in state.items() if n.startswith(f"{kind}/")}


def _read(run: TrainingRun, step: int, numbers: Numbers) -> dict[str, float]:
    read = {name: float(value) for name, value in numbers.items()}
    if not math.isfinite(read["loss"]):
        raise HistoloomError(
            f"{run.title}: the loss is {read['loss']} at step {step}. Lower the learning rate, or use "
            "mixed_precision: no. Checkpoints before it are kept."
        )
    return read


def _checkpoints(run: TrainingRun) -> list[Path]:
    """The whole ones, the newest last."""
    return sorted(p for p in run.checkpoints.glob("step-*") if read_record(p)) if run.checkpoints.is_dir() else []


def _begun_from(run: TrainingRun) -> Path | None:
    """The checkpoint to go on from."""
    if own := _checkpoints(run):
        return own[-1]
    if run.resume_from is None:
        return None
    folder = Path(run.resume_from)
    if read_record(folder) is None:
        raise HistoloomError(
            f"{run.title}: asked to resume from '{folder}', and there is no whole checkpoint there. "
            "Mend resume_from, or set it to null to start anew."
        )
    return folder
