"""The initial model: the same everywhere, and the foundation model until something is trained."""

import subprocess
import sys

import pytest
import torch

from fedpeft.config.methods import METHODS
from fedpeft.config.run import make_run
from fedpeft.models.checkpoints.reading import shipped
from fedpeft.models.initial import build, fingerprint
from fedpeft.models.payload import trainable

TINY = make_run("flap_sam", "phantom", "sam_tiny", classes=2)


def test_same_seed_same_model_whatever_the_global_random_state_and_threads():
    torch.manual_seed(1)
    first = fingerprint(build(TINY, None))
    torch.manual_seed(2)
    torch.set_num_threads(2)
    second = fingerprint(build(TINY, None))
    torch.set_num_threads(1)
    assert first == second
    assert fingerprint(build(TINY.with_(seed=1), None)) != first


def test_a_tensor_does_not_depend_on_the_others():
    """The same path gets the same values in another method's model."""
    one = build(TINY, None).state_dict()
    other = build(TINY.with_(method="pdec_ft"), None).state_dict()
    assert set(other) < set(one)
    assert all(torch.equal(one[path], other[path]) for path in other)


def test_b_is_zero_and_a_is_gaussian():
    parameters = trainable(build(TINY, None))
    a = torch.cat([p.flatten() * p.shape[1] ** 0.5 for path, p in parameters.items() if path.endswith(".A")])
    assert all(p.abs().max() == 0 for path, p in parameters.items() if path.endswith("lora.q.B"))
    assert abs(a.mean()) < 0.02 and abs(a.std() - 1) < 0.02
    assert abs((a.abs() < 1).float().mean() - 0.683) < 0.02


def test_an_adapted_model_begins_as_the_foundation_model():
    images = torch.rand(2, 1, 96, 96)
    weights = shipped(TINY.backbone)
    adapted, plain = (build(TINY.with_(method=name), weights).eval() for name in ("flap_sam", "pdec_ft"))
    with torch.no_grad():
        assert torch.equal(adapted(images), plain(images))


@pytest.mark.parametrize(("side", "classes"), [(96, 1), (64, 3), (128, 2)])
def test_logits_have_the_inputs_resolution_and_a_token_a_class(side, classes):
    model = build(TINY.with_(image_size=side, classes=classes), shipped(TINY.backbone))
    with torch.no_grad():
        assert model(torch.rand(2, 1, side, side)).shape == (2, classes + 1, side, side)


def test_slices_of_a_stack_do_not_see_each_other():
    model = build(TINY, shipped(TINY.backbone)).eval()
    stack = torch.rand(5, 1, 96, 96)
    with torch.no_grad():
        before = model(stack)
        stack[2] = 0
        after = model(stack)
    others = [0, 1, 3, 4]
    assert torch.equal(before[others], after[others]) and not torch.equal(before[2], after[2])


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if "segmentation" in row.tasks])
def test_a_step_moves_what_trains_and_leaves_the_rest_bit_for_bit(method):
    model = build(TINY.with_(method=method, image_size=32), None).train()
    before = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        model(torch.rand(5, 1, 32, 32)).square().mean().backward()
        optimiser.step()
    parameters = trainable(model)
    for path, tensor in model.state_dict().items():
        if path not in parameters:
            assert torch.equal(tensor, before[path]), path
    assert all(p.grad is None for path, p in model.named_parameters() if path not in parameters)
    # The loss of masks alone never reaches the quality head and the prompts that are not given.
    unused = ("mask_decoder.iou_prediction_head", "prompt_encoder")
    still = [path for path, p in parameters.items() if torch.equal(p, before[path]) and not path.startswith(unused)]
    assert not [path for path in still if "rel_pos" not in path], still


def test_building_a_model_does_not_load_torchs_compiler():
    code = """
import sys
from fedpeft.models.initial import build
from fedpeft.config.run import make_run
build(make_run("flap_sam", "phantom", "sam_tiny", classes=2), None)
build(make_run("lora_vpt", "images", "vit_tiny", classes=3), None)
print("torch._dynamo" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert ran.stdout.strip() == "False"
