"""What trains and what travels: a round's parcel is declared before anything moves."""

from torch import Tensor, nn

from fedpeft.model.initial import skeleton
from fedpeft.spec.run import Run

Parcel = dict[str, tuple[int, ...]]


def parcel(run: Run, round_: int = 0) -> Parcel:
    """Keys and shapes of the tensors that travel in a round, both ways.

    Args:
        run: the run; its method's row says what trains.
        round_: the round, 0-based. The rows of today exchange the same tensors in every round; rows that draw a
            subset derive it from (run.seed, round), which is why the round is part of the signature.

    Returns:
        Parameter path -> shape, in the model's order.
    """
    if not 0 <= round_ <= run.rounds:
        raise ValueError(f"round {round_} is outside of the run's 0..{run.rounds}")
    return {path: tuple(tensor.shape) for path, tensor in trainable(skeleton(run)).items()}


def counts(run: Run) -> tuple[int, int]:
    """Trainable parameters and all parameters of the run's model, adapters included in both; needs no checkpoint."""
    model = skeleton(run)
    return sum(p.numel() for p in trainable(model).values()), sum(p.numel() for p in model.parameters())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's trainable parameters by path."""
    return {path: parameter for path, parameter in model.named_parameters() if parameter.requires_grad}


def check(tensors: dict[str, Tensor], expected: Parcel, who: str) -> None:
    """Refuse anything but the declared parcel.

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
            raise ValueError(f"{who}: {named(key)} is extra, not one of the parcel's {len(expected)} declared tensors")
    for key, shape in expected.items():
        if key not in tensors:
            raise ValueError(f"{who}: {key!r} is missing; expected a tensor of shape {shape}")
        tensor = tensors[key]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{who}: {key!r} is {got}, expected a float tensor of shape {shape}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{who}: {key!r} has shape {tuple(tensor.shape)}, expected {shape}")
        if not tensor.isfinite().all():
            raise ValueError(f"{who}: {key!r} of shape {shape} is not finite; its sender must look at its training")


def named(key: object) -> str:
    """A key as it may stand in a message: quoted, and cut where a sender made it long."""
    return repr(key)[:160]
