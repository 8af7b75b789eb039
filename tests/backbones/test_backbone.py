"""What every backbone does: taps for features, and ready to run when it is frozen."""

from __future__ import annotations

import pytest
import torch

from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")

SPECS = (ConditionSpec("label", "vector", 3),)
INPUTS = torch.zeros(2, 4, 8, 8), torch.tensor([10, 700]), Conditions(vector=torch.eye(3)[:2])
MIDDLE = "network.mid_block"


@pytest.fixture
def unet() -> UNet:
    return UNet.build(TrainDenoiser(channels=(16, 32)), SPECS, (4, 8, 8))


def test_taps_give_what_their_modules_give_and_change_nothing(unet):
    unet.freeze("cpu")
    before = unet(*INPUTS)
    found = unet.features(*INPUTS, ["network.conv_in", MIDDLE])
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "network.conv_in": (2, 16, 8, 8), MIDDLE: (2, 32, 4, 4)
    }  # fmt: skip
    assert torch.equal(found["network.conv_in"], unet.network.conv_in(INPUTS[0]))
    assert torch.equal(unet(*INPUTS), before) and not unet.network.mid_block._forward_hooks


def test_a_tap_that_is_no_module_is_named_beside_some_that_are(unet):
    with pytest.raises(HistoloomError, match=r"no module 'middle'. Some that it has: network"):
        unet.features(*INPUTS, ["middle"])


def test_a_frozen_network_is_not_trained_any_more(unet):
    assert not unet.freeze("cpu")(*INPUTS).requires_grad
    assert not unet.training and not any(p.requires_grad for p in unet.parameters())


def test_adaptive_group_norm_has_a_scale_beside_the_shift(tmp_path):
    network = UNet.build(TrainDenoiser(channels=(16, 32), time_input="scale_shift"), SPECS, (4, 8, 8))
    block = network.network.down_blocks[0].resnets[0]
    assert block.time_emb_proj.out_features == 2 * block.out_channels
    network.save(tmp_path)
    assert torch.equal(UNet.load(tmp_path)(*INPUTS), network(*INPUTS))
