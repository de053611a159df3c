"""An executor that trains as ours does and then sends what its site's name says."""

import torch
from nvflare.apis.dxo import DXO

from fedpeft.flare.executor import SiteExecutor


def not_a_number(tensors):
    key = next(iter(tensors))
    return tensors | {key: tensors[key] * torch.nan}


def wrong_shape(tensors):
    key = next(iter(tensors))
    return tensors | {key: torch.zeros(3, 4)}


def missing_key(tensors):
    return {key: tensors[key] for key in list(tensors)[1:]}


def extra_key(tensors):
    return tensors | {"image_encoder.pos_embed": torch.zeros(1, 12, 12, 128)}


FAULTS = {"nan": not_a_number, "shape": wrong_shape, "missing": missing_key, "extra": extra_key}


class MisbehavingExecutor(SiteExecutor):
    """Corrupts the result of the sites named in FAULTS; all others behave."""

    def _train(self, trainer, dxo, round_):
        answer = super()._train(trainer, dxo, round_)
        fault = FAULTS.get(trainer.site.name)
        if fault is None:
            return answer
        return DXO(answer.data_kind, data=fault(answer.data), meta=answer.meta)
