"""The score of spotting: true intervals found, by the rule of the published evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.spotting.intervals import Intervals, IntervalSource, Span, groups, read_intervals

Rule = Literal["megc2020", "one-to-one"]
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Score:
    """What was spotted of what is true.

    Attributes
    ----------
    tp : int
        True positives: true intervals that were spotted.
    n_predicted, n_true : int
    precision, recall, f1 : float
        ``tp / n_predicted``, ``tp / n_true`` and their harmonic mean,
        ``2 tp / (n_predicted + n_true)``; 0 where there is nothing to divide by.
    kinds, videos, datasets : dict of str to Score
        The same of each part; ``kinds`` is empty unless both tables name kinds, ``datasets``
        unless both name data sets.
    analysis_f1 : float or None
        Mean F1 over the emotions (UF1) of the true positives, where both tables name emotions.
    notes : tuple of str
        What was in doubt, one line each.
    left_out : tuple of str
        The rows of both tables that could not be read, or repeat another: the score is without
        them. One line each: file, row, column, value, remedy.
    """

    tp: int
    n_predicted: int
    n_true: int
    precision: float
    recall: float
    f1: float
    kinds: Mapping[str, Score] = field(default_factory=dict, repr=False)
    videos: Mapping[str, Score] = field(default_factory=dict, repr=False)
    datasets: Mapping[str, Score] = field(default_factory=dict, repr=False)
    analysis_f1: float | None = None
    notes: tuple[str, ...] = field(default=(), repr=False)
    left_out: tuple[str, ...] = ()

    @property
    def strs(self) -> float | None:
        """Spot-then-recognise score: F1 of spotting times F1 of analysis; None without."""
        return None if self.analysis_f1 is None else strs(self.f1, self.analysis_f1)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        counts = {name: getattr(self, name) for name in _FIGURES}
        parts = {
            name: {key: part.to_dict() for key, part in getattr(self, name).items()}
            for name in ("kinds", "datasets", "videos")
            if getattr(self, name)
        }
        analysis = {"analysis_f1": self.analysis_f1, "strs": self.strs}
        return {
            **counts,
            **(analysis if self.analysis_f1 is not None else {}),
            **parts,
            **({"notes": list(self.notes)} if self.notes else {}),
            **({"left_out": list(self.left_out)} if self.left_out else {}),
        }


_FIGURES = ("tp", "n_predicted", "n_true", "precision", "recall", "f1")


def strs(spotting_f1: float, analysis_f1: float) -> float:
    """Return the spot-then-recognise score: the product of both F1 [1]_.

    Parameters
    ----------
    spotting_f1, analysis_f1 : float
        0 to 1.

    Returns
    -------
    float

    Raises
    ------
    ApexflowError
        One lies outside of 0 to 1.

    References
    ----------
    .. [1] W.-B. Liong, J. See, C.-S. Chan, "Spot-then-recognize: a micro-expression analysis
       network for seamless evaluation of long videos", Signal Processing: Image Communication
       110, 2023. DOI 10.1016/j.image.2022.116875

    Examples
    --------
    >>> round(strs(0.0278, 0.2222), 4)
    0.0062
    """
    for name, value in (("spotting_f1", spotting_f1), ("analysis_f1", analysis_f1)):
        if not 0 <= value <= 1:
            raise ApexflowError(f"{name} must be from 0 to 1. Got {value}.")
    return spotting_f1 * analysis_f1


def score(
    predicted: IntervalSource,
    truth: IntervalSource,
    *,
    iou: float = 0.5,
    rule: Rule = "megc2020",
) -> Score:
    """Score spotted intervals against the true ones.

    Two intervals of one video overlap by the number of frames that both have over the number
    of frames that either has, both ends included.

    Parameters
    ----------
    predicted, truth : path, table or sequence
        As `read_intervals` takes them: video, onset, offset and as they like kind, dataset,
        emotion. Where both name kinds, intervals of one kind meet alone; where both name data
        sets, those of one data set.
    iou : float
        The least overlap, above 0 and at most 1.
    rule : {"megc2020", "one-to-one"}
        "megc2020": a true interval is found if some predicted one overlaps it enough, whatever
        else that one overlaps: the published evaluation [1]_. "one-to-one": a predicted
        interval finds one true one at most, and as many are paired as can be.

    Returns
    -------
    Score

    Raises
    ------
    ApexflowError
        A table cannot be read, not even one row of it, ``truth`` is empty, or no video is in
        both.

    References
    ----------
    .. [1] Y. He, S.-J. Wang, J. Li, M. H. Yap, "Spotting macro- and micro-expression
       intervals in long video sequences", FG 2020. DOI 10.1109/FG47880.2020.00036

    Examples
    --------
    >>> truth = [("a", 10, 19), ("a", 40, 49)]
    >>> score([("a", 12, 20), ("a", 70, 80), ("a", 90, 99)], truth)
    Score(tp=1, n_predicted=3, n_true=2, precision=0.3333333333333333, recall=0.5, f1=0.4, \
analysis_f1=None, left_out=())
    """
    if not (isinstance(iou, int | float) and 0 < iou <= 1):
        raise ApexflowError(f"iou must be above 0 and at most 1. Got {iou!r}.")
    if rule not in get_args(Rule):
        raise ApexflowError(f"rule must be one of {', '.join(get_args(Rule))}. Got {rule!r}.")
    found = read_intervals(predicted, name="predicted")
    true = read_intervals(truth, name="truth")
    if not true:
        raise ApexflowError("truth has no interval; without any there is nothing to find")
    shared = _Shared.of(found, true)
    found, true = shared.only(found), shared.only(true)
    _refuse_strangers(found, true)
    pairs = _pairs(found, true, iou, rule, kinds=shared.kinds)
    by_key = _counts(found, true, pairs, kinds=shared.kinds)
    kinds = sorted({key[2] for key in by_key}) if shared.kinds else []
    datasets = sorted({key[0] for key in by_key}) if shared.datasets else []
    return replace(
        _score(list(by_key.values())),
        kinds=_parts(by_key, {kind: [k for k in by_key if k[2] == kind] for kind in kinds}),
        videos=_parts(by_key, _by_video(by_key)),
        datasets=_parts(by_key, {d: [k for k in by_key if k[0] == d] for d in datasets}),
        analysis_f1=_analysis_f1(pairs) if shared.emotions else None,
        notes=(*found.notes, *true.notes, *_stranger_notes(found, true)),
        left_out=(*found.left_out, *true.left_out),
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """What both tables say of their intervals."""

    kinds: bool
    datasets: bool
    emotions: bool

    @classmethod
    def of(cls, found: Intervals, true: Intervals) -> _Shared:
        def both(name: str) -> bool:
            # A table without rows contradicts nothing.
            return all(getattr(span, name) for one in (found, true) for span in one)

        return cls(both("kind"), both("dataset"), bool(found) and both("emotion"))

    def only(self, intervals: Intervals) -> Intervals:
        """Return the intervals without what the other table does not say."""
        if self.datasets:
            return intervals
        return replace(intervals, spans=tuple(replace(span, dataset="") for span in intervals))


Counts = tuple[int, int, int]
Pair = tuple[Span, Span]


def _pairs(found: Intervals, true: Intervals, iou: float, rule: Rule, *, kinds: bool) -> list[Pair]:
    """Return each true interval that was found, with what found it: (predicted, true)."""
    predicted = groups(found, kinds=kinds)
    pairs = []
    for key, there in groups(true, kinds=kinds).items():
        here = predicted.get(key, [])
        overlaps = overlap(here, there)
        best = _matching(overlaps >= iou) if rule == "one-to-one" else _best(overlaps, iou)
        pairs += [(here[row], there[column]) for row, column in best]
    return pairs


def overlap(first: Sequence[Span], second: Sequence[Span]) -> NDArray[np.float64]:
    """Return the intersection over union (n, m) of intervals, in frames, both ends included."""
    a = np.array([(span.onset, span.offset) for span in first], np.int64).reshape(-1, 1, 2)
    b = np.array([(span.onset, span.offset) for span in second], np.int64).reshape(1, -1, 2)
    inside = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0]) + 1
    inside = np.maximum(inside, 0)
    either = (a[..., 1] - a[..., 0] + 1) + (b[..., 1] - b[..., 0] + 1) - inside
    return np.asarray(inside / either)


def _best(overlaps: NDArray[np.float64], iou: float) -> list[tuple[int, int]]:
    if not overlaps.size:
        return []
    rows = overlaps.argmax(axis=0)
    columns = np.arange(overlaps.shape[1])
    enough = overlaps[rows, columns] >= iou
    return list(zip(rows[enough].tolist(), columns[enough].tolist(), strict=True))


def _matching(allowed: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return as many pairs (row, column) as can be, each row and column once."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not allowed.any():
        return []
    columns = maximum_bipartite_matching(csr_array(allowed), perm_type="column")
    return [(row, column) for row, column in enumerate(columns.tolist()) if column >= 0]


def _counts(
    found: Intervals, true: Intervals, pairs: Sequence[Pair], *, kinds: bool
) -> dict[Key, Counts]:
    hit, predicted, there = (
        groups(spans, kinds=kinds) for spans in ((pair[1] for pair in pairs), found, true)
    )
    keys = dict.fromkeys((*there, *predicted))
    return {key: tuple(len(g.get(key, ())) for g in (hit, predicted, there)) for key in keys}  # type: ignore[misc]


def _by_video(by_key: Mapping[Key, Counts]) -> dict[str, list[Key]]:
    """Return keys by the video's name, with its data set's where there are several."""
    several = len({key[0] for key in by_key}) > 1
    names: dict[str, list[Key]] = {}
    for key in by_key:
        names.setdefault(f"{key[0]}/{key[1]}" if several else key[1], []).append(key)
    return names


def _parts(by_key: Mapping[Key, Counts], keys: Mapping[str, Sequence[Key]]) -> Mapping[str, Score]:
    return MappingProxyType(
        {name: _score([by_key[key] for key in of_name]) for name, of_name in keys.items()}
    )


def _score(counts: Sequence[Counts]) -> Score:
    tp, predicted, true = (sum(column) for column in zip(*counts, strict=True))
    return Score(
        tp,
        predicted,
        true,
        precision=tp / predicted if predicted else 0.0,
        recall=tp / true if true else 0.0,
        f1=2 * tp / (predicted + true) if predicted + true else 0.0,
    )


def _analysis_f1(pairs: Sequence[Pair]) -> float:
    """Return the mean over emotions of 2 TP / (2 TP + FP + FN), of what was spotted."""
    given = [pair[0].emotion for pair in pairs]
    true = [pair[1].emotion for pair in pairs]
    each = [
        2
        * sum(g == t == emotion for g, t in zip(given, true, strict=True))
        / (given.count(emotion) + true.count(emotion))
        for emotion in {*given, *true}
    ]
    return float(np.mean(each)) if each else 0.0


def _refuse_strangers(found: Intervals, true: Intervals) -> None:
    """Refuse tables that name their videos in two ways: all would be missed."""
    there = {(span.dataset, span.video) for span in true}
    if found and not any((span.dataset, span.video) in there for span in found):
        raise ApexflowError(
            f"no video is in both tables: predicted has {_named(found[0])}, truth "
            f"{_named(true[0])}; both must name videos in the same way"
        )


def _named(span: Span) -> str:
    return repr(f"{span.dataset}/{span.video}" if span.dataset else span.video)


def _stranger_notes(found: Intervals, true: Intervals) -> list[str]:
    there = {(span.dataset, span.video) for span in true}
    strangers = [span for span in found if (span.dataset, span.video) not in there]
    if not strangers:
        return []
    videos = len({(span.dataset, span.video) for span in strangers})
    return [
        f"{len(strangers)} predicted intervals lie in {videos} videos without a true one, such as "
        f"{_named(strangers[0])}: false alarms"
    ]
