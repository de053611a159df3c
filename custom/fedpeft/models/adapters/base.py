"""What adapters add to a backbone: modules that no checkpoint has."""

from torch import nn


class AdapterModule(nn.Module):
    """Base of every module that an adapter adds, with all that is below it."""

    def deviation(self, leaf: str) -> float:
        """Standard deviation of the gaussian that a parameter of this module is drawn from; 0: it starts as zeros."""
        return 0.0


class ZeroInitLinear(nn.Linear):
    """A linear layer that is zero at the start: a residual branch that ends in one begins as the identity."""


def adapter_prefixes(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the parameter paths that adapters have added."""
    return tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, AdapterModule))
