"""What learners learn, and which one is taken where params name none."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from histoloom.registry import entry_of, known

LearnerTask = Literal["label", "mask"]
DEFAULT_LEARNERS: dict[LearnerTask, str] = {"label": "efficientnet-lite0", "mask": "unet"}
"""Task to the learner that is taken where none is named. Filters look with that of masks."""


def _check(name: str | None) -> str | None:
    if name is not None and entry_of("learner", name) is None:
        names = (f"{place}NAME" if place.endswith(":") else place for place in known("learner"))
        raise ValueError(f"'{name}' is no learner; there are {', '.join(names)}")
    return name


LearnerName = Annotated[str | None, AfterValidator(_check)]
"""None takes the task's."""
