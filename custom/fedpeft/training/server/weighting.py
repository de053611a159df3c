"""The weight of each site in a round: by its report, by the data set's constants, or as set."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fedpeft.algebra.average import normalised
from fedpeft.config.run import Run

Report = Mapping[str, Any]


def _slices(site: str, report: Report) -> float:
    if "slices" not in report:
        raise ValueError(
            f"{site}: its report has no number of slices, which site_weighting slices needs; install the server's "
            "version of fedpeft there, or use --site-weighting cases"
        )
    return report["slices"]


# Weighting by reports (an entry in ``fedpeft.config.strategies``)
# -> function (site, its report) -> number above 0, later normalised over the sites of the round.
REPORTED: dict[str, Callable[[str, Report], float]] = {
    "cases": lambda site, report: report["cases"],
    "uniform": lambda site, report: 1,
    "slices": _slices,
}


def weights_of(run: Run, reports: Mapping[str, Report]) -> list[float]:
    """The weights of the sites of a round, which sum to 1; a site that is alone has weight 1 by any weighting.

    Args:
        run: gives the weighting, or the weights themselves (``Run.site_weights``).
        reports: site -> its report of the round, see `SiteUpdate`.

    Raises:
        ValueError: see ``weight_of``; or there is no site.
    """
    if len(reports) == 1:
        return [1.0]
    return normalised([weight_of(run, site, report) for site, report in reports.items()])


def weight_of(run: Run, site: str, report: Report) -> float:
    """A site's weight before it is normalised, above 0.

    Raises:
        ValueError: the run names weights but none for the site, or the report lacks the number; the message names the
            site and the remedy.
    """
    weights = run.site_weights
    if weights is None:
        return REPORTED[run.federation.site_weighting](site, report)
    check_sites(run, [site])
    return weights[site]


def check_sites(run: Run, sites: Collection[str]) -> None:
    """Check before a round that each of its sites has a weight, if the run names weights.

    Raises:
        ValueError: a site has none; the message names it and the remedies.
    """
    weights = run.site_weights
    if weights is None:
        return
    for site in sorted(sites):
        if site not in weights:
            told, remedy = "set", "name every site in --site-weights, or leave it out"
            if run.federation.site_weights is None:
                told, remedy = (
                    f"published for {run.data.dataset}",
                    "use --site-weighting slices, or give --site-weights",
                )
            raise ValueError(f"{site}: it has no weight; {told} are those of {', '.join(weights)}: {remedy}")
