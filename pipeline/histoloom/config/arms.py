"""The arms of `uplift`: what a name such as strong+synthetic says about tiles, augmentation and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

Augmentation = Literal["none", "classical", "strong"]
FIRST = ("real", "strong", "synthetic", "synthetic-then-real")
FURTHER = ("synthetic", "unfiltered", "synthetic-then-real", "retrieval", "ssl", "classical")
_SYNTHETIC = ("synthetic", "unfiltered", "synthetic-then-real")
_OF = "-of-"
"""Before the name of each of the plan's requests whose tiles an arm takes alone."""


@dataclass(frozen=True)
class Arm:
    """What an arm is trained on, and how.

    words : the parts of its name. requests : those of the plan whose synthetic tiles it takes; none for all.
    """

    name: str
    words: frozenset[str]
    requests: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str) -> Arm:
        """Read an arm's name: words joined by +.

        Raises
        ------
        ValueError
            for words that are unknown, repeated, or contradict one another.
        """
        parts = name.split("+")
        words, requests = zip(*(_parted(part) for part in parts))
        if words[0] not in FIRST:
            raise ValueError(f"the arm '{name}' begins with '{words[0]}': an arm begins with {', '.join(FIRST)}")
        if unknown := [word for word in words[1:] if word not in FURTHER]:
            raise ValueError(f"the arm '{name}' names '{unknown[0]}': after + there may be {', '.join(FURTHER)}")
        if len(set(words)) < len(words) or sum(word in _SYNTHETIC for word in words) > 1:
            raise ValueError(f"the arm '{name}' names its synthetic tiles, or something else, twice")
        if {"strong", "classical"} <= {*words}:
            raise ValueError(f"the arm '{name}' has two augmentations: strong and classical")
        arm = cls(name, frozenset(words), next((of for of in requests if of), ()))
        if "retrieval" in words and not arm.has_real:
            raise ValueError(
                f"the arm '{name}' retrieves tiles that are like labelled ones, and has none: begin it with real or strong"
            )
        return arm

    @property
    def has_real(self) -> bool:
        return bool({"real", "strong", "synthetic-then-real"} & self.words)

    @property
    def has_synthetic(self) -> bool:
        return bool({*_SYNTHETIC} & self.words)

    @property
    def unfiltered(self) -> bool:
        return "unfiltered" in self.words

    @property
    def in_turn(self) -> bool:
        """Whether synthetic tiles are learnt from first, and real ones then."""
        return "synthetic-then-real" in self.words

    @property
    def retrieves(self) -> bool:
        """Whether real tiles without labels are learnt from too."""
        return "retrieval" in self.words

    @property
    def pretrained(self) -> bool:
        """Whether its network was trained on unlabelled tiles before."""
        return "ssl" in self.words

    @property
    def mixed(self) -> bool:
        """Whether it has other tiles beside labelled real ones, and so a ratio."""
        return self.has_real and (self.has_synthetic or self.retrieves)

    @property
    def augmentation(self) -> Augmentation:
        return "strong" if "strong" in self.words else "classical" if "classical" in self.words else "none"

    @property
    def is_rival(self) -> bool:
        """Whether synthetic tiles must do better than this arm to be worth their cost: it has none, and all that is known to help without."""
        return not self.has_synthetic and self.augmentation == "strong"


def _parted(word: str) -> tuple[str, tuple[str, ...]]:
    """A word and the requests that it names."""
    kind, *requests = word.split(_OF)
    return (kind, tuple(requests)) if kind in _SYNTHETIC and all(requests) else (word, ())


def _check(name: str) -> str:
    Arm.of(name)
    return name


ArmName = Annotated[str, AfterValidator(_check)]
