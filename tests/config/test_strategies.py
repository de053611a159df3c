"""Server optimisers, averaging rules and site weightings: defaults, and combinations that are void."""

import pytest

from fedpeft.config.methods import METHODS
from fedpeft.config.run import make_run
from fedpeft.config.strategies import (
    AVERAGING_RULES,
    SERVER_OPTIMISERS,
    ServerOptimiser,
    SiteWeighting,
    register_server_optimisers,
    register_site_weightings,
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1.0, 0.0, 0.0)),
        ({"server_learning_rate": 0.5}, (0.5, 0.0, 0.0)),
        ({"server_optimiser": "momentum"}, (1.0, 0.5, 0.0)),
        ({"server_optimiser": "nesterov", "server_momentum": 0.0}, (1.0, 0.0, 0.0)),
        ({"server_optimiser": "adam", "server_tau": 0.1}, (0.01, 0.9, 0.1)),
        ({"server_optimiser": "yogi", "server_learning_rate": 1.0}, (1.0, 0.9, 1e-3)),
        ({"server_optimiser": "adagrad"}, (0.01, 0.0, 1e-3)),
    ],
)
def test_constants_are_as_set_or_the_entrys(fields, expected):
    step = make_run("flap_sam", "phantom", **fields).server_step
    assert tuple(step[name] for name in ("learning_rate", "momentum", "tau")) == expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"server_optimiser": "magic"}, "server_optimiser is 'magic', expected a server optimiser; known: average,"),
        ({"server_momentum": 0.5}, "server_momentum is 0.5, expected not to be set: .* use one of momentum, nesterov,"),
        ({"server_optimiser": "momentum", "server_tau": 0.1}, "server_tau is 0.1, expected not .* use one of adam,"),
        ({"server_optimiser": "momentum", "server_momentum": 1.0}, "server_momentum is 1.0, expected"),
        ({"server_learning_rate": 0.0}, "server_learning_rate is 0.0, expected"),
        ({"server_optimiser": "adam", "server_tau": 0.0}, "server_tau is 0.0, expected"),
        ({"site_weighting": "published"}, "site_weighting is 'published', expected another one: .* slices"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_remedy(fields, said):
    with pytest.raises(ValueError, match=f"^run: {said}"):
        make_run("flap_sam", "phantom", **fields)


@pytest.mark.parametrize("method", ["ma_sam", "ma_sam_tk"])
@pytest.mark.parametrize("fields", [{"server_learning_rate": 0.5}, {"server_optimiser": "nesterov"}])
def test_a_rule_that_cannot_move_goes_with_the_average_alone(method, fields):
    said = f"expected average with learning rate 1 for method {method}: rule (tensor_train|tucker) of its tensors"
    with pytest.raises(ValueError, match=said):
        make_run(method, "phantom", **fields)
    assert make_run(method, "phantom", server_learning_rate=1.0).server_step["learning_rate"] == 1


def test_every_rule_of_a_method_has_an_entry():
    assert {rule for method in METHODS.values() for _, rule in method.rules} == set(AVERAGING_RULES)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="server optimiser 'adam' is registered already"):
        register_server_optimisers(ServerOptimiser("adam", "another"))
    with pytest.raises(ValueError, match="site weighting 'cases' is registered already"):
        register_site_weightings(SiteWeighting("cases", "another"))
    assert SERVER_OPTIMISERS["adam"].tau
