"""Check the sites' answers to a task one by one: accept each, or refuse it with the reason."""

from abc import ABC, abstractmethod
from typing import Any

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.shareable import Shareable

from fedpeft.flare.filters import declared_bytes
from fedpeft.flare.job_run import JobRun
from fedpeft.flare.messages import BYTES, content, is_ok, meta_of, reason_of, round_of, site_report
from fedpeft.models.payload import check
from fedpeft.training.server.server_round import SiteUpdate
from fedpeft.training.server.weighting import weight_of


class Answers(ABC):
    """The answers to one task of one round.

    Args:
        job: the job's ``run`` component.
        round_: 0-based; answers to another round are refused.

    Attributes:
        accepted: site -> content of its answer.
        refused: site -> why its answer does not count, starting with the site's name.
    """

    def __init__(self, job: JobRun, round_: int) -> None:
        self.job, self.round = job, round_
        self.accepted: dict[str, Any] = {}
        self.refused: dict[str, str] = {}

    def take(self, site: str, answer: Shareable) -> str | None:
        """Accept or refuse a site's answer.

        Returns:
            The reason of a refusal, or None.
        """
        try:
            self.accepted[site] = self._checked(site, answer)
        except ValueError as fault:
            reason, name = str(fault), f"{site}: "
            self.refused[site] = reason if reason.startswith(name) else name + reason
            return self.refused[site]
        return None

    def _checked(self, site: str, answer: Shareable) -> Any:
        """Return the content of an answer.

        Raises:
            ValueError: the answer is a refusal, or not what this round expects of the site.
        """
        if not is_ok(answer):
            raise ValueError(reason_of(answer))
        if round_of(answer) != self.round:
            raise ValueError(f"{site}: the result is of round {round_of(answer)}, expected round {self.round}")
        if site in self.accepted:
            raise ValueError(f"{site}: a second result for round {self.round}; the first one counts")
        return self._content(site, answer)

    @abstractmethod
    def _content(self, site: str, answer: Shareable) -> Any:
        """The content of an answer to this round; ValueError if it is not what the task asks for."""


class Updates(Answers):
    """Answers to the training of a round: site -> `SiteUpdate`."""

    def enough(self, min_sites: int, sites: set[str]) -> tuple[dict[str, SiteUpdate], list[str]]:
        """Return the accepted updates, and the names of the sites that have not answered.

        Args:
            min_sites: number of accepted updates that the round needs.
            sites: names of all sites that take part.

        Raises:
            RuntimeError: fewer updates were accepted; the message has every reason.
        """
        updates = dict(self.accepted)
        silent = sorted(sites - updates.keys() - self.refused.keys())
        if len(updates) < min_sites:
            reasons = "; ".join(why for _, why in sorted(self.refused.items()))
            raise RuntimeError(
                f"round {self.round}: {len(updates)} accepted results, {min_sites} needed. "
                f"Refused: {reasons or 'none'}. No answer in time: {', '.join(silent) or 'none'}"
            )
        return updates, silent

    def _content(self, site: str, answer: Shareable) -> SiteUpdate:
        dxo: DXO = content(answer, (DataKind.WEIGHT_DIFF,))
        check(dxo.data, self.job.payload(self.round), site)
        report = site_report(meta_of(dxo), self.job.run, site)
        if report["cases"] < 1 or "loss" not in report:
            raise ValueError(f"{site}: its report has {report['cases']} cases, expected at least one, and a loss")
        weight_of(self.job.run, site, report)
        down = declared_bytes(self.job.download(self.round), self.job.run.federation.codec)
        return SiteUpdate(dxo.data, report | {"bytes_up": answer.get_header(BYTES, 0), "bytes_down": down})


class Validations(Answers):
    """Answers to the validation of the final model: site -> its report, see ``messages.site_report``."""

    def _content(self, site: str, answer: Shareable) -> dict[str, Any]:
        return site_report(content(answer, (DataKind.METRICS,)).data, self.job.run, site)
