"""Check that the device which a site or a command asks for exists on this machine."""

import torch


def usable(device: str) -> torch.device:
    """The torch device of that name.

    Raises:
        RuntimeError: this machine does not have it. Computing on another device would hide that.
    """
    wanted = torch.device(device)
    count = torch.cuda.device_count() if wanted.type == "cuda" else 1
    if (wanted.index or 0) >= count:
        raise RuntimeError(
            f"device {device!r} asked for, but this machine shows {count} CUDA devices to torch {torch.__version__}: "
            f'correct "device" in the site file, or fix the driver or CUDA_VISIBLE_DEVICES'
        )
    return wanted
