"""The server's computation in a round, the same for federated, local and centralised training.

A round has these steps:

1. Every site receives and decodes the download of the round; the result is ``state.decoded``. It differs from the
   server's own tensors, ``state.exact``, if the codec rounds.
2. A site validates the received model, trains, and sends an update: its trained minus its received tensors.
3. The site's weight is its share of the training cases or slices, the same for all, or a constant (``weighting.py``).
4. The sites' scores decide whether the model that entered the round is the best one so far.
5. Each tensor is averaged by the rule of its method: a weighted mean, or products of factors that are averaged as
   products and factored anew (``algebra/average.py``). The average is formed around ``state.decoded``, to which the
   updates refer; the quantisation error of the download, ``exact - decoded``, is added to it.
6. In federated runs the server optimiser moves ``exact`` along the update, average minus ``exact``, and keeps its
   moments (``algebra/server_step.py``). By default the result is the average itself.
7. The result is the new ``exact``; encoded and decoded, it is the new ``decoded``.
8. The record has each site's report and weight, and for each product how well the average fits.

`ServerRound` is pure: it reads no file and does not use FLARE. Everything that lasts over rounds is in `ServerState`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fedpeft.algebra.feedback import averaged
from fedpeft.algebra.server_optimisers.registry import Rates
from fedpeft.algebra.server_step import moments_at_start, stepped
from fedpeft.algebra.space import Report
from fedpeft.config.run import Run
from fedpeft.config.strategies.combinations import is_average
from fedpeft.models.payload import decoded, download
from fedpeft.training.server.selection import Best, Scores, better, exhausted, scores_of
from fedpeft.training.server.weighting import weights_of

FEDERATED = "federated"
Tensors = dict[str, Tensor]
Record = dict[str, Any]


@dataclass(frozen=True)
class ServerState:
    """Everything that lasts over rounds. The run folder keeps it, so that another job can go on from it.

    Attributes:
        rounds_done: finished rounds.
        exact: path -> the server's own tensor, float32, for everything that the method may train.
        decoded: the same tensors as the sites decode them at the start of the next round.
        best: the best validated model so far; None before the first validation.
        moments: what the server optimiser keeps, float32, see `moments_at_start`; nothing if it is the average.
    """

    rounds_done: int
    exact: Tensors
    decoded: Tensors
    best: Best | None = None
    moments: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class SiteUpdate:
    """An accepted result of a site.

    Attributes:
        tensors: path -> trained minus received tensor, float32, for the payload of the round.
        report: "cases", "slices", "loss", and under the task's name of a class's score ("dice", "recall") class name ->
            validation score of the model that entered the round; other entries are recorded as they are.
    """

    tensors: Tensors
    report: Record


class ServerRound:
    """The server's part of a run, round by round.

    Args:
        run: gives site weighting, averaging rules, server optimiser, codec, rounds and patience.
        setting: "local", "federated" or "centralized". Only a federation has a server optimiser: a site that trains
            alone moves to its own model.
    """

    def __init__(self, run: Run, setting: str = FEDERATED) -> None:
        self.run = run
        self._steps = setting == FEDERATED and not is_average(run.federation)
        self._step = run.method.rule_of, run.federation.server_optimiser, Rates(**run.server_step)

    def begin(self, tensors: Mapping[str, Tensor]) -> ServerState:
        """The state before the first round, with copies of the initial model's trainable ``tensors``."""
        exact = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        moments = moments_at_start(exact, *self._step) if self._steps else {}
        return self._state(0, exact, None, moments)

    def is_over(self, state: ServerState) -> bool:
        """Whether all rounds are done, or the validation scores have stopped improving."""
        done = state.rounds_done
        return done >= self.run.federation.rounds or exhausted(state.best, done - 1, self.run.federation.patience)

    def download(self, state: ServerState) -> Tensors:
        """The tensors that the sites receive for the next round, or for the validation after the last one."""
        return {key: state.decoded[key] for key in download(self.run, state.rounds_done)}

    def __call__(self, state: ServerState, updates: Mapping[str, SiteUpdate]) -> tuple[ServerState, Record]:
        """Compute one round; the module's docstring lists the steps.

        Args:
            state: the state that entered the round.
            updates: site -> its accepted result, at least one. The sum runs over the sites in the order of their names,
                so that a run can be repeated bit for bit.

        Returns:
            The state after the round, and the record of the round: "sites", site -> its report and "weight", and
            "averaging", group of tensors -> how well the average fits; with a server optimiser also "step", group of
            products -> what truncating the server's step lost.

        Raises:
            ValueError: there is no update, a site has no weight, or updates differ in keys or shapes; the message names
                the site or the tensor.
            KeyError: an update has a tensor that the state lacks; ``models.payload.check`` refuses it earlier.
        """
        sites = sorted(updates)
        reports = {site: updates[site].report for site in sites}
        weights = weights_of(self.run, reports)
        best = better(state.best, state.rounds_done, scores_of(self.run, reports))
        tensors = [updates[site].tensors for site in sites]
        average, fits = averaged(state.exact, state.decoded, tensors, weights, self.run.method.rule_of)
        moments, lost = state.moments, dict[str, Report]()
        if self._steps:
            average, moments, lost = stepped(state.exact, average, moments, *self._step)
        after = self._state(state.rounds_done + 1, state.exact | average, best, moments)
        weighted = {site: reports[site] | {"weight": w} for site, w in zip(sites, weights, strict=True)}
        return after, {"sites": weighted, "averaging": fits} | ({"step": lost} if lost else {})

    def validated(self, state: ServerState, scores: Scores) -> ServerState:
        """The state after the validation of the final model, which belongs to no round."""
        return replace(state, best=better(state.best, state.rounds_done, scores))

    def _state(self, rounds_done: int, exact: Tensors, best: Best | None, moments: Tensors) -> ServerState:
        return ServerState(rounds_done, exact, decoded(self.run, exact, rounds_done), best, moments)
