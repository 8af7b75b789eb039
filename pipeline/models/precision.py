"""What frozen networks compute in, and how their weights lie in memory."""

from __future__ import annotations

import torch

from pipeline.errors import HistoloomError


def set_precision(model: torch.nn.Module, kind: str, device: str) -> torch.nn.Module:
    """Have a frozen model compute in `kind` (fp32, bf16 or fp16), its weights and what it gives staying as they are.

    Raises
    ------
    HistoloomError
        when a CPU is asked for fp16, which it computes more slowly than fp32.
    """
    if kind == "fp16" and device == "cpu":
        raise HistoloomError("precision: fp16 needs a GPU. On a CPU use bf16 or fp32.")
    if kind != "fp32":
        from accelerate.utils import convert_outputs_to_fp32

        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[kind]
        model.forward = convert_outputs_to_fp32(torch.autocast(device.split(":")[0], dtype)(model.forward))
    return model.to(memory_format=torch.channels_last)
