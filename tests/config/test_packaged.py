"""The package that comes with histoloom: it loads, is as small as promised, and its card is written from its facts."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch

from histoloom.backbones.denoiser import load_denoiser
from histoloom.backbones.few_steps import add_few_steps, read_few_steps
from histoloom.conditions.expression_encoder import load_expression_encoder
from histoloom.conditions.text import load_text_encoder
from histoloom.config.package import packaged, root
from histoloom.data.lineage import read_lineage
from histoloom.emit.model_card import write_model_card
from histoloom.targets.latents import Latents

PACKAGES = sorted(path.name for path in root().iterdir() if path.is_dir())


@pytest.fixture(params=PACKAGES)
def package(request):
    return root() / request.param


def test_every_part_of_a_package_loads(package):
    target = Latents.load(packaged(package.name, "autoencoder"), "cpu")
    unet, record = load_denoiser(package / "denoiser", "cpu")
    tower = load_text_encoder(packaged(package.name, "encoders/text"))
    assert unet.channels == target.channels and not record.training.distilled
    sizes = {spec.name: spec.size for spec in record.conditions}
    assert tower.encode(["many nuclei, pale"])[0].shape[-1] == sizes["text"]
    encoder = load_expression_encoder(package / "encoders/rna")
    nothing = pd.DataFrame(0.0, index=["s"], columns=list(encoder.genes))
    assert encoder.codes(nothing).shape == (1, sizes["rna"] - 1), "a code, and whether there is one"
    if read_few_steps(package / "denoiser"):
        before = unet.network.conv_out.weight.clone()
        assert add_few_steps(unet, package / "denoiser") == 4 and not torch.equal(before, unet.network.conv_out.weight)


def test_a_package_is_small_and_says_whose_tissue_it_saw(package, tmp_path):
    sizes = [path.stat().st_size for path in package.rglob("*") if path.is_file()]
    assert sum(sizes) <= 36e6 and max(sizes) <= 15 * 2**20
    lineage = read_lineage(package / "denoiser")
    assert lineage.groups and not lineage.unknown
    assert json.loads((package / "facts.json").read_text(encoding="utf-8"))["lineage"] == json.loads(
        json.dumps(lineage.record)
    )
    copy = shutil.copytree(package, tmp_path / package.name)
    write_model_card(copy)
    assert (copy / "README.md").read_text(encoding="utf-8") == (package / "README.md").read_text(encoding="utf-8")
