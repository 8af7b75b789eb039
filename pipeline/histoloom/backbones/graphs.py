"""CUDA graphs: a frozen network's forward recorded once for each shape of its inputs, then replayed.

A GPU ends a small network's kernels sooner than a CPU can start them; a replay starts all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

_WARM_UP = 3


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[torch.Tensor | None, ...]
    output: torch.Tensor


class Graphed:
    """The forward of a denoiser on a GPU, (latents, timesteps, and what else it takes by name) to an output with `sample`.

    What it gives can't be differentiated.
    """

    def __init__(self, forward: Callable[..., UNet2DConditionOutput]):
        self.forward = forward
        self.recorded: dict[tuple, _Recorded] = {}
        self.pool = torch.cuda.graph_pool_handle()  # one for all, since no two are replayed at once

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, **named: torch.Tensor | None
    ) -> UNet2DConditionOutput:
        given = (latents, timesteps, *named.values())
        key = (*named, *(None if value is None else (value.shape, value.dtype) for value in given))
        if key not in self.recorded:
            self.recorded[key] = self._record(given, tuple(named))
        graph, inputs, output = self.recorded[key]
        for mine, value in zip(inputs, given):
            if mine is not None and value is not None:  # of one key, both are or neither is
                mine.copy_(value)
        graph.replay()
        return UNet2DConditionOutput(sample=output.clone())

    def _record(self, given: tuple[torch.Tensor | None, ...], names: tuple[str, ...]) -> _Recorded:
        inputs = tuple(None if value is None else value.clone() for value in given)

        def forward() -> torch.Tensor:
            return self.forward(*inputs[:2], **dict(zip(names, inputs[2:]))).sample

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
