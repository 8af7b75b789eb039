"""A trained denoiser for other conditions: it begins as it was, and low-rank training leaves the rest alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.backbones.denoiser import load_denoiser
from histoloom.backbones.few_steps import add_few_steps, check_few_steps, low_rank_difference, save_few_steps, updated
from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.config.package import packaged
from histoloom.errors import HistoloomError
from histoloom.training.denoiser import train_denoiser
from histoloom.training.run import TrainingRun

TEXT = ConditionSpec("text", "sequence", 16)
NAMES = ("a", "b", "c", "d")


def label(*channels: str) -> ConditionSpec:
    return ConditionSpec("label", "vector", len(channels), 0.0, channels)


def mask(*channels: str) -> ConditionSpec:
    return ConditionSpec("mask", "map", len(channels), 0.0, channels)


def unet(*specs: ConditionSpec, map_input: str = "concat") -> UNet:
    torch.manual_seed(0)
    config = TrainDenoiser(
        channels=(16, 32), map_input=map_input, init="another"
    )  # a ControlNet is built beside a trained model
    return UNet.build(config, specs, (4, 8, 8)).eval()


def predict(model, vector=None, maps=None, text: int | None = 16) -> torch.Tensor:
    torch.manual_seed(1)
    latents, times = torch.randn(2, 4, 8, 8), torch.tensor([100, 900])
    tokens = None if text is None else torch.randn(2, 3, text)
    seen = None if text is None else torch.ones(2, 3, dtype=torch.bool)
    with torch.inference_mode():
        return model(latents, times, Conditions(tokens, seen, vector, maps))


def columns(channels, values: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([values[c] for c in channels], 1)


@settings(max_examples=12, deadline=None)
@given(
    st.permutations(NAMES),
    st.permutations(NAMES),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["concat", "spade", "controlnet"]),
)
def test_what_both_know_acts_as_before_and_what_is_new_has_no_effect(before, after, kept, more, map_input):
    """Whatever the order of the channels, and whichever are added."""
    old, new = before[:kept], list(dict.fromkeys([*after[:more], *before[:kept]]))
    model = unet(TEXT, label(*old), mask(*old), map_input=map_input)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "scale_shift" in name or "controlnet_" in name:  # whose zeros would hide the map
                parameter.normal_(std=0.1)
    fitted, names = model.refit((TEXT, label(*old), mask(*old)), (TEXT, label(*new), mask(*new)))
    torch.manual_seed(2)
    values = {c: torch.randn(2) for c in NAMES}
    maps = {c: torch.randn(2, 8, 8) for c in NAMES}
    was = predict(model, columns(old, values), columns(old, maps))
    now = predict(fitted.eval(), columns(new, values), columns(new, maps))
    torch.testing.assert_close(was, now, atol=1e-5, rtol=1e-4)
    assert (not names) == (list(old) == new)


def test_a_first_vector_starts_without_effect():
    model = unet(TEXT)
    fitted, names = model.refit((TEXT,), (TEXT, label("a", "b")))
    torch.testing.assert_close(predict(fitted.eval(), torch.randn(2, 2)), predict(model), atol=1e-5, rtol=1e-4)
    assert any("class_embedding" in name for name in names)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["concat", "spade", "controlnet"]), st.booleans())
def test_first_maps_start_without_effect_and_the_last_can_go(map_input, vector):
    """Of a network that read none, whichever way they enter."""
    model = unet(TEXT)
    model.map_input = map_input
    after = (TEXT, *([label("a")] if vector else []), mask("a", "b"))
    fitted, names = model.refit((TEXT,), after)
    given_vector = torch.randn(2, 1) if vector else None
    torch.testing.assert_close(
        predict(fitted.eval(), given_vector, torch.randn(2, 2, 8, 8)), predict(model), atol=1e-5, rtol=1e-4
    )
    assert names and all(name in dict(fitted.named_parameters()) for name in names)
    without, _ = fitted.refit(after, (TEXT,))
    torch.testing.assert_close(predict(without.eval()), predict(model), atol=1e-5, rtol=1e-4)


def test_a_text_tower_of_another_width_gets_new_keys_and_values_alone():
    _, names = unet(TEXT).refit((TEXT,), (ConditionSpec("text", "sequence", 24),))
    assert names and all("attn2.to_" in name for name in names)


def test_text_cannot_come_or_go():
    with pytest.raises(HistoloomError, match="trained with text"):
        unet(TEXT).refit((TEXT,), (label("a"),))
    with pytest.raises(HistoloomError, match="trained without text"):
        unet(label("a")).refit((label("a"),), (TEXT, label("a")))


@pytest.mark.parametrize("map_input", ["concat", "spade"])
def test_low_rank_updates_merge_into_the_weights(map_input):
    model, maps = unet(TEXT, label("a"), mask("a"), map_input=map_input), torch.rand(2, 1, 8, 8)
    names = set(model.state_dict())
    whole = "network.class_embedding.linear_1.weight"
    model.add_low_rank(4, (whole,))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert whole in trained and all("lora" in n for n in trained - {whole})
    assert any("scale_shift" in n for n in trained) == (map_input == "spade")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    beside = predict(model, torch.ones(2, 1), maps)
    model.merge_low_rank()
    assert set(model.state_dict()) == names
    torch.testing.assert_close(predict(model, torch.ones(2, 1), maps), beside, atol=1e-4, rtol=1e-3)


def _moved(model):
    """A copy whose every parameter is a little elsewhere, layers by a difference of rank 8."""
    moved = copy.deepcopy(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for weights in moved.parameters():
            rows, columns = len(weights), weights[0].numel()
            weights += 0.02 * (torch.randn(rows, 8) @ torch.randn(8, columns)).view_as(weights)
    return moved


def test_updates_of_a_differences_own_rank_are_all_of_it():
    model = unet(TEXT, label("a"))
    moved = _moved(model)
    updates, left_out = low_rank_difference(model, moved, rank=8)
    assert left_out < 1e-6
    small, left_out = low_rank_difference(model, moved, rank=2)
    assert 0.1 < left_out < 1 and all(u.numel() <= updates[n].numel() for n, u in small.items())
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    a, b = (updates[f"{layer}.lora_{half}.weight"].float() for half in "AB")
    wanted = moved.network.get_parameter(f"{layer}.weight") - model.network.get_parameter(f"{layer}.weight")
    torch.testing.assert_close(b @ a, wanted, atol=1e-3, rtol=1e-2)


def test_few_steps_are_added_to_what_was_adapted(tmp_path):
    """Where all of a student's difference lies in low-rank layers, adding it makes the student; and it outlives an adaptation."""
    model = unet(TEXT, label("a"))
    student = copy.deepcopy(model)
    moved = _moved(model).state_dict()
    names = [n for n in moved if updated(n.removeprefix("network."), moved[n])]
    student.load_state_dict({n: moved[n] if n in names else v for n, v in model.state_dict().items()})
    with pytest.raises(HistoloomError, match="few_steps is true"):
        check_few_steps(tmp_path)
    save_few_steps(model, student, 4, tmp_path)
    taught = copy.deepcopy(model)
    assert add_few_steps(taught, tmp_path) == 4
    assert taught.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(
        predict(taught, torch.ones(2, 1)), predict(student, torch.ones(2, 1)), atol=5e-3, rtol=2e-2
    )
    wider, _ = model.refit((TEXT, label("a")), (ConditionSpec("text", "sequence", 24), label("b", "a")))
    before = {n: v.clone() for n, v in wider.state_dict().items()}
    add_few_steps(wider, tmp_path)
    for name, value in wider.state_dict().items():
        wanted = (
            moved[name] - model.state_dict()[name] if name in names and before[name].shape == moved[name].shape else 0
        )
        torch.testing.assert_close(value - before[name], wanted + torch.zeros_like(value), atol=2e-3, rtol=2e-2)


def _arrays(count: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "data": rng.standard_normal((count, 1, 4, 8, 8)).astype(np.float32),
        "label": np.eye(classes, dtype=np.float32)[rng.integers(0, classes, count)],
    }


def _train(folder, spec: ConditionSpec, arrays, **options) -> None:
    config = TrainDenoiser(conditions=("label",), channels=(16, 32), batch_size=4, warmup_steps=0, **options)
    run = TrainingRun("t", config.steps, config.learning_rate, 0, folder / "checkpoints", 2, ema_decay=0.5)
    train_denoiser(config, arrays, (spec,), run, folder)


def test_a_model_is_adapted_to_other_labels(tmp_path):
    _train(tmp_path / "first", label("a", "b"), _arrays(8, 2), steps=3)
    first = load_denoiser(tmp_path / "first", "cpu")[0].state_dict()
    init = {"init": str(tmp_path / "first")}
    _train(tmp_path / "same", label("a", "b"), _arrays(8, 2), steps=0, **init)
    same = load_denoiser(tmp_path / "same", "cpu")[0].state_dict()
    assert all(torch.equal(first[n], same[n]) for n in first)
    _train(tmp_path / "second", label("b", "x", "a"), _arrays(8, 3), steps=3, adapt="lora", lora_rank=2, **init)
    model, record = load_denoiser(tmp_path / "second", "cpu")
    second = model.state_dict()
    assert record.channels == {"label": ("b", "x", "a")} and second.keys() == first.keys()
    assert torch.equal(second["network.conv_norm_out.weight"], first["network.conv_norm_out.weight"])
    layer = "network.down_blocks.0.resnets.0.conv1.weight"
    assert not torch.equal(second[layer], first[layer])
    change = (second[layer] - first[layer]).flatten(1)
    assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2


def test_a_model_trained_otherwise_is_refused(tmp_path):
    _train(tmp_path / "first", label("a", "b"), _arrays(8, 2), steps=1)
    with pytest.raises(HistoloomError, match=r"train_denoiser\.prediction"):
        _train(
            tmp_path / "x", label("a", "b"), _arrays(8, 2), steps=1, prediction="epsilon", init=str(tmp_path / "first")
        )
    wider = _arrays(8, 2) | {"data": np.zeros((8, 1, 8, 8, 8), np.float32)}
    with pytest.raises(HistoloomError, match="diffuses 4 channels, and what is diffused here has 8"):
        _train(tmp_path / "y", label("a", "b"), wider, steps=1, init=str(tmp_path / "first"))


@pytest.mark.parametrize("options", [{"adapt": "lora"}, {"steps": 0}])
def test_params_that_have_nothing_to_adapt_are_refused(options):
    with pytest.raises(ValueError, match="adapt: lora"):
        TrainDenoiser(**options)


def test_a_packages_folder_stands_for_its_parts_wherever_it_lies(tmp_path, monkeypatch):
    (tmp_path / "mine/denoiser").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert packaged("mine", "denoiser") == "mine/denoiser"
    assert packaged(str(tmp_path / "mine"), "denoiser") == str(tmp_path / "mine/denoiser")
    assert packaged("mine", "autoencoder") == "mine" and packaged("org/name", "denoiser") == "org/name"
