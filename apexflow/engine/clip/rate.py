"""How many frames a second a clip was taken at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import cv2

from apexflow.catalog import Clip
from apexflow.datasets.sources import FrameSource, VideoFrames

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


def frame_rate(clip: Clip, source: FrameSource) -> float | None:
    """Return the frames a second of a clip; None where nobody says.

    What its own row says goes before what its video says, and that before its data set.
    """
    for name, text in clip.extra:
        if name.strip().lower() in COLUMNS and (rate := _positive(text)) is not None:
            return rate
    if isinstance(source, VideoFrames):
        capture = cv2.VideoCapture(str(source.path))
        rate = _positive(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        return rate
    return next((rate for name, rate in RATES.items() if _belongs(clip.dataset, name)), None)


def _belongs(dataset: str, name: str) -> bool:
    """Whether a data set is that of the name, or a part of it, such as smic-hs-e of smic."""
    return dataset == name or dataset.startswith(f"{name}-")


def _positive(value: str | float) -> float | None:
    try:
        rate = float(value)
    except ValueError:
        return None
    return rate if math.isfinite(rate) and rate > 0 else None
