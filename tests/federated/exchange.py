"""Server and site in one process: filters, contexts, FLARE's serialisation, without its transport.

Test doubles: the engine and its workspace, which here only hand out the job's run component and a site's files.
"""

from types import SimpleNamespace

from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_constant import FilterKey, FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.fuel.utils import fobs

from fedpeft.algebra.codec import nbytes
from fedpeft.flare.filters import DecodePayload, EncodePayload
from fedpeft.flare.messages import is_ok, reason_of

# As every FLARE process does at its start. Without it FOBS takes a general decomposer for Shareable at the first
# message, keeps it for the life of the process, and reads what real servers send as empty.
flare_decomposers.register()


class Engine:
    """The double: a component, a workspace, the clients' names."""

    def __init__(self, job, local, app):
        self._job = job
        self._workspace = SimpleNamespace(
            get_site_config_dir=lambda: str(local),
            get_app_dir=lambda job_id: str(app),
            get_root_dir=lambda: str(local.parent),
        )

    def get_component(self, name):
        return self._job

    def get_workspace(self):
        return self._workspace

    def get_clients(self):
        return [SimpleNamespace(name="site-1")]

    def fire_event(self, event_type, fl_ctx):
        """Logging an error is an event in FLARE."""


def context(engine, me, peer):
    fl_ctx = FLContext()
    fl_ctx.set_prop(ReservedKey.ENGINE, engine, private=True, sticky=False)
    fl_ctx.set_prop(ReservedKey.IDENTITY_NAME, me, private=False, sticky=False)
    fl_ctx.set_prop(FLContextKey.FILTER_DIRECTION, FilterKey.IN, private=True, sticky=False)
    fl_ctx.set_prop(FLContextKey.CURRENT_JOB_ID, "job", private=False, sticky=False)
    other = FLContext()
    other.set_prop(ReservedKey.IDENTITY_NAME, peer, private=False, sticky=False)
    fl_ctx.set_peer_context(other)
    return fl_ctx


def travel(shareable, sender, receiver):
    """Encoded by the sender's filter, written and read by FLARE, decoded by the receiver's."""
    sent = EncodePayload().process(shareable, sender)
    assert is_ok(sent), reason_of(sent)
    payload = nbytes(from_shareable(sent).data)
    got = DecodePayload().process(fobs.loads(fobs.dumps(sent)), receiver)
    assert is_ok(got), reason_of(got)
    return got, payload
