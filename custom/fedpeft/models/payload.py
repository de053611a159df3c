"""Declare what trains and what travels, before anything moves.

There are three sets of tensors, all by parameter path and shape: ``whole``, everything that a method may ever train;
``payload``, what a round trains and a site sends back; ``download``, what a site receives when a round starts. They
differ only for methods that select blocks: a round trains the selected blocks alone, and a site that took part in all
rounds so far lacks only the averages of the round before.
"""

import re
from math import prod

from torch import Tensor, nn

from fedpeft.algebra.codec import roundtrip
from fedpeft.algebra.finite import all_finite
from fedpeft.config.run import Run
from fedpeft.config.seeds import seed_of
from fedpeft.models.initial import skeleton

Payload = dict[str, tuple[int, ...]]
BLOCK = re.compile(r"\.blocks\.(\d+)\.")


def whole(run: Run) -> Payload:
    """Keys and shapes of all tensors that the method may train, in the model's order."""
    return {path: tuple(tensor.shape) for path, tensor in trainable(skeleton(run)).items()}


def payload(run: Run, round_: int = 0) -> Payload:
    """Keys and shapes of the tensors that a round trains and a site sends.

    Args:
        run: the run; its method's entry says what trains.
        round_: 0-based. Methods that select blocks derive these from (run.training.seed, round).

    Returns:
        Parameter path -> shape, in the model's order.

    Raises:
        ValueError: the run has no such round.
    """
    if not 0 <= round_ <= run.federation.rounds:
        raise ValueError(f"round {round_} is outside of the run's 0..{run.federation.rounds}")
    return {path: shape for path, shape in whole(run).items() if is_trained(run, path, round_)}


def download(run: Run, round_: int = 0) -> Payload:
    """Keys and shapes of the tensors that a site receives at the start of a round.

    These are the averages of the round before. The site has received or built everything else already.

    Args:
        run: the run.
        round_: 0-based; ``run.federation.rounds`` is the validation after the last round.

    Raises:
        ValueError: the run has no such round.
    """
    return payload(run, round_ - 1 if 0 < round_ <= run.federation.rounds else round_)


def is_trained(run: Run, path: str, round_: int) -> bool:
    """Whether a round trains the parameter at ``path``, one that the method may train.

    Raises:
        ValueError: the method's entry selects blocks by a glob that matches a parameter outside the blocks.
    """
    if not run.method.selects_tensor(path):
        return True
    block = BLOCK.search(path)
    if block is None:
        raise ValueError(
            f"method {run.model.method!r} selects {path!r}, which is in no block; correct the entry's selects"
        )
    return int(block[1]) in selected_blocks(run, round_)


def selected_blocks(run: Run, round_: int) -> tuple[int, ...]:
    """The blocks that a round trains, for a method that selects some; server and sites select the same.

    Every subset of ``run.blocks`` blocks is equally likely, independent of other rounds.

    Returns:
        Numbers of blocks, ascending.
    """
    order = sorted(range(run.backbone.depth), key=lambda block: seed_of(run.training.seed, "blocks", round_, block))
    return tuple(sorted(order[: run.blocks]))


def last_trained(run: Run, path: str, before: int) -> int | None:
    """The last round before round ``before`` that trained the parameter at ``path``; None if none did."""
    return next((number for number in reversed(range(before)) if is_trained(run, path, number)), None)


def decoded(run: Run, tensors: dict[str, Tensor], round_: int) -> dict[str, Tensor]:
    """The server's tensors as the sites have them when a round starts: decoded, or as built if they were never sent.

    Args:
        run: the run.
        tensors: path -> the server's own tensor, of any of the paths that the method may train.
        round_: 0-based.
    """
    sent = {path: value for path, value in tensors.items() if last_trained(run, path, max(round_, 1)) is not None}
    return tensors | roundtrip(sent, run.federation.codec)


def counts(run: Run) -> tuple[int, int]:
    """Numbers of trainable and of all parameters of the run's model, adapters included; reads no file."""
    model = skeleton(run)
    return sum(p.numel() for p in trainable(model).values()), sum(p.numel() for p in model.parameters())


def exchanged(run: Run) -> int:
    """Number of parameters in one site's upload in a round; for methods that select blocks, the rounded mean.

    The mean is over all selections: SAM's global blocks have more relative positions than its windowed ones. The blocks
    of a ViT are all alike.
    """
    sizes = {path: prod(shape) for path, shape in whole(run).items()}
    of_blocks = sum(size for path, size in sizes.items() if run.method.selects_tensor(path))
    return round(sum(sizes.values()) - of_blocks * (1 - run.blocks / run.backbone.depth))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's trainable parameters by path."""
    return {path: parameter for path, parameter in model.named_parameters() if parameter.requires_grad}


def check(tensors: dict[str, Tensor], expected: Payload, who: str) -> None:
    """Refuse anything but the declared payload.

    Args:
        tensors: what was received, decoded.
        expected: the declared keys and shapes.
        who: the sender, for the message: a site's name or "server".

    Raises:
        ValueError: a key is extra or missing, a shape is wrong, a value is not a float tensor or not finite; the
            message names sender, key, the shape got and the shape expected. It holds no values.
    """
    for key in tensors:
        if key not in expected:
            raise ValueError(f"{who}: {named(key)} is extra, not one of the payload's {len(expected)} declared tensors")
    for key, shape in expected.items():
        if key not in tensors:
            raise ValueError(f"{who}: {key!r} is missing; expected a tensor of shape {shape}")
        tensor = tensors[key]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{who}: {key!r} is {got}, expected a float tensor of shape {shape}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{who}: {key!r} has shape {tuple(tensor.shape)}, expected {shape}")
        if not all_finite(tensor):
            raise ValueError(f"{who}: {key!r} of shape {shape} is not finite; check the training at the sender")


def named(key: object) -> str:
    """A key for a message: quoted, and cut where a sender made it long."""
    return repr(key)[:160]
