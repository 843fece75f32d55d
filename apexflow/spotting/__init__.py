"""Spotting: the intervals of long videos in which somebody's face shows an expression."""

from __future__ import annotations

from apexflow.spotting.intervals import Intervals, Span, read_intervals
from apexflow.spotting.scoring import Score, score, strs

__all__ = ["Intervals", "Score", "Span", "read_intervals", "score", "strs"]
