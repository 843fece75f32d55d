"""Key-frame robustness: the score of trained networks when onset and apex are moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from apexflow.training.scoring.base import DIGITS
from apexflow.training.shifts import size_of
from apexflow.training.tables import Table


@dataclass(frozen=True, slots=True)
class ShiftScore:
    """The scores of all folds' test clips, moved by the same shift.

    Attributes
    ----------
    onset, apex : int
        Frames later than annotated.
    clamped : int
        Clips that the shift would have left, which went as far as they go.
    scores : dict of score to float
        Those that tables print.
    """

    onset: int
    apex: int
    clamped: int
    scores: Mapping[str, float]

    @property
    def size(self) -> int:
        return size_of((self.onset, self.apex))


@dataclass(frozen=True, slots=True)
class Robustness:
    """Scores by how far the key frames were moved.

    Attributes
    ----------
    clips : int
    titles : dict of score to title
    shifts : tuple of ShiftScore
        By |shift|, none first.
    """

    clips: int
    titles: Mapping[str, str]
    shifts: tuple[ShiftScore, ...]

    def table(self) -> Table:
        """Return the mean of each score by |shift|."""
        rows = [
            (
                str(size),
                str(len(found)),
                f"{sum(one.clamped for one in found) / len(found) / self.clips:.0%}",
                *(f"{np.mean([one.scores[name] for one in found]):.4f}" for name in self.titles),
            )
            for size, found in self._groups()
        ]
        return Table(("|shift|", "shifts", "clamped", *self.titles.values()), tuple(rows))

    def rows(self) -> tuple[Sequence[str], Iterator[list[Any]]]:
        """Return the head and the rows of ``jitter.csv``, a row a shift."""
        rows = (
            [
                *(one.size, one.onset, one.apex, self.clips, one.clamped),
                *(round(one.scores[name], DIGITS) for name in self.titles),
            ]
            for one in self.shifts
        )
        return ("size", "onset", "apex", "clips", "clamped", *self.titles), rows

    def values(self) -> dict[str, Any]:
        """Return plain JSON values: of each |shift| mean, lowest and highest of each score."""
        by_size = {
            str(size): {
                "shifts": len(found),
                "clamped": sum(one.clamped for one in found),
                **{name: _spread([one.scores[name] for one in found]) for name in self.titles},
            }
            for size, found in self._groups()
        }
        return {"clips": self.clips, "by_shift": by_size}

    def _groups(self) -> Iterator[tuple[int, list[ShiftScore]]]:
        for size, found in groupby(self.shifts, key=lambda one: one.size):
            yield size, list(found)


def _spread(found: Sequence[float]) -> dict[str, float | None]:
    # JSON knows no NaN.
    figures = {"mean": float(np.mean(found)), "lowest": min(found), "highest": max(found)}
    return {name: None if np.isnan(value) else value for name, value in figures.items()}


def mean_of(runs: Sequence[Robustness]) -> Robustness:
    """Return the mean over seeds, which looked at the same shifts."""
    first = runs[0]
    return Robustness(
        first.clips,
        first.titles,
        tuple(
            ShiftScore(
                *(same[0].onset, same[0].apex, same[0].clamped),
                {name: float(np.mean([one.scores[name] for one in same])) for name in first.titles},
            )
            for same in zip(*(run.shifts for run in runs), strict=True)
        ),
    )
