"""The policy in every kit: what a job may name, who may do what, what leaves a site, where the server keeps jobs."""

import json
import os
from pathlib import Path

import pytest
from made_kits import HOSPITALS, OURS, POLICY, SERVER, SITES, files, nvflare, provisioned, read
from nvflare.apis.fl_constant import FilterKey
from nvflare.apis.workspace import Workspace
from nvflare.private.fed.app.fl_conf import create_privacy_manager

from fedpeft.config.methods import METHODS
from fedpeft.deploy.limits import SiteLimit
from fedpeft.deploy.provision import LAUNCHER, authorization
from fedpeft.deploy.storage import KitJobs, KitStorage
from fedpeft.flare.rendering import ALLOW_LIST, policy
from fedpeft.training.client.site_file import NAME, read_site_file


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return provisioned(tmp_path_factory.mktemp("consortium"), patch)


@pytest.mark.parametrize("name", SITES)
def test_the_policy_is_in_every_kit_and_nothing_else(kits, name):
    assert files(kits / name / "local") == POLICY | OURS | ({"privacy.json"} if name != SERVER else set())
    for file in (kits / name).rglob("*.json*"):
        json.loads(file.read_text())


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("file", ["authorization.json", "log_config.json", "resources.json"])
def test_what_flare_falls_back_to_is_the_same(kits, name, file):
    """FLARE's own defaults permit code in jobs and 88 classes."""
    assert read(kits, name, file) == read(kits, name, f"{file}.default")


@pytest.mark.parametrize("name", SITES)
def test_a_job_may_name_our_classes_alone(kits, name):
    resources = read(kits, name, "resources.json")
    assert resources["class_allow_list"] == list(ALLOW_LIST) == policy()["class_allow_list"]
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert resources["app_validator"] == {"path": "fedpeft.deploy.limits.JobFiles", "args": {}}
    limits = [part["path"] for part in resources["components"] if part["path"].startswith("fedpeft")]
    assert not set(limits) & set(ALLOW_LIST)


@pytest.mark.parametrize("name", HOSPITALS)
def test_a_hospitals_own_parts(kits, name):
    resources = read(kits, name, "resources.json")
    parts = {part["id"]: part for part in resources["components"]}
    assert set(parts) == {"resource_manager", "resource_consumer", "process_launcher", "no_shell"}
    assert parts["process_launcher"] == {"id": "process_launcher", "path": LAUNCHER, "args": {}}
    assert parts["resource_manager"]["path"].endswith(".GPUResourceManager")
    assert parts["resource_manager"]["args"] == {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300}
    assert resources["allow_log_streaming"] is False


def test_the_servers_own_parts(kits):
    resources = read(kits, SERVER, "resources.json")
    assert resources["servers"][0]["heart_beat_timeout"] == 25
    parts = {part["id"]: part for part in resources["components"]}
    assert set(parts) == {"job_scheduler", "job_manager", "job_store", "process_launcher", "continuation"}
    scheduling = parts["job_scheduler"]["args"]
    assert scheduling["max_schedule_count"] * scheduling["max_schedule_interval"] > 6 * 86400, "a job waits for days"
    assert scheduling["max_schedule_count"] < 1024, "FLARE's scheduler computes 2.0 to this power"
    assert "/tmp" not in json.dumps(resources)
    assert parts["job_manager"]["path"] == "fedpeft.deploy.storage.KitJobs"
    assert resources["snapshot_persistor"]["args"]["storage"]["path"] == "fedpeft.deploy.storage.KitStorage"


def test_the_servers_jobs_lie_below_its_kit(kits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resources = read(kits, SERVER, "resources.json")
    (manager,) = [part["args"] for part in resources["components"] if part["id"] == "job_manager"]
    assert KitJobs(**manager).job_uri("a-job") == str(tmp_path / "jobs-storage" / "a-job")
    storage = KitStorage(**resources["snapshot_persistor"]["args"]["storage"]["args"])
    assert storage.create_object("/a", b"state", {}) == str(tmp_path / "snapshot-storage" / "a")


def test_our_lines_are_in_the_short_log(kits):
    chosen = read(kits, "hospital-1", "log_config.json")["filters"]["FLFilter"]["logger_names"]
    assert "fedpeft" in chosen and "nvflare.app_common" in chosen


@pytest.mark.parametrize("name", SITES)
def test_everybody_has_the_same_rights_everywhere(kits, name):
    """What FLARE makes of them is in test_rights.py."""
    assert read(kits, name, "authorization.json") == authorization()


@pytest.mark.parametrize("name", HOSPITALS)
def test_flare_applies_the_sites_filter_whatever_scope_a_job_asks_for(kits, name):
    manager = create_privacy_manager(Workspace(str(kits / name), name), names_only=False)
    assert manager.is_policy_defined()
    assert manager.get_scope("public") is None, "a job that asks for another scope is refused"
    for asked in ("", None, "fedpeft"):
        filters = manager.get_scope(asked).task_result_filters
        assert [type(item) for item in filters[FilterKey.OUT]] == [SiteLimit] and not filters[FilterKey.IN]


@pytest.mark.parametrize("name", HOSPITALS)
def test_the_site_file_is_valid_and_permits_nothing_until_it_is_filled_in(kits, name):
    site = read_site_file(kits / name / "local" / NAME, name)
    assert name in site.datasets["kits19"]
    for path in (*site.datasets.values(), site.checkpoints["sam_vit_b"].path, site.state_dir):
        assert os.path.isabs(path) and path.startswith("/path/to/")
    for method in METHODS:
        with pytest.raises(ValueError, match="does not permit"):
            site.admit(method, 0)


def test_the_servers_site_file_names_checkpoints_only(kits):
    site = read_site_file(kits / SERVER / "local" / NAME, SERVER)
    assert site.checkpoints and not site.datasets and not site.state_dir


@pytest.mark.parametrize("name", SITES)
def test_unsigned_jobs_are_refused_at_both_ends_over_mtls(kits, name):
    file = "fed_server.json" if name == SERVER else "fed_client.json"
    startup = json.loads((kits / name / "startup" / file).read_text())
    assert startup["require_signed_jobs"] is True
    part = startup["servers"][0] if name == SERVER else startup["client"]
    assert part["connection_security"] == "mtls"


@pytest.mark.parametrize("runtime", ["docker", "k8s"])
@pytest.mark.parametrize("name", [SERVER, "hospital-1"])
def test_a_kit_prepared_for_containers_keeps_the_policy(kits, name, runtime, tmp_path, monkeypatch):
    """FLARE deletes resources.json there and starts from resources.json.default."""
    (tmp_path / "config.yaml").write_text(f"runtime: {runtime}\nparent: {{docker_image: example.org/fedpeft}}\n")
    out = tmp_path / "prepared"
    command = ("deploy", "prepare", kits / name, "--config", "config.yaml", "--output", out)
    assert nvflare(tmp_path, monkeypatch, *command) == 0
    before = read(kits, name, "resources.json")
    after = json.loads(Path(Workspace(str(out), name).get_resources_file_path()).read_text())
    for key in ("class_allow_list", "class_list_enforcement_mode", "app_validator"):
        assert after[key] == before[key]
    kept = {part["id"] for part in after["components"]}
    assert "no_shell" in kept or name == SERVER
    assert {"site_log_streamer", "log_receiver", "process_launcher"}.isdisjoint(kept)
    for file in ("authorization.json", *(["privacy.json"] if name != SERVER else [])):
        assert read(out.parent, out.name, file) == read(kits, name, file)
