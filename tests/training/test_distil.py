"""Distillation: what a student is asked for, and that it learns it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.backbones.denoiser import load_denoiser
from histoloom.backbones.few_steps import save_few_steps
from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import Sample, TrainDenoiser
from histoloom.config.denoiser_record import (
    CONDITIONS_FILE,
    ConditionSpec,
    DenoiserRecord,
    DenoiserTraining,
    read_denoiser_record,
)
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.process.predictor import Predictor
from histoloom.process.process import Process
from histoloom.process.solver import make_solver
from histoloom.sampling.diffusion_model import check_distilled
from histoloom.training.denoiser import train_denoiser
from histoloom.training.distil import Lesson
from histoloom.training.run import TrainingRun

pytestmark = pytest.mark.long

SPEC = ConditionSpec("label", "vector", 2, 0.0, ("a", "b"))
KINDS = ("epsilon", "v_prediction", "sample")


class Knows(torch.nn.Module):
    """A teacher that knows the clean latents, whatever it is shown."""

    def __init__(self, clean: torch.Tensor, prediction: str):
        super().__init__()
        self.clean, self.prediction = clean, prediction
        self.bars = torch.from_numpy(Process(prediction, "cosine", 1000).alpha_bar).float()

    def forward(self, x, times, _):
        bar = self.bars[times].view(-1, 1, 1, 1)
        alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
        clean = self.clean.repeat(len(x) // len(self.clean), 1, 1, 1)
        noise = (x - alpha * clean) / sigma
        return {"sample": clean, "epsilon": noise, "v_prediction": alpha * noise - sigma * clean}[self.prediction]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(KINDS), st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
def test_where_the_teacher_knows_the_answer_the_student_is_asked_for_it(prediction, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=generator)
    process = Process(prediction, "cosine", 1000)
    teacher = Predictor(Knows(clean, prediction), process, (SPEC,), lambda _: lambda _: 2.0)
    lesson = Lesson(steps, teacher, Conditions(vector=torch.zeros(1, 2)))
    places = torch.randint(0, steps, (3,), generator=generator)
    x, times, wanted = lesson(clean, noise, places, Conditions(vector=torch.ones(3, 2)))
    right = Knows(clean, prediction)(x, times, None)
    # early steps hold hardly any signal, late ones hardly any noise: float32 divides by what is small there
    torch.testing.assert_close(wanted, right, atol=2e-2, rtol=2e-2)


class Echo(torch.nn.Module):
    """A teacher whose prediction is what it is told of the label."""

    def forward(self, x, times, given):
        return given.vector[:, :1, None, None].expand_as(x).clone()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(0.0, 1.0), (0.2, 0.6), (0.5, 0.5)]), st.integers(0, 99))
def test_each_row_is_taught_under_the_guidance_of_its_own_step(interval, seed):
    """One step of the teacher from x, in whose prediction a label counts as often as guidance has it, or once."""
    generator = torch.Generator().manual_seed(seed)
    config = TrainDenoiser(init="m", distil={"steps": 2, "guidance": 3.0, "guidance_interval": {"label": interval}})
    process = Process("v_prediction", "cosine", 1000)
    lesson = Lesson(
        4, Predictor(Echo(), process, (SPEC,), config.distil.scale_at), Conditions(vector=torch.zeros(1, 2))
    )
    x, places = torch.randn(6, 4, 2, 2, generator=generator), torch.randint(0, 8, (6,), generator=generator)
    label = torch.randn(6, 2, generator=generator)
    solver = make_solver("ddim", process, 8)
    taught = lesson.taught(x, places, Conditions(vector=label))
    for row, place in enumerate(places):
        step = solver.steps[place]
        times_told = 3.0 if interval[0] <= step.timestep / 1000 <= interval[1] else 1.0
        told = times_told * label[row, 0].expand(4, 2, 2)
        wanted = step.next(x[row], process.x0(x[row], told, step.scales))
        torch.testing.assert_close(taught[row], wanted)


def _arrays(count: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.eye(2, dtype=np.float32)[rng.integers(0, 2, count)]
    latents = rng.standard_normal((count, 1, 4, 8, 8)).astype(np.float32) * 0.3 + label[:, :1, None, None, None] * 2 - 1
    return {"data": latents.astype(np.float32), "label": label}


def _train(folder, **options):
    config = TrainDenoiser(
        conditions=("label",), channels=(16, 32), batch_size=16, warmup_steps=0, learning_rate=2e-3, **options
    )
    run = TrainingRun("t", config.steps, config.learning_rate, 0, folder / "checkpoints", 50, ema_decay=0.9)
    train_denoiser(config, _arrays(), (SPEC,), run, folder)
    return load_denoiser(folder, "cpu"), run


@torch.inference_mode()
def _sampled(model, steps: int) -> torch.Tensor:
    process = Process("v_prediction", "cosine", 1000)
    torch.manual_seed(3)
    x, vector = torch.randn(16, 4, 8, 8), torch.eye(2).repeat(8, 1)
    for step in make_solver("ddim", process, steps).steps:
        out = model(x, torch.full((16,), step.timestep), Conditions(vector=vector))
        x = step.next(x, process.x0(x, out, step.scales))
    return x


def test_a_student_ends_where_its_teacher_does_and_a_broken_run_ends_alike(tmp_path):
    (teacher, _), _ = _train(tmp_path / "first", steps=150)
    options = {
        "steps": 120, "init": str(tmp_path / "first"), "distil": {"steps": 2, "teacher_steps": 8, "guidance": 1.0}
    }  # fmt: skip
    (student, record), run = _train(tmp_path / "second", **options)
    wanted = _sampled(teacher, 8)
    before, after = ((_sampled(m, 2) - wanted).square().mean() for m in (teacher, student))
    assert after < 0.5 * before
    assert record.training.distilled == 2 and run.history[-1][0] == 240
    again, _ = _train(tmp_path / "second", **options)  # its checkpoints are there: nothing is trained anew
    assert all(torch.equal(a, b) for a, b in zip(student.state_dict().values(), again[0].state_dict().values()))


def test_a_student_is_known_as_one_wherever_it_is_loaded_and_not_trained_on(tmp_path):
    _train(tmp_path / "first", steps=1)
    options = {"init": str(tmp_path / "first"), "distil": {"steps": 1, "teacher_steps": 2}}
    _train(tmp_path / "student", steps=1, **options)
    init = {"init": str(tmp_path / "student")}
    (_, record), _ = _train(tmp_path / "loaded", steps=0, **init)
    assert record.training.distilled == 1
    with pytest.raises(HistoloomError, match="distilled to 1 steps"):
        _train(tmp_path / "more", steps=1, **init)


def test_a_student_is_not_stepped_otherwise(tmp_path):
    training = DenoiserTraining("v_prediction", "cosine", 1000, "concat", (4, 8, 8), distilled=4)
    write_json(tmp_path / "denoiser" / CONDITIONS_FILE, DenoiserRecord((), training).json)
    with pytest.raises(HistoloomError, match="steps: 4, guidance: 1"):
        check_distilled(read_denoiser_record(tmp_path / "denoiser"), Sample(), "sample")
    check_distilled(
        read_denoiser_record(tmp_path / "denoiser"), Sample(scheduler="ddim", steps=4, guidance=1), "sample"
    )
    with pytest.raises(HistoloomError, match="guidance inside"):
        check_distilled(
            read_denoiser_record(tmp_path / "denoiser"), Sample(scheduler="ddim", steps=4, guidance=2), "sample"
        )


def test_few_steps_of_a_model_that_was_adapted_may_be_guided(tmp_path):
    """What was new to the teacher has no guidance inside."""
    _train(tmp_path / "first", steps=1)
    init = {"init": str(tmp_path / "first")}
    _train(tmp_path / "student", steps=1, distil={"steps": 1, "teacher_steps": 2}, **init)
    save_few_steps(UNet.load(tmp_path / "first"), UNet.load(tmp_path / "student"), 1, tmp_path / "first")
    for steps, guided in ((0, False), (1, True)):
        (_, record), _ = _train(tmp_path / f"{steps}/denoiser", steps=steps, few_steps=True, **init)
        assert record.training.distilled == 1 and record.training.guidance_inside is not guided
        with pytest.raises(HistoloomError, match="distilled to 1 steps"):
            check_distilled(
                read_denoiser_record(tmp_path / f"{steps}/denoiser"), Sample(scheduler="ddim", steps=2), "sample"
            )
    check_distilled(
        read_denoiser_record(tmp_path / "1/denoiser"), Sample(scheduler="ddim", steps=1, guidance=2.0), "sample"
    )
    with pytest.raises(ValueError, match="few_steps needs a packaged model"):
        TrainDenoiser(few_steps=True)


@pytest.mark.parametrize("numbers", [{"steps": 4, "teacher_steps": 24}, {"steps": 4, "teacher_steps": 4}])
def test_steps_that_do_not_halve_are_refused(numbers):
    with pytest.raises(ValueError, match="2, 4, 8"):
        TrainDenoiser(init="m", distil=numbers)


def test_a_model_is_needed_to_distil():
    with pytest.raises(ValueError, match="distil needs a trained model"):
        TrainDenoiser(distil={"steps": 4})
