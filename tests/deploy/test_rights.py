"""Who may do what: local/authorization.json as FLARE evaluates it, on the machines of every organisation."""

import pytest
from nvflare.apis.fl_constant import AdminCommandNames
from nvflare.fuel.sec.authz import AuthzContext, Person
from nvflare.security.security import COMMAND_CATEGORIES, FLAuthorizer

from fedpeft.deploy.provision import authorization

ROLES = {"lead": "hq", "project_admin": "hq", "org_admin": "hospital_1", "member": "hq"}
EVERYWHERE = {"hq", "hospital_1", "hospital_2"}
# Right -> role -> organisations at whose machines it is granted; who is not named, nowhere.
TABLE = {
    "submit_job": {"lead": EVERYWHERE},
    "abort_job": {"lead": EVERYWHERE, "project_admin": EVERYWHERE},
    "delete_job": {"lead": EVERYWHERE, "project_admin": EVERYWHERE},
    "download_job": {"lead": EVERYWHERE, "project_admin": EVERYWHERE},
    "get_job_log": {"lead": EVERYWHERE, "project_admin": EVERYWHERE},
    "clone_job": {"lead": EVERYWHERE},
    "list_jobs": {"lead": EVERYWHERE, "project_admin": EVERYWHERE, "org_admin": {"hospital_1"}},
    "check_status": {"lead": EVERYWHERE, "project_admin": EVERYWHERE, "org_admin": {"hospital_1"}},
    "show_errors": {"org_admin": {"hospital_1"}},
    "shutdown": {"project_admin": {"hq"}, "org_admin": {"hospital_1"}},
    "configure_site_log": {"project_admin": {"hq"}, "org_admin": {"hospital_1"}},
    **dict.fromkeys(("byoc", "server-predeployed-flwr", "cat", "ls", "tail", "grep", "app_command", "abort_task"), {}),
}


def allowed(right, role, org, submitter):
    authorizer = FLAuthorizer(org, authorization())
    user = Person("me@example.org", ROLES[role], role)
    return authorizer.authorize(AuthzContext(right, user, Person(submitter, "hq", "lead")))[0]


@pytest.mark.parametrize("right", TABLE)
@pytest.mark.parametrize("role", ROLES)
def test_who_may_do_what(right, role):
    """Of jobs, those that the user has submitted."""
    found = {org for org in EVERYWHERE if allowed(right, role, org, "me@example.org")}
    assert found == TABLE[right].get(role, set())


@pytest.mark.parametrize("right", ["abort_job", "delete_job", "download_job", "get_job_log", "clone_job"])
def test_a_lead_has_no_right_to_anothers_job(right):
    assert not allowed(right, "lead", "hq", "another@example.org")


@pytest.mark.parametrize("right", sorted({*COMMAND_CATEGORIES, "byoc", AdminCommandNames.GET_JOB_LOG}))
def test_a_stranger_may_do_nothing(right):
    assert not allowed(right, "member", "hq", "me@example.org")
