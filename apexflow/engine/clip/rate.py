"""How many frames a second a clip was taken at."""

from __future__ import annotations

import cv2

from apexflow.catalog import Clip
from apexflow.datasets.sources import FrameSource, VideoFrames
from apexflow.rates import positive, rate_of_dataset, rate_of_row


def frame_rate(clip: Clip, source: FrameSource) -> float | None:
    """Return the frames a second of a clip; None where nobody says.

    What its own row says goes before what its video says, and that before its data set.
    """
    rate = rate_of_row(clip.extra)
    if rate is not None:
        return rate
    if isinstance(source, VideoFrames):
        capture = cv2.VideoCapture(str(source.path))
        rate = positive(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        return rate
    return rate_of_dataset(clip.dataset)
