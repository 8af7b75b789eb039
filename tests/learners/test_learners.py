"""Every registered learner keeps the protocol: it learns what it is shown, and predicts in its task's form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from histoloom.errors import HistoloomError
from histoloom.learners.dice import dice
from histoloom.learners.learner import Learner, Training, learner_of
from histoloom.registry import PLACES, entry_of, module_of, registered
from histoloom.training.run import TrainingRun

COLOURS = np.array([[220, 220, 220], [200, 60, 60], [60, 60, 200]])
NAMES = {"timm:": "timm:test_resnet"}
"""Of a family, the one that is tried."""


def drawn(count: int = 16, px: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Tiles with a red or a blue square on grey, and their masks."""
    rng, masks = np.random.default_rng(0), np.zeros((count, px, px), np.uint8)
    for number, mask in enumerate(masks):
        y, x = rng.integers(0, px - 6, 2)
        mask[y : y + 6, x : x + 6] = 1 + number % 2
    return np.clip(COLOURS[masks] + rng.normal(0, 8, (*masks.shape, 3)), 0, 255).astype(np.uint8), masks


def training_of(learner: str, task: str, work: Path, steps: int = 60, rate: float = 2e-3, **more) -> Training:
    run = TrainingRun("learner", steps, rate, 0, work, steps, warmup_steps=5)
    return Training(learner, task, ("red", "blue"), run, 16, 32, **more)


@pytest.mark.parametrize("name", PLACES["learner"])
def test_a_registered_learner_has_the_protocol(name):
    kind = registered("learner", NAMES.get(name, name))
    assert issubclass(kind, Learner) and set(kind.tasks) <= {"label", "mask"} and kind.tasks and kind.learning_rate > 0


def test_a_family_is_found_by_what_its_names_begin_with():
    assert entry_of("learner", "timm:resnet18") == "timm:" and module_of("learner", "timm:x").endswith("classifier")
    assert entry_of("learner", "timm:") is entry_of("learner", "resnet18") is entry_of("learner", "x:y") is None
    with pytest.raises(HistoloomError, match="is no learner that is known here"):
        registered("learner", "resnet18")


def test_a_learner_of_another_task_is_refused():
    with pytest.raises(HistoloomError, match="'timm:resnet18' learns label, and the task is mask"):
        learner_of("timm:resnet18", "mask")


@pytest.mark.long
@pytest.mark.parametrize("name", ["efficientnet-lite0", "timm:test_resnet"])
def test_a_classifier_learns_labels(name, tmp_path):
    images, masks = drawn(32)
    truth = masks.max((1, 2)).astype(np.int64) - 1
    fitted = learner_of(name, "label").fit(
        images, truth, training_of(name, "label", tmp_path, rate=1e-3, augmentation="none")
    )
    found = fitted.predict(images)
    assert found.shape == (32, 2) and np.allclose(found.sum(1), 1, atol=1e-5) and (found.argmax(1) == truth).all()
    with pytest.raises(HistoloomError, match="can't be kept"):
        fitted.save(tmp_path)


def test_a_network_that_timm_does_not_know_is_named(tmp_path):
    images, truth = drawn()[0], np.arange(16) % 2
    with pytest.raises(HistoloomError, match="'timm:none_such' could not be made"):
        learner_of("timm:none_such", "label").fit(images, truth, training_of("timm:none_such", "label", tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("name, rate", [("unet", 5e-3), ("unet-imagenet", 2e-3)])
def test_a_unet_learns_masks_and_is_kept_whole(name, rate, tmp_path):
    images, masks = drawn()
    kind = learner_of(name, "mask")
    fitted = kind.fit(images, masks, training_of(name, "mask", tmp_path / "work", rate=rate))
    assert dice(fitted.predict(images), masks, 2).mean() > 0.9
    fitted.save(tmp_path)
    assert (kind.load(tmp_path).predict(images) == fitted.predict(images)).all()
    assert fitted.predict(images[:0]).shape == (0, 16, 16)
    found, sure = fitted.sure_masks(images)
    assert (found == fitted.predict(images)).all() and 1 / 3 <= sure.min() <= sure.max() <= 1
    assert sure[found != masks].mean() < sure[found == masks].mean()


def test_the_unet_of_imagenet_takes_tiles_of_any_side_and_begins_with_imagenet_s_norms(tmp_path):
    import torch

    from histoloom.learners.unet import OnEfficientNet

    with torch.random.fork_rng():
        network = OnEfficientNet(2).with_imagenet().train()
    before = {n: t.clone() for n, t in network.encoder.named_buffers()}
    for side in (16, 20, 36, 64):
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 3, side, side)
    assert all(torch.equal(before[n], t) for n, t in network.encoder.named_buffers())
    assert float(before["bn1.running_var"].std()) > 0, "an untrained norm's are all one"


@pytest.mark.parametrize("name", ["unet", "unet-imagenet"])
def test_the_same_seed_gives_the_same_masks(name, tmp_path):
    images, masks = drawn()
    first, second = (
        learner_of(name, "mask").fit(images, masks, training_of(name, "mask", tmp_path / str(n), steps=2))
        for n in range(2)
    )
    assert (first.predict(images) == second.predict(images)).all()
    assert all((a == b).all() for a, b in zip(first.model.parameters(), second.model.parameters()))
