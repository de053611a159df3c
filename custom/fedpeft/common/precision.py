"""Mixed precision where a device supports it: autocast to bfloat16, or float32 alone."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch


def native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware; emulated, they are slower than float32.

    On processors it looks for AVX-512 BF16 or AMX, as torch finds them; others count as having none.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def computing(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which a model computes at the given precision.

    Args:
        precision: "float32", "bfloat16", or "auto" for bfloat16 where the device has it.
        device: where the model is.

    Raises:
        RuntimeError: bfloat16 was asked for and the device has none. Another precision would hide that.
    """
    native = precision != "float32" and native_bfloat16(device)
    if precision == "bfloat16" and not native:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        raise RuntimeError(
            f"precision 'bfloat16' asked for, but device {str(device)!r} ({name}) does not compute it natively: give "
            f"precision 'auto' or 'float32', or use another device"
        )
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def as_here(device: torch.device) -> Callable[[], AbstractContextManager]:
    """A maker of contexts in which other threads compute at this thread's precision: autocast is set per thread."""
    kind = device.type
    return partial(torch.autocast, kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))
