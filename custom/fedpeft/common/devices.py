"""Check that the device which a site or a command asks for exists on this machine."""

import torch


def usable(device: str, asked: str = '"device" in the site file') -> torch.device:
    """The torch device of that name.

    Args:
        device: "cpu" or "cuda:<index>".
        asked: where it was asked for, and is corrected.

    Raises:
        RuntimeError: this machine does not have it. Computing on another device would hide that.
    """
    wanted = torch.device(device)
    count = torch.cuda.device_count() if wanted.type == "cuda" else 1
    if (wanted.index or 0) >= count:
        known = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise RuntimeError(
            f"device {device!r} asked for, but this machine shows {count} CUDA devices to torch {torch.__version__}: "
            f"correct {asked} (here are {known}), or fix the driver or CUDA_VISIBLE_DEVICES"
        )
    return wanted
