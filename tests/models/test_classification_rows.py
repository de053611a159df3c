"""Every classification row: its count by formula, what begins as the foundation model, what gets gradients."""

import pytest
import torch

from fedpeft.config.methods import METHODS
from fedpeft.config.run import make_run
from fedpeft.models.adapters.base import adapter_prefixes
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build
from fedpeft.models.payload import counts, trainable

ROWS = [name for name, row in METHODS.items() if "classification" in row.tasks]
# ViT-B/16 at 224 px, written without the model code: a patch's 3 x 16 x 16 values, the class token, 14 x 14 + 1
# positions; a block's attention (q, k, v, projection), MLP and two normalisations; the last normalisation.
D, HEAD = 768, 768 * 8 + 8
ATTENTION = 3 * (D * D + D) + D * D + D
BLOCK = ATTENTION + (D * 4 * D + 4 * D) + (4 * D * D + D) + 2 * 2 * D
ENCODER = (3 * 16 * 16 * D + D) + D + 197 * D + 12 * BLOCK + 2 * D
# method -> (rank, prompts) -> what it adds, what of the backbone it trains besides the head.
FORMULAS = {
    "full_ft": lambda r, p: (0, ENCODER),
    "attn_ft": lambda r, p: (0, 12 * ATTENTION),
    "linear_probe": lambda r, p: (0, 0),
    "bitfit": lambda r, p: (0, D + 12 * (3 * D + D + 4 * D + D + 2 * D) + D),
    "layernorm": lambda r, p: (0, 12 * 2 * 2 * D + 2 * D),
    "sba": lambda r, p: (0, 12 * ATTENTION),
    "vpt_shallow": lambda r, p: (p * D, 0),
    "vpt_deep": lambda r, p: (12 * p * D, 0),
    "dvpt": lambda r, p: (12 * r * (p + D), 0),
    "lora": lambda r, p: (12 * 2 * 2 * D * r, 0),
    "lora_vpt": lambda r, p: (12 * 2 * 2 * D * r + 12 * p * D, 0),
    "adapters": lambda r, p: (12 * 2 * (2 * D * r + r + D), 0),
    "sba_vpt": lambda r, p: (12 * p * D, 12 * ATTENTION),
}
VIT = make_run("linear_probe", "images", "vit_tiny", classes=3)
SAM = VIT.with_(backbone="sam_tiny")
PLACES = [(VIT, name) for name in ROWS] + [(SAM, name) for name in ROWS if name != "vpt_shallow"]
# Prompts change what the other tokens see from the start.
UNCHANGED = [(run, name) for run, name in PLACES if METHODS[name].adapters and not METHODS[name].prompts]


def test_there_are_thirteen_rows_and_a_formula_for_each():
    assert len(ROWS) >= 13 and set(ROWS) == set(FORMULAS)
    assert ENCODER == 85_798_656


@pytest.mark.parametrize(("rank", "prompts", "blocks"), [(1, 1, 1), (4, 10, 3), (8, 50, 12)])
@pytest.mark.parametrize("method", ROWS)
def test_counts_by_formula(method, rank, prompts, blocks):
    run = make_run(method, "isic2019", "vit_b16", classes=8, rank=rank, prompts=prompts, blocks=blocks)
    more, own = FORMULAS[method](rank, prompts)
    assert counts(run) == (more + own + HEAD, ENCODER + HEAD + more)


@pytest.mark.parametrize(("method", "rank", "prompts"), [("lora", 8, 0), ("vpt_deep", 8, 10), ("dvpt", 4, 10)])
def test_counts_at_the_rows_defaults(method, rank, prompts):
    run = make_run(method, "isic2019", "vit_b16", classes=8)
    assert (run.option("rank"), run.option("prompts")) == (rank, prompts)
    assert counts(run)[0] == FORMULAS[method](rank, prompts)[0] + HEAD


def model_of(run, method):
    """The row's model with no zeros in what trains: behind a zero, gradients are zero as well."""
    model = build(run.with_(method=method, prompts=5, blocks=2), None).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize(("run", "method"), PLACES)
def test_what_is_declared_gets_gradients_and_nothing_else(run, method):
    model = model_of(run, method)
    images = torch.rand(2, 3, run.model.image_size, run.model.image_size, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    assert logits.shape == (2, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    row = METHODS[method]
    for path, parameter in model.named_parameters():
        if row.trains_tensor(path):
            assert parameter.grad.abs().max() > 0, path
        else:
            assert parameter.grad is None, path


@pytest.mark.parametrize(("run", "method"), UNCHANGED)
def test_an_adapted_model_begins_as_the_foundation_model(run, method):
    checkpoint = shipped(run.backbone) if run is SAM else None
    images = torch.rand(2, 3, run.model.image_size, run.model.image_size, generator=torch.Generator().manual_seed(0))
    adapted, plain = (build(run.with_(method=name), checkpoint).eval() for name in (method, "linear_probe"))
    with torch.no_grad():
        for model in (adapted, plain):
            model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(adapted(images), plain(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("run", "method"), [(VIT, name) for name in ROWS if METHODS[name].adapters])
def test_what_adapters_add_is_known_as_added(run, method):
    """Else the checkpoint would be searched for it."""
    model, plain = build(run.with_(method=method), None), build(run, None)
    more = set(model.state_dict()) - set(plain.state_dict())
    assert more and all(path.startswith(adapter_prefixes(model)) for path in more)
    assert set(plain.state_dict()) < set(model.state_dict())
