"""What frozen networks compute in, and how their weights lie in memory."""

from __future__ import annotations

from functools import cache

import torch

from histoloom.errors import HistoloomError


@cache
def has_bf16(device: str) -> bool:
    """Whether the device computes bf16 itself. Where it is only emulated, a convolution takes ten times as long as in fp32."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 can't tell
    instructions = any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return instructions and torch.backends.mkldnn.is_available()


def native(kind: str, device: str) -> str:
    """What `kind` (fp32, bf16 or fp16) is computed in on this device: itself, or fp32 for bf16 that it hasn't."""
    return "fp32" if kind == "bf16" and not has_bf16(device) else kind


def autocast_type(kind: str, device: str) -> torch.dtype | None:
    """What a frozen network is cast to while it computes in `kind` (fp32, fp16, or bf16 where the device has it); None for fp32.

    Raises
    ------
    HistoloomError
        when a CPU is asked for fp16, which it computes more slowly than fp32.
    """
    if kind == "fp16" and device == "cpu":
        raise HistoloomError("precision: fp16 needs a GPU. On a CPU use bf16 or fp32.")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[native(kind, device)]


def set_precision(model: torch.nn.Module, kind: str, device: str) -> torch.nn.Module:
    """Have a frozen model compute in `kind`, its weights and what it gives staying as they are; errors as of `autocast_type`."""
    if (dtype := autocast_type(kind, device)) is not None:
        from accelerate.utils import convert_outputs_to_fp32

        model.forward = convert_outputs_to_fp32(torch.autocast(device.split(":")[0], dtype)(model.forward))
    return model.to(memory_format=torch.channels_last)
