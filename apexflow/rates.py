"""How many frames a second a clip was taken at, as its table or its data set says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

# Frames/s, as each data set was published. A longer name goes before its beginning.
RATES: Mapping[str, float] = MappingProxyType(
    {
        "samm": 200,  # Davison et al. 2018, doi:10.1109/TAFFC.2016.2573832
        "casme2": 200,  # Yan et al. 2014, doi:10.1371/journal.pone.0086041
        "smic-vis": 25,  # Li et al. 2013, doi:10.1109/FG.2013.6553717
        "smic-nir": 25,  # the same
        "smic": 100,  # the same, its part HS
        "mmew": 90,  # Ben et al. 2022, doi:10.1109/TPAMI.2021.3067464
        "casme_sq": 30,  # Qu et al. 2018, doi:10.1109/TAFFC.2017.2654440
        "casme3": 30,  # Li et al. 2023, doi:10.1109/TPAMI.2022.3174895
    }
)

COLUMNS = ("fps", "frame rate", "frame_rate", "framerate")
"""Columns of an annotation table that give a clip's own rate, in any case of letters."""


def rate_of_row(extra: Iterable[tuple[str, str]]) -> float | None:
    """Return what a row's further columns say; None where they say nothing."""
    for name, text in extra:
        if name.strip().lower() in COLUMNS and (rate := positive(text)) is not None:
            return rate
    return None


def rate_of_dataset(dataset: str) -> float | None:
    """Return the published rate of a data set or a part of it; None of an unknown one."""
    return next((rate for name, rate in RATES.items() if _belongs(dataset, name)), None)


def positive(value: str | float) -> float | None:
    """Return a finite number above 0; None of anything else."""
    try:
        rate = float(value)
    except ValueError:
        return None
    return rate if math.isfinite(rate) and rate > 0 else None


def _belongs(dataset: str, name: str) -> bool:
    """Whether a data set is that of the name, or a part of it, such as smic-hs-e of smic."""
    return dataset == name or dataset.startswith(f"{name}-")
