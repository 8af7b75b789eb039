"""What frozen networks compute in, and how their weights lie in memory."""

from __future__ import annotations

from functools import cache

import torch

from histoloom.backbones.int8 import has_int8
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
    """What `kind` (fp32, bf16, fp16 or int8) is computed in on this device: itself, or fp32 for bf16 and int8 that it hasn't."""
    lacking = (kind == "bf16" and not has_bf16(device)) or (kind == "int8" and not has_int8())
    return "fp32" if lacking else kind


def autocast_type(kind: str, device: str) -> torch.dtype | None:
    """What a frozen network is cast to while it computes in `kind`: None for fp32, for bf16 that the device hasn't, and for int8, whose other
    layers compute in fp32.

    Raises
    ------
    HistoloomError
        when a CPU is asked for fp16, which it computes more slowly than fp32, or a GPU for int8; and when there is no such precision.
    """
    if kind == "fp16" and device == "cpu":
        raise HistoloomError("precision: fp16 needs a GPU. On a CPU use bf16, int8 or fp32.")
    if kind == "int8" and device != "cpu":
        raise HistoloomError("precision: int8 is for CPUs. On a GPU use bf16, fp16 or fp32.")
    types = {"fp32": None, "int8": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if kind not in types:
        raise HistoloomError(f"precision: there is no '{kind}'. It is one of {', '.join(types)}.")
    return types[native(kind, device)]


def set_precision(model: torch.nn.Module, kind: str, device: str) -> torch.nn.Module:
    """Have a frozen model compute in `kind`, its weights and what it gives staying as they are; errors as of `autocast_type`."""
    if (dtype := autocast_type(kind, device)) is not None:
        from accelerate.utils import convert_outputs_to_fp32

        model.forward = convert_outputs_to_fp32(torch.autocast(device.split(":")[0], dtype)(model.forward))
    return model.to(memory_format=torch.channels_last)
