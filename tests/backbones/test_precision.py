"""Half precision: close to full, whatever it gives is float32, and refused where it can't help."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from histoloom.backbones import precision
from histoloom.backbones.precision import has_bf16, native, set_precision
from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainAutoencoder, TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError
from histoloom.targets.autoencoder import build_autoencoder
from histoloom.targets.latents import Latents, save_latent_scale

SPECS = (ConditionSpec("label", "vector", 3),)


@pytest.fixture
def with_bf16(monkeypatch):
    """A CPU without bf16 emulates it, slowly."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


def test_what_a_device_would_emulate_is_computed_in_fp32(monkeypatch):
    assert native("bf16", "cpu") == ("bf16" if has_bf16("cpu") else "fp32")
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert [native(kind, "cpu") for kind in ("bf16", "fp32", "no")] == ["fp32", "fp32", "no"]
    assert set_precision(Autocast(), "bf16", "cpu")(torch.zeros(1)) == 0
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert set_precision(Autocast(), "bf16", "cpu")(torch.zeros(1)) == 1


class Autocast(torch.nn.Module):
    def forward(self, _):
        return torch.tensor(float(torch.is_autocast_enabled("cpu")))


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_bf16_is_told_by_what_the_cpu_says_of_itself(monkeypatch, capability):
    found = dict.fromkeys(("avx2", "avx512_bf16", "amx_bf16"), False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert not has_bf16.__wrapped__("cpu")
    found[capability] = True
    assert has_bf16.__wrapped__("cpu")


def test_bf16_is_close_and_comes_back_as_float32(with_bf16):
    torch.manual_seed(0)
    model = UNet.build(TrainDenoiser(channels=(16, 32)), SPECS, (4, 8, 8)).eval().requires_grad_(False)
    latents, times, given = torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), Conditions(vector=torch.eye(3)[:2])
    with torch.inference_mode():
        full = model(latents, times, given)
        half = model.freeze("cpu", precision="bf16")(latents, times, given)
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    assert (half - full).square().mean() < 1e-3 * full.square().mean()


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(HistoloomError, match="needs a GPU"):
        set_precision(torch.nn.Identity(), "fp16", "cpu")


@pytest.mark.parametrize("arch", ["tiny", "kl"])
def test_an_autoencoder_in_bf16_encodes_and_decodes(with_bf16, tmp_path, arch):
    config = TrainAutoencoder(arch=arch, channels=16)
    build_autoencoder(config).save_pretrained(tmp_path)
    save_latent_scale(tmp_path, torch.zeros(4), torch.ones(4))
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    full, half = (Latents.load(tmp_path, "cpu", kind) for kind in ("fp32", "bf16"))
    latents = half.encode({"image": image})
    assert latents.dtype == torch.float32 and (latents - full.encode({"image": image})).abs().max() < 0.2
    assert half.decode(latents)["image"].shape == image.shape
