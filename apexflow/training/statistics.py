"""How sure a score is, and whether two runs differ: resampling people, not clips.

The clips of one person resemble each other, so that the person is what is drawn, exchanged and
counted [1]_ [2]_. Everything here works on counts: for each seed and person the confusion of
their clips, which a function turns into scores.

References
----------
.. [1] B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall, 1993,
   doi:10.1007/978-1-4899-4541-9: percentile intervals.
.. [2] E. W. Noreen, "Computer-Intensive Methods for Testing Hypotheses", Wiley, 1989:
   approximate randomisation of paired results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Counts (..., *shape of one confusion) to each score: (...) or (..., class).
Measure = Callable[[NDArray[Any]], dict[str, NDArray[np.float64]]]

LEVEL = 0.95
DRAWS = 10_000
# Up to here every exchange of people is looked at: 2 ** 13 = 8192 of them.
_ALL_EXCHANGES = 13
_AT_A_TIME = 2_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A score, and between what it would lie with other people of the same kind.

    Attributes
    ----------
    value : float
    low, high : float
        NaN where nothing could be resampled: one person alone.
    level : float
    """

    value: float
    low: float
    high: float
    level: float = LEVEL

    def text(self, digits: int = 4, *, sign: bool = False) -> str:
        """Return "0.7116 [0.6453, 0.7692]"."""
        plus = "+" if sign else ""
        if math.isnan(self.value):
            return "-"
        value = f"{self.value:{plus}.{digits}f}"
        if math.isnan(self.low):
            return value
        return f"{value} [{self.low:{plus}.{digits}f}, {self.high:{plus}.{digits}f}]"

    def __str__(self) -> str:
        return self.text()


def bootstrap(
    counts: NDArray[Any],
    measure: Measure,
    *,
    other: NDArray[Any] | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the percentile interval of each score over people drawn with replacement.

    Parameters
    ----------
    counts : (seed, person, *shape)
        The confusion of each person's clips. A score is the mean over the seeds.
    measure : callable
    other : (seed, person, *shape), optional
        Another run of the same people: the intervals are those of the difference, ``counts``
        minus ``other``, the same people drawn for both.
    level : float
    draws, seed : int

    Returns
    -------
    dict of name to Interval, or to a list of Interval where there is one a class
    """
    people = counts.shape[1]
    value = _difference(counts.sum(1), None if other is None else other.sum(1), measure)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in value}
    for start in range(0, draws if people > 1 else 0, _AT_A_TIME):
        size = min(_AT_A_TIME, draws - start)
        times = rng.multinomial(people, np.full(people, 1 / people), size=size)
        theirs = None if other is None else _weighed(times, other)
        found = _difference(_weighed(times, counts), theirs, measure)
        for name, values in found.items():
            drawn[name].append(values)
    tail = 50 * (1 - level)
    result: dict[str, Any] = {}
    for name, centre in value.items():
        ends = np.full((2, *centre.shape), np.nan)
        if drawn[name]:
            ends = _percentiles(np.concatenate(drawn[name]), (tail, 100 - tail))
        flat = zip(centre.ravel(), ends[0].ravel(), ends[1].ravel(), strict=True)
        intervals = [Interval(float(v), float(low), float(high), level) for v, low, high in flat]
        result[name] = intervals if centre.ndim else intervals[0]
    return result


def permutation(
    counts: NDArray[Any],
    other: NDArray[Any],
    measure: Measure,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Return the two-sided p of each score's difference between two runs of the same people.

    If the runs were alike, each person's results could as well be the other run's: the p is
    the share of exchanges, people by people, that give as large a difference. All exchanges are
    looked at for up to 13 people, ``draws`` - 1 of them and the observed one beyond.

    Parameters
    ----------
    counts, other : (seed, person, *shape)
        As many seeds in both, which are exchanged together.
    measure : callable
    draws, seed : int
    """
    both = counts + other
    observed = {n: np.abs(v) for n, v in _difference(counts.sum(1), other.sum(1), measure).items()}
    reached = {name: np.zeros(value.shape) for name, value in observed.items()}
    looked = 0
    for exchanged in _exchanges(counts.shape[1], draws, seed):
        ours = _weighed(1 - exchanged, counts) + _weighed(exchanged, other)
        found = _difference(ours, both.sum(1)[:, None] - ours, measure)
        looked += len(exchanged)
        for name, values in found.items():
            # What differs by rounding alone is as large.
            reached[name] += (np.abs(values) >= observed[name] - 1e-12).sum(0)
    return {
        name: np.where(np.isnan(observed[name]), np.nan, count / looked)
        for name, count in reached.items()
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (doi:10.1007/BF02295996).

    ``only_first`` clips are right in the first run alone, ``only_second`` in the second alone.
    It takes clips for independent of each other, which those of one person are not: `permutation`
    does without that.
    """
    different = only_first + only_second
    if not different:
        return 1.0
    smaller = min(only_first, only_second)
    tail = sum(math.comb(different, k) for k in range(smaller + 1))
    return min(1.0, 2 * tail / 2**different)


def _exchanges(people: int, draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield (n, person) of 0 and 1, where 1 exchanges a person's results."""
    if people <= _ALL_EXCHANGES:
        yield (np.arange(2**people)[:, None] >> np.arange(people)) & 1
        return
    rng = np.random.default_rng(seed)
    yield np.zeros((1, people), np.int64)
    for start in range(0, draws - 1, _AT_A_TIME):
        yield rng.integers(0, 2, (min(_AT_A_TIME, draws - 1 - start), people))


def _weighed(times: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the counts of people taken so many times: (seed, draw, *shape)."""
    flat = counts.reshape(*counts.shape[:2], -1).astype(np.float64)
    return (times.astype(np.float64) @ flat).reshape(-1, len(times), *counts.shape[2:])


def _difference(
    ours: NDArray[Any], theirs: NDArray[Any] | None, measure: Measure
) -> dict[str, NDArray[np.float64]]:
    """Return the mean over seeds of each score, less the other run's."""
    found = {name: values.mean(0) for name, values in measure(ours).items()}
    if theirs is None:
        return found
    return {name: found[name] - values.mean(0) for name, values in measure(theirs).items()}


def _percentiles(values: NDArray[np.float64], at: tuple[float, float]) -> NDArray[np.float64]:
    """Return (2, ...), over the draws in which the score is defined; NaN where it never is."""
    flat = values.reshape(len(values), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    for i, column in enumerate(flat.T):
        known = column[~np.isnan(column)]
        if len(known):
            ends[:, i] = np.percentile(known, at)
    return ends.reshape(2, *values.shape[1:])
