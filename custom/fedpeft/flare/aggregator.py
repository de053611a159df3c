"""The server's round as a FLARE aggregator: it collects the sites' updates, and lets ``ServerRound`` compute."""

from typing import Any

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator

from fedpeft.flare.answers import Updates
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import sender
from fedpeft.training.server.server_round import ServerRound, ServerState


class AdapterAggregator(Aggregator):
    """Averages a round of adapters (FLAP-SAM, section 3 and equation 3); see ``training/server/server_round.py``.

    The controller calls ``begin``, ``take`` for each answer, and ``aggregate``.

    Args:
        min_sites: accepted results that a round needs; with fewer the job stops and says why.

    Attributes:
        after: the state after the last aggregated round.
        record: the record of that round, for rounds.jsonl.
    """

    def __init__(self, min_sites: int = 1) -> None:
        super().__init__()
        self._min_sites = min_sites
        # Made by ``begin``.
        self._server: ServerRound
        self._before: ServerState
        self._answers: Updates
        self.after: ServerState
        self.record: dict[str, Any] = {}

    def begin(self, server: ServerRound, before: ServerState, job: JobRun) -> None:
        """Begin a round.

        Args:
            server: computes the round.
            before: the state that enters it.
            job: says what the round's updates must be.
        """
        self._server, self._before, self._answers = server, before, Updates(job, before.rounds_done)

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget the answers of the round."""
        self._answers = Updates(self._answers.job, self._answers.round)

    def take(self, site: str, answer: Shareable, fl_ctx: FLContext) -> bool:
        """Take a site's answer, or refuse it with a reason that is logged and recorded; returns whether it counts."""
        refused = self._answers.take(site, answer)
        if refused:
            self.log_error(fl_ctx, f"result refused: {refused}")
        return refused is None

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """``take`` for FLARE's own workflows, in which the context names the site."""
        return self.take(sender(fl_ctx), shareable, fl_ctx)

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """Compute the round: afterwards ``after`` and ``record`` are those of this round.

        Returns:
            The server's own tensors after the round.

        Raises:
            RuntimeError: too few results were accepted; the message holds every reason.
        """
        sites = {client.name for client in fl_ctx.get_engine().get_clients()}
        updates, silent = self._answers.enough(self._min_sites, sites)
        self.after, record = self._server(self._before, updates)
        self.record = record | {"refused": dict(self._answers.refused), "silent": silent}
        return DXO(DataKind.WEIGHTS, data=self.after.exact).to_shareable()
