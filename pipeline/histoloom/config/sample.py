"""The section `sample`."""

from __future__ import annotations

from typing import Annotated

from histoloom.config.base import Distinct, Solved
from histoloom.config.file_names import FileName


class Sample(Solved):
    chain: Annotated[tuple[FileName, ...], Distinct] = ()
    """names of `models` that sample one after another, each reading the arrays of the earlier ones; unstated, the only one"""
