"""Data sets in, catalogs out: one file a data set, and the table and folder reading they share.

Every reader has one shape, ``read_NAME(root, annotations, *, apex, …) -> Catalog``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from apexflow.engine.readers.reader import Option, Reader
from apexflow.engine.readers.samm import SAMM, read_samm
from apexflow.engine.readers.table import TABLE, read_table

READERS: Mapping[str, Reader] = MappingProxyType({r.name: r for r in (SAMM, TABLE)})

__all__ = ["READERS", "Option", "Reader", "read_samm", "read_table"]
