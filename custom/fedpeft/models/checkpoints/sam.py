"""SAM as Meta published it; our model has the same names."""

from collections.abc import Iterable

from fedpeft.models.checkpoints.format import Format, register_format

UPSCALING = "mask_decoder.output_upscaling."


class SamFormat(Format):
    """The published mask decoder upscales by 4; ours may have more stages, or fewer."""

    def may_lack(self, key: str, found: Iterable[str]) -> bool:
        """Whether the tensor is of a later upscaling stage than the file has."""
        if not key.startswith(UPSCALING):
            return False
        last = max((_position(name) for name in found if name.startswith(UPSCALING)), default=-1)
        return last >= 0 and _position(key) > last

    def may_add(self, key: str) -> bool:
        """Whether the tensor is of an upscaling stage."""
        return key.startswith(UPSCALING)


def _position(key: str) -> int:
    """Place of an upscaling layer in its sequence."""
    return int(key.removeprefix(UPSCALING).split(".")[0])


# A classifier has neither prompt encoder nor mask decoder.
register_format("sam", SamFormat("sam", "segment_anything's", parts=("prompt_encoder", "mask_decoder")))
