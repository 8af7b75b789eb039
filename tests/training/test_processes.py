"""A training that several processes share is the one that a single process does, and it ends with an error where one of them dies."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
import torch

from histoloom import registry
from histoloom.backbones.denoiser import load_denoiser
from histoloom.config import TrainAutoencoder, TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.mapped import JoinedRows
from histoloom.errors import HistoloomError
from histoloom.training.autoencoder import train_autoencoder
from histoloom.training.denoiser import train_denoiser
from histoloom.training.loop import train
from histoloom.training.processes import _packed, count_of, everyones, own_rows
from histoloom.training.run import TrainingRun

pytestmark = pytest.mark.long

_SPECS = (ConditionSpec("label", "vector", 2, 0.5), ConditionSpec("mask", "map", 3, 0.5))


def _denoiser(folder, processes: int, steps: int = 12) -> tuple[list, dict[str, torch.Tensor]]:
    """The curve and the weights of a denoiser that was trained for so many steps, or went on to them."""
    rng = np.random.default_rng(0)
    arrays = {
        "data": rng.standard_normal((8, 4, 4, 8, 8)).astype(np.float16),
        "label": np.eye(2, dtype=np.float32)[rng.integers(0, 2, 8)],
        "mask": rng.random((8, 3, 8, 8)).astype(np.float16),
    }
    config = TrainDenoiser(conditions=("label", "mask"), batch_size=4, channels=(16, 32), steps=steps)
    run = TrainingRun("t", 12, 1e-3, 0, folder / "checkpoints", 6, ema_decay=0.9, processes=processes, batch_size=4)
    if steps < 12:
        run = replace(run, log=lambda step, _: _stop() if step == 10 else None)
    train_denoiser(config, arrays, _SPECS, run, folder)
    return run.history, load_denoiser(folder, "cpu")[0].state_dict()


def _stop() -> None:
    raise KeyboardInterrupt


def test_two_processes_give_the_curve_of_one_and_one_goes_on_where_two_stopped(tmp_path):
    curve, weights = _denoiser(tmp_path / "one", 1)
    with pytest.raises(KeyboardInterrupt):
        _denoiser(tmp_path / "two", 2, steps=10)
    assert sorted(p.name for p in (tmp_path / "two/checkpoints").glob("step-*")) == ["step-0000006"]
    shared, same = _denoiser(tmp_path / "two", 1)
    for (step, numbers), (at, others) in zip(curve, shared, strict=True):
        assert step == at and numbers == pytest.approx(others, rel=1e-4)
    for (
        name,
        weight,
    ) in weights.items():  # Adam's first steps make much of a gradient's last bits where it is next to nothing
        assert (same[name] - weight).norm() <= 1e-3 * weight.norm() + 1e-5, name


def test_an_autoencoder_and_its_critic_are_shared_and_the_first_measures(tmp_path):
    """Under mixed precision where the CPU has it: the second training then begins with a network that the first prepared."""
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)
    config = TrainAutoencoder(
        steps=3, decoder_steps=2, batch_size=4, latent_channels=4, channels=8, down_factor=2, critic_weight=0.1, patience=2
    )  # fmt: skip
    curves = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        run = TrainingRun("t", 3, 1e-3, 0, folder / "whole", 1, mixed_precision="bf16")
        run.processes, run.batch_size = processes, 4
        logged: list = []
        run.log = lambda step, numbers, logged=logged: logged.append((step, numbers["loss"]))
        train_autoencoder(config, images, run, folder, images)
        curves[processes] = [loss for _, loss in logged], [value for _, value in run.measured]
    for one, two in zip(curves[1], curves[2], strict=True):
        assert len(one) >= 2 and one == pytest.approx(two, rel=1e-2)


def test_rows_of_all_processes_are_compared_with_one_another(tmp_path):
    """A contrastive loss, whose gradients come from rows of others too; the weight that only one process uses is no trap."""

    def trained(processes: int) -> tuple[torch.Tensor, ...]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = torch.nn.ModuleDict({"used": torch.nn.Linear(5, 4), "unused": torch.nn.Linear(2, 2)})

        def loss(step: int, generator: torch.Generator):
            rows = torch.randn(6, 5, generator=generator)[own_rows(6)]
            out = everyones(model["used"](rows))
            return torch.nn.functional.cross_entropy(out @ out.T, torch.arange(6)), {}

        run = TrainingRun("t", 5, 1e-2, 0, tmp_path / str(processes), 9, processes=processes, batch_size=6)
        train(model, loss, run)
        return tuple(p.detach() for p in model.parameters())

    for one, shared in zip(trained(1), trained(3), strict=True):
        torch.testing.assert_close(one, shared, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dies", ["before", "within"])
def test_a_process_that_dies_ends_the_training_with_an_error(tmp_path, dies):
    class Trap:
        """What can't be read in another process."""

        def __reduce__(self):
            return (os._exit if dies == "before" else int), (3,)

    model, trap = torch.nn.Linear(2, 1), Trap()

    def loss(step: int, generator: torch.Generator):
        if isinstance(trap, int) and step == 2:
            os._exit(3)
        return model(torch.ones(4, 2)[own_rows(4)]).square().mean(), {}

    run = TrainingRun("t", 4, 1e-2, 0, tmp_path, 1, processes=2, batch_size=4)
    with pytest.raises(HistoloomError, match="One of the 2 processes of a training died") as raised:
        train(model, loss, run)
    assert "exit code 3" in str(raised.value)
    assert not torch.distributed.is_initialized() and "WORLD_SIZE" not in os.environ


@pytest.mark.parametrize("uses", [False, True])
def test_a_piece_from_outside_whose_file_is_gone_matters_to_who_uses_it_alone(tmp_path, monkeypatch, uses):
    """A process may have had another study before; its folder may be gone."""
    monkeypatch.setattr(registry, "_EXTENSIONS", {})
    file = tmp_path / "outside.py"
    file.write_text("class Outside:\n    rows = 4\n")
    registry.extend({"condition": {"outside": f"{file}:Outside"}})
    outside, model = registry.registered("condition", "outside"), torch.nn.Linear(2, 1)
    piece = outside if uses else None
    file.unlink()

    def loss(step: int, generator: torch.Generator):
        rows = piece.rows if piece else 4
        return model(torch.ones(rows, 2)[own_rows(rows)]).square().mean(), {}

    run = TrainingRun("t", 2, 1e-2, 0, tmp_path / "run", 9, processes=2, batch_size=4)
    with pytest.raises(HistoloomError, match=r"outside\.py, and there is no such file") if uses else nullcontext():
        train(model, loss, run)


def test_how_many_processes_share_a_training():
    assert count_of("auto", 8, "cpu") == 1 and count_of(4, None, "cpu") == 1 and count_of(4, 8, "cpu") == 4
    with pytest.raises(HistoloomError, match="a batch of 30 can't be divided"):
        count_of(4, 30, "cpu")


def test_of_mapped_arrays_the_file_is_sent(tmp_path):
    """And a part of one is sent as it is, since its place in the file isn't known."""
    np.save(tmp_path / "tiles.npy", np.arange(100_000).reshape(1000, 100))
    tiles = np.load(tmp_path / "tiles.npy", mmap_mode="r")
    rows = JoinedRows([np.asarray(tiles)], (_opened, (tmp_path / "tiles.npy",)))
    packed = _packed((tiles, rows))
    mapped, joined = cloudpickle.loads(packed)
    assert len(packed) < 10_000
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, tiles)
    assert np.array_equal(joined[np.array([3, 999])], tiles[[3, 999]])
    assert np.array_equal(cloudpickle.loads(_packed(tiles[5:7])), tiles[5:7])
    assert np.array_equal(cloudpickle.loads(_packed(JoinedRows([np.ones((2, 3))])))[np.array([1])], np.ones((1, 3)))


def _opened(path) -> JoinedRows:
    return JoinedRows([np.load(path, mmap_mode="r")])


def test_tensors_keep_their_numbers_and_what_they_are():
    for tensor in (torch.randn(2, 3).bfloat16(), torch.tensor(4), torch.zeros(0, 2), torch.randn(4, 3, 2, 2).mT):
        assert torch.equal(cloudpickle.loads(_packed(tensor)), tensor)
    weight = cloudpickle.loads(_packed(torch.nn.Parameter(torch.ones(3), requires_grad=False)))
    assert isinstance(weight, torch.nn.Parameter) and not weight.requires_grad
