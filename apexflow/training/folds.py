"""Folds in which no person is on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from apexflow.catalog import person_of
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from torch.utils.data import Subset

    from apexflow.storage.collate import Sample
    from apexflow.storage.dataset import ClipDataset


class Clip(Protocol):
    """What a fold must know of a sample."""

    @property
    def dataset(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def person(self) -> str: ...
    @property
    def frames(self) -> str: ...
    @property
    def label(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Fold:
    """Positions of the samples to learn from and of those to test on.

    Attributes
    ----------
    name : str
        Who is tested: the person, by default "data set/subject"; or the data set.
    train, test : tuple of int

    A fold with a person on both sides, or with an empty side, cannot be made:
    `ApexflowError`.
    """

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...]
    samples: Sequence[Clip]

    def __post_init__(self) -> None:
        sides = {"training": self.train, "test": self.test}
        for side, indices in sides.items():
            if not indices:
                raise ApexflowError(
                    f"fold {self.name} has no {side} clips: there must be two subjects at least"
                )
        both = people(self.samples, self.train) & people(self.samples, self.test)
        if both:
            raise ApexflowError(f"fold {self.name}: {min(both)} is on both sides")


def person(sample: Clip) -> str:
    """Return who a sample shows: subject 1 of one data set is nobody of another one's."""
    return getattr(sample, "person", "") or person_of(sample.dataset, sample.subject)


def people(samples: Sequence[Clip], indices: Iterable[int]) -> set[str]:
    """Return the people whom samples show."""
    return {person(samples[i]) for i in indices}


def subject_folds(samples: Sequence[Clip]) -> list[Fold]:
    """Return one fold a person, in sorted order; it tests all of the person's clips.

    Raises `ApexflowError` where there is one person only, or two people have the same frames.
    """
    return _folds(samples, [person(sample) for sample in samples])


def dataset_folds(samples: Sequence[Clip]) -> list[Fold]:
    """Return one fold a data set, in sorted order; it tests all of the data set's clips.

    Nobody who is tested is learnt from in another data set. Raises `ApexflowError` as
    `subject_folds` does.
    """
    return _folds(samples, [sample.dataset for sample in samples])


def loso(dataset: ClipDataset) -> Iterator[tuple[Subset[Sample], Subset[Sample]]]:
    """Yield (train, test) for each person, test holding all of the person's clips and no other.

    A person is a (data set, subject) pair, unless data sets show the same people or a table
    names them. Folds come in sorted order. Raises `ApexflowError` where there is one person
    only, or the same frames stand under two people.
    """
    return _subsets(dataset, subject_folds(dataset.samples))


def leave_one_dataset_out(
    dataset: ClipDataset,
) -> Iterator[tuple[Subset[Sample], Subset[Sample]]]:
    """Yield (train, test) for each data set, test holding all of its clips and no other.

    Who is tested is not learnt from in another data set either.
    """
    return _subsets(dataset, dataset_folds(dataset.samples))


def inner_split(
    samples: Sequence[Clip], train: Sequence[int], *, fraction: float = 0.2, seed: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split training clips by person into (fit, validation).

    All clips of a person move to validation, in an order drawn from ``seed``, until it holds
    ``fraction`` of the clips; a subject who is the last one to show a class stays. First
    come those who show a class that validation lacks.

    Raises
    ------
    ApexflowError
        The training clips are of one subject, or no subject can be spared.
    """
    if not 0 < fraction < 1:
        raise ApexflowError(f"fraction must lie between 0 and 1. Got {fraction!r}.")
    clips: dict[str, list[int]] = {}
    for i in train:
        clips.setdefault(person(samples[i]), []).append(i)
    shown = {who: {samples[i].label for i in mine} for who, mine in clips.items()}
    waiting = sorted(clips)
    np.random.default_rng(seed).shuffle(waiting)
    chosen: list[str] = []
    while sum(len(clips[who]) for who in chosen) < fraction * len(train):
        seen = {label for who in chosen for label in shown[who]}
        can_go = [who for who in waiting if _spared(who, waiting, shown)]
        if not can_go:
            break
        # max takes the first of equals: the drawn order decides.
        who = max(can_go, key=lambda one: len(shown[one] - seen))
        waiting.remove(who)
        chosen.append(who)
    if not chosen or not waiting:
        raise ApexflowError(
            "no subject can be spared for inner validation: each shows a class that no other "
            "training subject shows"
        )
    validation = tuple(i for i in train if person(samples[i]) in chosen)
    fit = tuple(i for i in train if person(samples[i]) not in chosen)
    Fold("inner validation", fit, validation, samples)
    return fit, validation


def _spared(who: str, waiting: list[str], shown: dict[str, set[int]]) -> bool:
    left = [shown[other] for other in waiting if other != who]
    return bool(left) and shown[who] <= set().union(*left)


def _folds(samples: Sequence[Clip], groups: Sequence[str]) -> list[Fold]:
    _refuse_shared_frames(samples)
    whose = [person(sample) for sample in samples]
    folds = []
    for tested in sorted(set(groups)):
        test = tuple(i for i, group in enumerate(groups) if group == tested)
        known = {whose[i] for i in test}
        train = tuple(i for i in range(len(samples)) if whose[i] not in known)
        folds.append(Fold(tested, train, test, samples))
    return folds


def _refuse_shared_frames(samples: Sequence[Clip]) -> None:
    """Refuse the same frames under two people: they would be learnt from and tested on."""
    first: dict[str, Clip] = {}
    named = {_name(sample): sample for sample in samples}
    for sample in samples:
        frames = getattr(sample, "frames", "")
        other = first.setdefault(frames, sample) if frames else sample
        if other is sample:
            other = named.get(getattr(sample, "shared", ""), sample)
        if person(other) != person(sample):
            raise ApexflowError(
                f"{_name(other)} and {_name(sample)} have the same frames, under two people "
                f"({person(other)}, {person(sample)}): correct the table, then process again "
                f"with --prune"
            )


def _name(sample: Clip) -> str:
    return f"{sample.dataset}/{sample.subject}/{getattr(sample, 'clip', '')}"


def _subsets(
    dataset: ClipDataset, folds: list[Fold]
) -> Iterator[tuple[Subset[Sample], Subset[Sample]]]:
    from torch.utils.data import Subset

    for fold in folds:
        yield Subset(dataset, fold.train), Subset(dataset, fold.test)
