"""What the server does in a round: site weightings, averaging rules, server optimisers, and which go together.

Each is one entry of a registry. ``fedpeft.training.server.weighting`` implements the weightings, ``fedpeft.algebra``
the rules and the optimisers. ``fedpeft strategies`` prints all entries.
"""

from fedpeft.config.strategies.averaging_rules import AVERAGING_RULES, AveragingRule, register_averaging_rules
from fedpeft.config.strategies.server_optimisers import (
    SERVER_OPTIMISERS,
    ServerOptimiser,
    register_server_optimisers,
)
from fedpeft.config.strategies.site_weightings import SITE_WEIGHTINGS, SiteWeighting, register_site_weightings

__all__ = [
    "AVERAGING_RULES",
    "SERVER_OPTIMISERS",
    "SITE_WEIGHTINGS",
    "AveragingRule",
    "ServerOptimiser",
    "SiteWeighting",
    "register_averaging_rules",
    "register_server_optimisers",
    "register_site_weightings",
]
