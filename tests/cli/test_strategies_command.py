"""``fedpeft strategies``: what a server can do, and what goes together."""

import json

from fedpeft.config.strategies import AVERAGING_RULES, SERVER_OPTIMISERS, SITE_WEIGHTINGS


def test_json_has_every_entry_with_what_it_goes_with(fedpeft):
    code, out, _ = fedpeft("strategies", "--json")
    found = {kind: {entry["name"]: entry for entry in entries} for kind, entries in json.loads(out).items()}
    assert code == 0
    assert list(found["server_optimisers"]) == list(SERVER_OPTIMISERS)
    assert list(found["averaging_rules"]) == list(AVERAGING_RULES)
    assert list(found["site_weightings"]) == list(SITE_WEIGHTINGS)
    assert found["server_optimisers"]["average"]["averaging_rules"] == list(AVERAGING_RULES)
    assert found["server_optimisers"]["nesterov"]["averaging_rules"] == ["mean", "product"]
    assert found["averaging_rules"]["tucker"]["server_optimisers"] == ["average"]
    assert found["averaging_rules"]["tensor_train"]["methods"] == ["ma_sam"]
    assert "flap_sam" in found["averaging_rules"]["product"]["methods"]
    assert "full_ft" not in found["averaging_rules"]["product"]["methods"]
    assert found["site_weightings"]["published"]["datasets"] == ["kits19", "ixi", "prostate"]


def test_the_table_names_everything(fedpeft):
    code, out, _ = fedpeft("strategies")
    assert code == 0
    assert all(name in out for name in (*SERVER_OPTIMISERS, *AVERAGING_RULES, *SITE_WEIGHTINGS, "FedAvgM"))


def test_a_void_combination_is_refused_when_a_job_is_rendered(fedpeft, tmp_path):
    fixed = ["job", "render", "flap_sam_phantom", "--name", "mine", "--out", tmp_path]
    code, _, err = fedpeft(*fixed, "--method", "ma_sam", "--server-optimiser", "nesterov")
    assert code == 1 and "expected average with learning rate 1 for method ma_sam" in err
    assert fedpeft(*fixed, "--server-optimiser", "nesterov", "--server-momentum", "0.9")[0] == 0
