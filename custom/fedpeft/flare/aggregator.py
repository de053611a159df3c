"""The server's average: products of low-rank factors re-factored exactly, everything else by weighted mean."""

from dataclasses import dataclass
from typing import Any

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from torch import Tensor

from fedpeft.algebra.average import normalised
from fedpeft.algebra.feedback import averaged
from fedpeft.flare.filters import declared_bytes
from fedpeft.flare.job_run import job_run
from fedpeft.flare.messages import BYTES, META, content, meta_of, round_of, sender, site_report
from fedpeft.models.payload import check, decoded

# The round's record, for whoever writes it down.
RECORD = "fedpeft_record"


@dataclass(frozen=True)
class Contribution:
    """An accepted result: the site's difference to the decoded download, and what it says of its round."""

    difference: dict[str, Tensor]
    report: dict[str, Any]
    encoded_bytes: int


class AdapterAggregator(Aggregator):
    """Averages a round of payloads (FLAP-SAM, section 3 and equation 3).

    A site's result is its difference to tensors as it decoded them; the server knows what these are, and adds the
    difference back to exactly that before any product is formed. What the codec's rounding kept from the sites stays
    in the server's model and adds up with later rounds (``algebra/feedback.py``). Sites are summed in the order of
    their names, so a run can be repeated bit for bit.

    Args:
        min_sites: accepted results that a round needs; with fewer the job stops and says why.
    """

    def __init__(self, min_sites: int = 1) -> None:
        super().__init__()
        self.min_sites = min_sites
        self._accepted: dict[str, Contribution] = {}
        self._refused: dict[str, str] = {}

    def reset(self, fl_ctx: FLContext) -> None:
        """Forget the last round."""
        self._accepted, self._refused = {}, {}

    def refuse(self, site: str, reason: str, fl_ctx: FLContext) -> None:
        """Note that a site's result does not count in this round.

        Args:
            site: its name.
            reason: why, with the site's name in front.
            fl_ctx: FLARE's context.
        """
        self._refused[site] = reason
        self.log_error(fl_ctx, f"result refused: {reason}")

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Take a site's result, or refuse it and go on with the others."""
        site = sender(fl_ctx)
        try:
            contribution = self._contribution(shareable, site, fl_ctx)
        except ValueError as fault:
            self.refuse(site, str(fault), fl_ctx)
            return False
        self._accepted[site] = contribution
        return True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """The average of what the round trained, before the codec rounds it.

        Raises:
            RuntimeError: too few results were accepted; the message holds every reason.
        """
        round_ = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        silent = sorted(self._expected(fl_ctx) - self._accepted.keys() - self._refused.keys())
        if len(self._accepted) < self.min_sites:
            reasons = "; ".join(why for _, why in sorted(self._refused.items()))
            raise RuntimeError(
                f"round {round_}: {len(self._accepted)} accepted results, {self.min_sites} needed. "
                f"Refused: {reasons or 'none'}. No answer in time: {', '.join(silent) or 'none'}"
            )
        run = job_run(fl_ctx).run
        sites = sorted(self._accepted)
        results = [self._accepted[site] for site in sites]
        weights = normalised(
            [item.report["cases"] if run.federation.site_weighting == "cases" else 1 for item in results]
        )
        learnable = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
        exact = {key: learnable[ModelLearnableKey.WEIGHTS][key] for key in results[0].difference}
        differences, base = [item.difference for item in results], decoded(run, exact, round_)
        tensors, reports = averaged(exact, base, differences, weights, run.method.rule_of)
        self._record(fl_ctx, dict(zip(sites, weights, strict=True)), reports, silent)
        outgoing = DXO(DataKind.WEIGHTS, data=tensors)
        outgoing.set_meta_prop(META, learnable[ModelLearnableKey.META][META])
        return outgoing.to_shareable()

    def _contribution(self, shareable: Shareable, site: str, fl_ctx: FLContext) -> Contribution:
        """The checked content of a result.

        Raises:
            ValueError: it is not what this round expects of the site.
        """
        expected = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        if round_of(shareable) != expected:
            raise ValueError(f"{site}: the result is of round {round_of(shareable)}, expected round {expected}")
        if site in self._accepted:
            raise ValueError(f"{site}: a second result for round {expected}; the first one counts")
        dxo, job = content(shareable, (DataKind.WEIGHT_DIFF,)), job_run(fl_ctx)
        check(dxo.data, job.payload(expected), site)
        report = site_report(meta_of(dxo), job.run, site)
        if report["cases"] < 1 or "loss" not in report:
            raise ValueError(f"{site}: its report has {report['cases']} cases, expected at least one, and a loss")
        return Contribution(dxo.data, report, shareable.get_header(BYTES, 0))

    def _expected(self, fl_ctx: FLContext) -> set[str]:
        return {client.name for client in fl_ctx.get_engine().get_clients()}

    def _record(self, fl_ctx: FLContext, weights: dict[str, float], reports: dict[str, Any], silent: list[str]) -> None:
        job = job_run(fl_ctx)
        down = declared_bytes(job.download(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)), job.run.federation.codec)
        sites = {
            site: self._accepted[site].report
            | {"weight": weight, "bytes_up": self._accepted[site].encoded_bytes, "bytes_down": down}
            for site, weight in weights.items()
        }
        record = {"sites": sites, "refused": dict(self._refused), "silent": silent, "averaging": reports}
        fl_ctx.set_prop(RECORD, record, private=True, sticky=False)
