"""The names of arms: what they say, and which say nothing."""

from __future__ import annotations

import pytest

from histoloom.config.arms import FIRST, FURTHER, Arm


def test_an_arm_says_what_it_is_trained_on():
    arm = Arm.of("strong+synthetic-of-variations+ssl")
    assert arm.has_real and arm.has_synthetic and arm.pretrained and arm.mixed and not arm.is_rival
    assert arm.requests == ("variations",) and arm.augmentation == "strong"
    assert not Arm.of("synthetic").has_real and not Arm.of("synthetic").mixed and Arm.of("real+retrieval").mixed
    assert Arm.of("synthetic-then-real-of-rare").in_turn and Arm.of("synthetic-then-real-of-rare").requests == ("rare",)
    assert Arm.of("strong+unfiltered-of-a-of-b-c").requests == ("a", "b-c")
    rivals = ["strong", "strong+ssl", "strong+retrieval"]
    assert all(Arm.of(name).is_rival for name in rivals) and not Arm.of("real").is_rival


@pytest.mark.parametrize("name", [
    "", "made", "real+made", "ssl", "strong+classical", "real+strong", "real+real", "strong+synthetic+unfiltered", "synthetic+retrieval",
    "real+synthetic+synthetic-of-rare", "strong-of-rare", "real+", "strong+synthetic-of-",
])  # fmt: skip
def test_names_that_contradict_themselves_are_refused(name):
    with pytest.raises(ValueError, match="the arm"):
        Arm.of(name)


def test_every_word_is_read():
    for first in FIRST:
        for word in FURTHER:
            try:
                assert word in Arm.of(f"{first}+{word}").words
            except ValueError as error:
                assert any(of in str(error) for of in ("twice", "two augmentations", "begin it with"))
