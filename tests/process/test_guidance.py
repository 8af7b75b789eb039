"""Guidance: its formula, its branches, and the interval in which it acts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.conditions.batch import Conditions, only
from histoloom.config import Sample
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.guidance import Branch, branches
from histoloom.process.predictor import Given, Predictor
from histoloom.process.process import Process
from histoloom.sampling.diffusion_model import written_guidance


def _guided(unet, scale, time: int) -> torch.Tensor:
    """The guided prediction, from a process in which it is the data itself."""
    model, latents, given_, nulls, specs = unet
    predictor = Predictor(model, Process("sample", "cosine", 1000), specs, lambda level: scale)
    found = predictor.x0(latents, time, Given(given_, nulls))
    assert torch.equal(found, predictor.x0(latents, [time] * len(latents), Given(given_, nulls)))
    return found


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.0 + 1e-6, 2.5])
def test_guidance_is_its_formula_also_where_it_is_cut_short(unet, scale):
    model, latents, given_, nulls, _ = unet
    time = torch.tensor(500)
    rows = nulls.each(lambda value: value.expand(3, *value.shape[1:]))
    with_, without = (model(latents, time.expand(3), c) for c in (given_, rows))
    assert (with_ - without).abs().max() > 1e-3
    found = _guided(unet, lambda _: scale, 500)
    torch.testing.assert_close(found, without + scale * (with_ - without), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unet", ["label and text"], indirect=True)
def test_two_scales_are_nested_in_the_conditions_order(unet):
    model, latents, given_, nulls, specs = unet
    time = torch.tensor(300)
    none, label, both = (
        model(latents, time.expand(3), only(given_, nulls, specs, names))
        for names in ((), ("label",), ("label", "text"))
    )
    found = _guided(unet, {"label": 3.0, "text": 1.5}.get, 300)
    torch.testing.assert_close(found, none + 3 * (label - none) + 1.5 * (both - label), rtol=1e-4, atol=1e-5)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.5]), max_size=5))
def test_branches_are_at_most_one_more_than_the_conditions_and_add_up_to_one(scales):
    specs = tuple(ConditionSpec(str(n), "vector", 1) for n in range(len(scales)))
    found = branches(specs, lambda name: scales[int(name)])
    assert 1 <= len(found) <= len(set(scales)) + 1
    assert sum(branch.coefficient for branch in found) == pytest.approx(1)
    assert all(branch.coefficient for branch in found)
    given_names = set().union(*(branch.names for branch in found))
    assert not given_names & {str(n) for n, scale in enumerate(scales) if scale == 0}
    if set(scales) <= {1.0}:
        assert [branch.names for branch in found] == [{spec.name for spec in specs}]


@pytest.mark.parametrize("unet", ["label and text"], indirect=True)
def test_what_a_mask_hides_does_not_count(unet):
    model, latents, given_, *_ = unet
    changed = given_.sequence.clone()
    changed[1, 2:] = 7.0
    other = Conditions(changed, given_.sequence_mask, given_.vector)
    time = torch.tensor([500] * 3)
    torch.testing.assert_close(model(latents, time, given_), model(latents, time, other))


intervals = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple)
names = st.sampled_from(["label", "text", "mask"])


@given(
    fraction=st.floats(0, 1),
    interval=intervals | st.dictionaries(names, intervals),
    scales=st.dictionaries(names, st.floats(0, 5), min_size=1),
)
def test_guidance_acts_in_its_interval_and_no_condition_counts_more_than_once_elsewhere(fraction, interval, scales):
    config = Sample(guidance=scales, guidance_interval=interval)
    for name, scale in scales.items():
        low, high = interval.get(name, (0, 1)) if isinstance(interval, dict) else interval
        assert config.scale_at(fraction)(name) == (scale if low <= fraction <= high else min(scale, 1))


def test_one_forward_of_one_branch_is_all_that_a_step_outside_takes(unet):
    config = Sample(guidance=3.0, guidance_interval=(0.2, 0.6))
    model, _, _, _, specs = unet
    predictor = Predictor(model, Process("sample", "cosine", 1000), specs, config.scale_at)
    counts = [len(predictor.branches(time)) for time in (100, 500, 900)]
    assert counts == [1, 2, 1]


@given(st.floats(0, 1))
def test_a_condition_without_an_interval_is_guided_at_every_step_the_last_too(fraction):
    assert (
        Sample(guidance=3.0).scale_at(fraction)("text")
        == Sample(guidance=3.0, guidance_interval=(0, 1)).scale_at(fraction)("text")
        == 3
    )


@pytest.mark.parametrize("unet", ["label and text"], indirect=True)
def test_a_condition_outside_its_interval_comes_first_and_takes_no_branch_of_its_own(unet):
    specs = unet[-1]
    scale = Sample(guidance=3.0, guidance_interval={"text": (0.2, 0.6)}).scale_at(0.9)
    assert branches(specs, scale) == (Branch(-2.0, frozenset({"text"})), Branch(3.0, frozenset({"label", "text"})))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"guidance": 2.0, "guidance_interval": (0.2, 0.6)}, [("all", 2.0, 0.2, 0.6)]),
        ({"guidance": {"text": 3.0, "mask": 1.5}}, [("text", 3.0, 0.0, 1.0), ("mask", 1.5, 0.2, 0.6)]),
        ({"guidance": 2.0}, [("text", 2.0, 0.0, 1.0), ("mask", 2.0, 0.2, 0.6)]),
        ({"guidance": {"text": 3.0}, "guidance_interval": {}}, [("text", 3.0, 0.0, 1.0), ("mask", 1.0, 0.0, 1.0)]),
        ({"guidance": 1.5, "guidance_interval": {"rna": (0, 0.5)}}, [("all", 1.5, 0.0, 1.0)]),
    ],
)
def test_a_row_states_the_guidance_of_the_conditions_that_its_study_has(config, said):
    names = ("condition", "scale", "start", "end")
    assert written_guidance(Sample(**config), ("text", "mask")) == [dict(zip(names, entry)) for entry in said]


@pytest.mark.parametrize("interval", [(0.6, 0.2), {"text": (0, 1), "mask": (0.6, 0.2)}])
def test_an_interval_that_ends_before_it_begins_is_refused(interval):
    with pytest.raises(ValueError, match="guidance_interval must begin below its end"):
        Sample(guidance_interval=interval)
