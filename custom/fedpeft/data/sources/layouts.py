"""The layouts that ``fedpeft data prepare`` knows besides plain folders, by the names of their data sets."""

from fedpeft.data.sources.ixi import IXI
from fedpeft.data.sources.kits19 import KITS19
from fedpeft.data.sources.layout import Layout
from fedpeft.data.sources.prostate import PROSTATE

LAYOUTS: dict[str, Layout] = {row.name: row for row in (KITS19, IXI, PROSTATE)}
