"""Site weightings: registry entries, which ``fedpeft.training.server.weighting`` implements."""

from dataclasses import dataclass

from fedpeft.common.registry import Registry


@dataclass(frozen=True)
class SiteWeighting:
    """A site weighting's entry.

    Attributes:
        name: what jobs and commands call it.
        note: the weight of a site, for people.
        published: whether the weights are constants of the data set, which a data set must have then.
    """

    name: str
    note: str
    published: bool = False


SITE_WEIGHTINGS: Registry[SiteWeighting] = Registry("site weighting")


def register_site_weightings(*entries: SiteWeighting) -> None:
    """Add site weightings; ValueError if there is one of that name."""
    for entry in entries:
        SITE_WEIGHTINGS.register(entry.name, entry)


register_site_weightings(
    SiteWeighting("cases", "its training cases"),
    SiteWeighting("uniform", "the same for all sites (FLAP-SAM, equation 2)"),
    SiteWeighting("slices", "its training slices"),
    SiteWeighting("published", "the constant that the data set's authors published for it", published=True),
)
