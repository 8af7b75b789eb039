"""The autoencoder's training: what learns, and what is kept of it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from histoloom.config import TrainAutoencoder
from histoloom.data.store import TileStore
from histoloom.targets.autoencoder import load_autoencoder
from histoloom.training.autoencoder import train_autoencoder
from histoloom.training.critic import PatchCritic
from histoloom.training.reconstruction import rebuilt_kid
from histoloom.training.run import TrainingRun
from tests.build import make_part, tile_rows, tiles

SMALL = {"channels": 8, "batch_size": 4, "detail_weight": 0.0}


@pytest.fixture
def store(tmp_path) -> TileStore:
    make_part(tmp_path / "tiles", "p", tile_rows(8), tiles(8, 16))
    return TileStore(tmp_path / "tiles")


def _trained(store: TileStore, folder, **options) -> torch.nn.Module:
    config = TrainAutoencoder(**SMALL | options)
    run = TrainingRun("t", config.steps, 1e-3, 0, folder / "whole", 2)
    train_autoencoder(config, store.read(store.rows()), run, folder / "model")
    return load_autoencoder(folder / "model")


@pytest.mark.parametrize("arch", ["tiny", "kl"])
def test_an_encoder_stays_while_its_decoder_learns_alone(store, tmp_path, arch):
    before = _trained(store, tmp_path / "a", steps=1, arch=arch).state_dict()
    after = _trained(
        store, tmp_path / "b", init=str(tmp_path / "a/model"), steps=0, decoder_steps=2, arch=arch
    ).state_dict()
    assert after.keys() == before.keys()
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert "decoder" in changed and not changed & {"encoder", "quant_conv"}
    assert (tmp_path / "a/model/latents.json").read_bytes() == (tmp_path / "b/model/latents.json").read_bytes()


def test_the_perceptual_distance_counts_while_a_decoder_learns_alone(store, tmp_path):
    _trained(store, tmp_path / "a", steps=1)
    begun = {"init": str(tmp_path / "a/model"), "steps": 0, "decoder_steps": 1}
    without, with_it = (
        _trained(store, tmp_path / str(weight), perceptual_weight=weight, **begun).state_dict() for weight in (0.0, 9.0)
    )
    assert any(not torch.equal(with_it[name], value) for name, value in without.items())


def test_a_decoder_s_broken_training_goes_on_to_the_same_weights(store, tmp_path):
    options = {"steps": 2, "decoder_steps": 4}
    whole = _trained(store, tmp_path, **options).state_dict()
    last = max((tmp_path / "decoder").iterdir(), key=lambda path: int(path.name.split("-")[-1]))
    shutil.rmtree(last)
    shutil.rmtree(tmp_path / "model")
    again = _trained(store, tmp_path, **options).state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_a_decoder_s_curve_goes_on_where_the_whole_s_ended(store, tmp_path):
    config, logged = TrainAutoencoder(**SMALL, steps=2, decoder_steps=3), []
    run = TrainingRun("t", 2, 1e-3, 0, tmp_path / "whole", 9, log=lambda step, numbers: logged.append((step, *numbers)))
    train_autoencoder(config, store.read(store.rows()), run, tmp_path / "model")
    assert logged == [(2, "loss", "l1"), (5, "loss", "l1", "critic")]


def test_a_critic_and_what_it_judges_learn_each_from_their_own_loss():
    torch.manual_seed(0)
    critic, pictures = PatchCritic(8), torch.rand(2, 3, 32, 32) * 2 - 1
    rebuilt = torch.zeros(2, 3, 32, 32, requires_grad=True)
    own, fooling = critic.losses(rebuilt, pictures)
    own.backward()
    assert rebuilt.grad is None and all(p.grad is not None for p in critic.parameters())
    critic.zero_grad(set_to_none=True)
    fooling.backward()
    assert rebuilt.grad.abs().sum() > 0 and all(p.grad is None for p in critic.parameters())


def test_a_critic_learns_to_tell_blur_from_noise():
    torch.manual_seed(0)
    critic = PatchCritic(8)
    optimiser, rng = torch.optim.AdamW(critic.parameters(), 3e-3), np.random.default_rng(0)
    for _ in range(60):
        sharp = torch.from_numpy(rng.uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32))
        own, _ = critic.losses(torch.nn.functional.avg_pool2d(sharp, 5, 1, 2), sharp)
        optimiser.zero_grad()
        own.backward()
        optimiser.step()
    with torch.inference_mode():
        assert critic(sharp).mean() > critic(torch.nn.functional.avg_pool2d(sharp, 5, 1, 2)).mean() + 0.5


def test_training_stops_where_val_tiles_are_rebuilt_no_better(store, tmp_path):
    images = store.read(store.rows())
    config = TrainAutoencoder(**SMALL, steps=12, patience=2, learning_rate=1.0)  # far too much: it gets worse
    run = TrainingRun("t", 12, 1.0, 0, tmp_path / "whole", 1)
    kept = train_autoencoder(config, images, run, tmp_path / "model", images)
    assert run.is_over and len(run.measured) < 12 and run.best == min(run.measured, key=lambda at: at[1])[0]
    measured = rebuilt_kid(lambda batch: kept.model.decode(kept.model.encode(batch).latents).sample, images, "cpu")
    assert measured() == pytest.approx(dict(run.measured)[run.best], rel=1e-4)
