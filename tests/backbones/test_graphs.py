"""CUDA graphs: a replay gives what the forward gives, whatever it is shown."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones.denoiser import load_denoiser, save_denoiser
from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec, DenoiserRecord, DenoiserTraining

SPECS = (
    ConditionSpec("label", "vector", 3),
    ConditionSpec("text", "sequence", 16),
    ConditionSpec("mask", "map", 2),
)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _inputs(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    given = Conditions(
        torch.randn(count, 5, 16), torch.ones(count, 5, dtype=torch.bool), torch.randn(count, 3), torch.rand(count, 2, side, side)
    )  # fmt: skip
    return torch.randn(count, 4, side, side).cuda(), torch.randint(0, 1000, (count,)).cuda(), given.to("cuda")


@pytest.mark.parametrize("map_input", ["concat", "spade"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_replay_gives_what_the_forward_gives(tmp_path, precision, map_input):
    made = UNet.build(TrainDenoiser(channels=(32, 64), map_input=map_input), SPECS, (4, 8, 8))
    for name, parameter in made.named_parameters():
        if "scale_shift" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    training = DenoiserTraining("v_prediction", "cosine", 1000, map_input, (4, 8, 8))
    save_denoiser(made, DenoiserRecord(SPECS, training), tmp_path)
    model, *_ = load_denoiser(tmp_path, "cuda", precision=precision)
    graphed, made = model._run, []
    for count, side in [
        (2, 8),
        (3, 8),
        (2, 16),
        (2, 8),
        (2, 8),
    ]:  # what was recorded is come back to, with other inputs
        inputs = _inputs(count, side)
        with torch.inference_mode():
            replayed = model(*inputs)
            torch.testing.assert_close(replayed, graphed.forward(*inputs), rtol=1e-3, atol=1e-3)
        made.append((replayed, replayed.clone()))
    assert len(graphed.recorded) == 3
    for kept, then in made:  # no later replay writes where an earlier one's result lies
        assert torch.equal(kept, then)
