"""Folds in which no person is on both sides."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from apexflow.catalog import person_of
from apexflow.errors import ApexflowError
from apexflow.storage.labels import ApexPosition

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
    def clip(self) -> str: ...
    @property
    def person(self) -> str: ...
    @property
    def frames(self) -> str: ...
    @property
    def label(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Fold:
    """Positions of the samples to learn from and of those to test on.

    Attributes
    ----------
    name : str
        Who is tested: the person, by default "data set/subject"; the data set; "group-1" and so
        on; or what the user calls it.
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


def group_folds(samples: Sequence[Clip], groups: int) -> list[Fold]:
    """Return one fold a group of people, each group with about as many clips.

    Whoever has most clips is dealt first, to the group with fewest clips so far, so that the
    same samples always give the same groups. Raises `ApexflowError` as `subject_folds` does,
    and where there are fewer people than groups.
    """
    counts = Counter(person(sample) for sample in samples)
    if not 2 <= groups <= len(counts):
        raise ApexflowError(
            f"folds must be 2 to {len(counts)} groups, as there are {len(counts)} people. "
            f"Got {groups}."
        )
    sizes = [0] * groups
    group_of: dict[str, str] = {}
    for who in sorted(counts, key=lambda one: (-counts[one], one)):
        smallest = sizes.index(min(sizes))
        sizes[smallest] += counts[who]
        group_of[who] = f"group-{smallest + 1:0{len(str(groups))}d}"
    return _folds(samples, [group_of[person(sample)] for sample in samples])


class _Splitter(Protocol):
    """What scikit-learn calls a splitter."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterable[tuple[Any, Any]]: ...


# What says how to split: a word or a number as in `TrainConfig.folds`, the path of a CSV file,
# a scikit-learn splitter, the test side of each fold by its name, or pairs (train, test).
By = (
    str
    | int
    | Path
    | _Splitter
    | Mapping[str, Sequence[int]]
    | Iterable[tuple[Sequence[int], Sequence[int]]]
)


def make_folds(samples: Sequence[Clip], by: By = "subject") -> list[Fold]:
    """Return the folds of samples, each with its name; none has a person on both sides.

    Parameters
    ----------
    samples : sequence of SampleInfo
    by : str, int, path, splitter, mapping or sequence
        "subject" (one fold a person), "dataset" (one a data set), a number of groups of people;
        the path of a CSV file with the column ``fold`` and one or more of ``dataset``,
        ``subject``, ``person`` and ``clip``, each row saying in which fold those clips are
        tested (``train``: in none); a scikit-learn splitter, which is given the people as
        ``groups``; the positions to test by the fold's name; or (train, test) positions.

    Raises
    ------
    ApexflowError
        A fold would have a person, or the same frames, on both sides, or an empty side; the
        file cannot be read, or leaves a clip in no fold or in two.
    """
    if by == "subject":
        return subject_folds(samples)
    if by == "dataset":
        return dataset_folds(samples)
    if isinstance(by, int) or (isinstance(by, str) and by.isdecimal()):
        return group_folds(samples, int(by))
    if isinstance(by, str | Path):
        return _folds(samples, _read_groups(Path(by), samples))
    _refuse_shared_frames(samples)
    if isinstance(by, Mapping):
        return [_but(name, test, samples) for name, test in by.items()]
    pairs = list(by) if isinstance(by, Iterable) else _split(by, samples)
    width = len(str(len(pairs)))
    return [
        Fold(f"fold-{i:0{width}d}", _positions(train, samples), _positions(test, samples), samples)
        for i, (train, test) in enumerate(pairs, 1)
    ]


class DatasetFold(NamedTuple):
    """One fold of a data set.

    Attributes
    ----------
    train, test : torch.utils.data.Subset
        Their positions are ``.indices``.
    name : str
    """

    train: Subset[Sample]
    test: Subset[Sample]
    name: str


def folds(dataset: ClipDataset, by: By = "subject") -> Iterator[DatasetFold]:
    """Yield the folds of a data set, for those who write their own training loop.

    ``by`` and what is refused are those of `make_folds`.

    Parameters
    ----------
    dataset : ClipDataset
    by : str, int, path, splitter or sequence
        As in `make_folds`: "subject", "dataset", a number of groups of people, a CSV file, …

    Yields
    ------
    DatasetFold
        Its name, and its ``train`` and ``test`` as subsets of ``dataset``.

    Examples
    --------
    >>> for fold in folds(dataset, 10):  # doctest: +SKIP
    ...     loader = DataLoader(fold.train, batch_size=32, collate_fn=dataset.collate)
    """
    from torch.utils.data import Subset

    for fold in make_folds(dataset.samples, by):
        yield DatasetFold(Subset(dataset, fold.train), Subset(dataset, fold.test), fold.name)


def loso(dataset: ClipDataset) -> Iterator[tuple[Subset[Sample], Subset[Sample]]]:
    """Yield (train, test) for each person, test holding all of the person's clips and no other.

    A person is a (data set, subject) pair, unless data sets show the same people or a table
    names them. Folds come in sorted order.

    Parameters
    ----------
    dataset : ClipDataset

    Yields
    ------
    (train, test) : Subset, Subset

    Raises
    ------
    ApexflowError
        There is one person only, or the same frames stand under two people.
    """
    return ((fold.train, fold.test) for fold in folds(dataset, "subject"))


def subject_kfold(
    dataset: ClipDataset, groups: int
) -> Iterator[tuple[Subset[Sample], Subset[Sample]]]:
    """Yield (train, test) for each of so many groups of people, all of about as many clips.

    Parameters
    ----------
    dataset : ClipDataset
    groups : int
        Of people; as many as there are people at most.

    Yields
    ------
    (train, test) : Subset, Subset
    """
    return ((fold.train, fold.test) for fold in folds(dataset, groups))


def leave_one_dataset_out(
    dataset: ClipDataset,
) -> Iterator[tuple[Subset[Sample], Subset[Sample]]]:
    """Yield (train, test) for each data set, test holding all of its clips and no other.

    Who is tested is not learnt from in another data set either.

    Parameters
    ----------
    dataset : ClipDataset

    Yields
    ------
    (train, test) : Subset, Subset
    """
    return ((fold.train, fold.test) for fold in folds(dataset, "dataset"))


def inner_split(
    samples: Sequence[Clip], train: Sequence[int], *, fraction: float = 0.2, seed: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split training clips by person into (fit, validation).

    All clips of a person move to validation, in an order drawn from ``seed``, until it holds
    ``fraction`` of the clips; a subject who is the last one to show a class, or an action unit,
    stays. First come those who show one that validation lacks.

    Parameters
    ----------
    samples : sequence of Clip
    train : sequence of int
        Positions in ``samples`` of the training clips.
    fraction : float
        Of the training clips that go to validation.
    seed : int

    Returns
    -------
    fit, validation : tuple of int
        Positions in ``samples``.

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
    shown = {who: shown_by(samples[i].label for i in mine) for who, mine in clips.items()}
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


def shown_by(labels: Iterable[Any]) -> set[int]:
    """Return the classes, or the places of the action units, that clips of these labels show."""
    shown: set[int] = set()
    for label in labels:
        if isinstance(label, int):
            shown.add(label)
        elif not isinstance(label, ApexPosition):
            shown.update(i for i, unit in enumerate(label) if unit == 1)
    return shown


def _spared(who: str, waiting: list[str], shown: dict[str, set[int]]) -> bool:
    left = [shown[other] for other in waiting if other != who]
    return bool(left) and shown[who] <= set[int]().union(*left)


_NO_FOLD = "train"
_COLUMNS = ("dataset", "subject", "person", "clip")


def _folds(samples: Sequence[Clip], groups: Sequence[str]) -> list[Fold]:
    """Return a fold for each group that is tested; who is tested is nowhere learnt from."""
    _refuse_shared_frames(samples)
    whose = [person(sample) for sample in samples]
    made = []
    for tested in sorted(set(groups) - {_NO_FOLD}):
        test = tuple(i for i, group in enumerate(groups) if group == tested)
        known = {whose[i] for i in test}
        train = tuple(i for i in range(len(samples)) if whose[i] not in known)
        made.append(Fold(str(tested), train, test, samples))
    return made


def _but(name: str, test: Sequence[int], samples: Sequence[Clip]) -> Fold:
    """Return the fold that tests these clips, and learns from all that show other people."""
    tested = _positions(test, samples)
    known = people(samples, tested)
    train = tuple(i for i in range(len(samples)) if person(samples[i]) not in known)
    return Fold(name, train, tested, samples)


def _split(splitter: Any, samples: Sequence[Clip]) -> list[tuple[Any, Any]]:
    """Return what a scikit-learn splitter makes of the samples, grouped by person."""
    if not hasattr(splitter, "split"):
        raise ApexflowError(
            "folds must be 'subject', 'dataset', a number of groups, a CSV file, a scikit-learn "
            f"splitter, a mapping of names to positions or pairs of positions. Got {splitter!r}."
        )
    # What splitters stratify by; those of several labels have rows of 1 and 0.
    labels = np.array([_stratum(sample.label) for sample in samples])
    groups = np.array([person(sample) for sample in samples])
    try:
        return list(splitter.split(np.zeros((len(samples), 1)), labels, groups))
    except (ValueError, TypeError) as error:
        raise ApexflowError(f"{splitter!r}: {str(error).splitlines()[0]}") from None


def _stratum(label: Any) -> Any:
    if isinstance(label, ApexPosition):
        return label.value
    return label if isinstance(label, int) else [int(unit == 1) for unit in label]


def _positions(indices: Iterable[Any], samples: Sequence[Clip]) -> tuple[int, ...]:
    found = tuple(int(i) for i in indices)
    for i in found:
        if not 0 <= i < len(samples):
            raise ApexflowError(f"folds: a position must be below {len(samples)}. Got {i}.")
    return found


def _read_groups(path: Path, samples: Sequence[Clip]) -> list[str]:
    """Return the fold in which a CSV file has each sample tested."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            columns = [name for name in _COLUMNS if name in (reader.fieldnames or ())]
            rows = list(reader)
    except (OSError, UnicodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ApexflowError(
            f"folds must be 'subject', 'dataset', a number of groups or a CSV file; {path} cannot "
            f"be read ({reason})"
        ) from None
    if not columns or any("fold" not in row for row in rows[:1]):
        raise ApexflowError(f"{path} needs the column fold and one of {', '.join(_COLUMNS)}")
    said: dict[tuple[str, ...], str] = {}
    for line, row in enumerate(rows, 2):
        key = tuple(row[name].strip() for name in columns)
        fold = row["fold"].strip()
        if said.setdefault(key, fold) != fold or not fold:
            raise ApexflowError(
                f"{path}, line {line}: {'/'.join(key)} has "
                + (f"fold {fold}, before it {said[key]}" if fold else "no fold")
            )
    found = [said.get(tuple(_value(sample, name) for name in columns), "") for sample in samples]
    if "" in found:
        first = _name(samples[found.index("")])
        raise ApexflowError(
            f"{path} says of {found.count('')} clips no fold, {first} the first: give them one, or "
            f"the word {_NO_FOLD} where they are only learnt from"
        )
    return found


def _value(sample: Clip, column: str) -> str:
    return person(sample) if column == "person" else str(getattr(sample, column))


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
