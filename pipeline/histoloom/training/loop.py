"""The one training loop: AdamW, warm-up, EMA, mixed precision, curves, and checkpoints that resume exactly."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from histoloom.backbones.precision import native
from histoloom.data.commit import commit_part, read_record
from histoloom.errors import HistoloomError
from histoloom.progress import console, progress
from histoloom.training.processes import beside, count_of, mean_of_numbers, take_mean_of_gradients
from histoloom.training.run import LossFunction, Numbers, TrainingRun, learning_rate_factor, step_generator

_KEPT_CHECKPOINTS = 2
_LOG_EVERY = 10


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
        when `resume_from` holds no checkpoint, the loss is not finite, or there can't be so many processes.
    """
    begun = _begun_from(run)
    to_do = begun is None or _step_of(begun) < run.steps
    count = count_of(run.processes, run.batch_size, run.device) if to_do else 1
    with beside((model, loss, run), _train_beside, count, run.device) if count > 1 else nullcontext():
        return _train(model, loss, run)


def _train_beside(work: tuple[torch.nn.Module, LossFunction, TrainingRun]) -> None:
    _train(*work)


def _train(model: torch.nn.Module, loss: LossFunction, run: TrainingRun) -> dict[str, torch.Tensor] | None:
    loop = _Loop(model, loss, run)
    start = loop.resume()
    if run.log:
        for step, logged in run.history:
            run.log(step, logged)
    with torch.random.fork_rng(), progress(run.title, run.steps) if loop.is_first else nullcontext(_silent) as advance:
        advance(start)
        shown = ""
        for step in range(start, run.steps):
            if run.is_over:
                break
            numbers, done = loop.step(step), step + 1
            logs, keeps = (done % every == 0 or done == run.steps for every in (_LOG_EVERY, run.checkpoint_every))
            if loop.is_shared and (logs or keeps):
                numbers = mean_of_numbers(loop.accelerator, numbers)
            # To read a number is to wait for a GPU, which has work for steps ahead.
            if logs or keeps or (run.device == "cpu" and not loop.is_shared):
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


def _silent(*_: object) -> None:
    """Shows no progress: the first process does."""


class _Loop:
    """A model in training: its optimiser, the average of its weights, and what is kept of them."""

    def __init__(self, model: torch.nn.Module, loss: LossFunction, run: TrainingRun):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()  # else what is trained first in a process settles the precision of all
        precision = native(run.mixed_precision, run.device)
        self.model, self.loss, self.run = model, loss, run
        self.accelerator = Accelerator(
            mixed_precision="no" if precision == "fp32" else precision, cpu=run.device == "cpu"
        )
        self.is_first, self.is_shared = self.accelerator.is_main_process, self.accelerator.num_processes > 1
        if precision != run.mixed_precision and self.is_first:
            console.print(f"{run.title}: this {run.device} has no {run.mixed_precision}, so it computes in {precision}")
        # As it will be used; a step is as fast either way (benchmarks/precision.py).
        model.train().to(memory_format=getattr(model, "memory_format", torch.channels_last))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(self.parameters, lr=run.learning_rate, weight_decay=run.weight_decay, fused=True)
        self.accelerator.prepare_model(
            model, evaluation_mode=True
        )  # no wrapper for many processes: losses call parts of it
        self.optimiser = self.accelerator.prepare_optimizer(optimiser)
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
            own.manual_seed(generator.initial_seed() + self.accelerator.process_index)
        with self.accelerator.autocast(), attention:
            value, numbers = self.loss(step, generator)
        self.accelerator.backward(value)
        if self.is_shared:
            take_mean_of_gradients(self.parameters)
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
        """Measure the model, and let all processes know."""
        run = self.run
        if run.measure is not None:
            self.model.eval()
            with torch.no_grad():
                run.measured.append((step, run.measure()))
            self.model.train()
        if self.is_shared and run.patience is not None:
            from accelerate.utils import broadcast_object_list

            run.measured[:] = broadcast_object_list([list(run.measured)])[0]

    def take_best(self) -> None:
        """Load the best checkpoint, where one was measured."""
        if self.run.best is not None and self.is_first:
            state = load_file(self.run.checkpoints / _name(self.run.best) / "state.safetensors")
            self._load_weights(state)

    def save(self, step: int) -> None:
        """Keep a checkpoint; of those before, the last one and the best stay."""
        if not self.is_first:
            return

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
        state = load_file(folder / "state.safetensors")
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


def _step_of(checkpoint: Path) -> int:
    return json.loads((checkpoint / "run.json").read_text(encoding="utf-8"))["step"]


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
