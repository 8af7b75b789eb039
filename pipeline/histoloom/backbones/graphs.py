"""CUDA graphs: a frozen network's forward recorded once for each shape of its inputs, then replayed.

A GPU ends a small network's kernels sooner than a CPU can start them; a replay starts all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

import torch

from histoloom.conditions.batch import Conditions

_WARM_UP = 3
_CONDITIONS = tuple(field.name for field in fields(Conditions))


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor | None, ...]
    output: torch.Tensor


class Graphed:
    """The forward of a backbone on a GPU, its conditions' map among the inputs.

    What it gives can't be differentiated.
    """

    def __init__(self, forward: Callable[[torch.Tensor, torch.Tensor, Conditions], torch.Tensor]):
        self.forward = forward
        self.recorded: dict[tuple, _Recorded] = {}
        self.pool = torch.cuda.graph_pool_handle()  # one for all, since no two are replayed at once

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        values = (x, times, *(getattr(given, name) for name in _CONDITIONS))
        key = tuple(None if value is None else (value.shape, value.dtype) for value in values)
        if key not in self.recorded:
            self.recorded[key] = self._record(values)
        graph, inputs, output = self.recorded[key]
        for mine, value in zip(inputs, values):
            if mine is not None and value is not None:  # of one key, both are or neither is
                mine.copy_(value)
        graph.replay()
        return output.clone()

    def _record(self, values: tuple[torch.Tensor | None, ...]) -> _Recorded:
        inputs = tuple(None if value is None else value.clone() for value in values)
        x, times, *conditions = inputs
        assert x is not None and times is not None

        def forward() -> torch.Tensor:
            return self.forward(x, times, Conditions(*conditions))

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):  # libraries choose and allocate at their first calls, which can't be recorded
                forward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            output = forward()
        return _Recorded(graph, inputs, output)
