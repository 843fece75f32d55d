"""Data sets in, catalogs out: one file a data set, and the table and folder reading they share.

Every reader has one shape, ``read_NAME(root, annotations, *, apex, …) -> Catalog``. A row
whose frames cannot be used stays in the catalog, for the run to report that clip alone; a
table or root that cannot be read raises `ApexflowError`. `READERS` describes them all, for
the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from apexflow.action_units import (
    CD6ME_UNITS,
    ActionUnit,
    ActionUnits,
    ActionUnitTargets,
    action_unit_targets,
    parse_action_units,
)
from apexflow.datasets.casme import CASME, read_casme
from apexflow.datasets.casme2 import CASME2, read_casme2
from apexflow.datasets.casme3 import CASME3, read_casme3
from apexflow.datasets.casme_sq import CASME_SQ, read_casme_sq
from apexflow.datasets.dfme import DFME, read_dfme
from apexflow.datasets.fourdme import FOURDME, read_4dme
from apexflow.datasets.long_videos import (
    CASME_SQ_LONG,
    SAMM_LONG,
    Interval,
    LongVideo,
    read_casme_sq_long,
    read_samm_long,
)
from apexflow.datasets.mmew import MMEW, read_mmew
from apexflow.datasets.reader import Option, Reader
from apexflow.datasets.samm import SAMM, read_samm
from apexflow.datasets.smic import SMIC, read_smic
from apexflow.datasets.table import TABLE, read_table

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        reader.name: reader
        for reader in (
            *(SAMM, CASME, CASME2, SMIC, CASME_SQ, CASME3, MMEW, FOURDME, DFME),
            TABLE,
        )
    }
)
AUDITED: Mapping[str, Reader] = MappingProxyType(
    {**READERS, **{reader.name: reader for reader in (SAMM_LONG, CASME_SQ_LONG)}}
)
"""What can be audited: long videos too, which are spotted in and not processed by clips."""

__all__ = [
    "AUDITED",
    "CD6ME_UNITS",
    "READERS",
    "ActionUnit",
    "ActionUnitTargets",
    "ActionUnits",
    "Interval",
    "LongVideo",
    "Option",
    "Reader",
    "action_unit_targets",
    "parse_action_units",
    "read_4dme",
    "read_casme",
    "read_casme2",
    "read_casme3",
    "read_casme_sq",
    "read_casme_sq_long",
    "read_dfme",
    "read_mmew",
    "read_samm",
    "read_samm_long",
    "read_smic",
    "read_table",
]
