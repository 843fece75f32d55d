"""What came out of a training: predictions, scores with their intervals, tables and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.storage.csv_cells import safe_row
from apexflow.storage.labels import Kind
from apexflow.training.robustness import Robustness, mean_of
from apexflow.training.scoring import Prediction, Scoring, scoring_of
from apexflow.training.scoring.base import DIGITS
from apexflow.training.statistics import DRAWS, LEVEL, Interval, bootstrap
from apexflow.training.tables import Table

__all__ = ["Prediction", "SeedResults", "TrainResult", "read_result", "write_csv"]

_LEAK = "choosing each fold's epoch on the tested clips would have claimed"
# Fewer people, and the interval of the bootstrap is a good deal too narrow (docs/results.md).
_FEW_PEOPLE = 16


class _Scored:
    """Intervals and tables of the same clips' predictions by one training or by several seeds."""

    __slots__ = ()

    @property
    def runs(self) -> tuple[TrainResult, ...]:
        """The training of each seed."""
        raise NotImplementedError

    @property
    def scoring(self) -> Scoring:
        """How predictions of this kind are scored."""
        return self.runs[0].scoring

    def interval(
        self,
        score: str = "",
        *,
        dataset: str | None = None,
        level: float = LEVEL,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> Interval:
        """Return a score and its bootstrap interval over people.

        Parameters
        ----------
        score : str
            Of classes "uf1" (the default), "uar", "accuracy", weighted "precision" and "f1"; of
            action units "uf1", "precision", "recall"; or of one class or unit "recall/surprise",
            "precision/surprise", "f1/AU4". Of the apex "mae_frames", "mae_ms", "mae", "within".
        dataset : str, optional
            Of the clips of this data set alone.
        level : float
        draws, seed : int
            Of the bootstrap.

        Raises
        ------
        ApexflowError
            There is no such score or data set, or the level does not lie between 0 and 1.
        """
        if not 0 < level < 1:
            raise ApexflowError(f"level must lie between 0 and 1. Got {level!r}.")
        found = self.intervals(dataset=dataset, level=level, draws=draws, seed=seed)
        score = score or next(iter(found))
        if score not in found:
            raise ApexflowError(f"score must be one of {', '.join(found)}. Got {score!r}.")
        return found[score]

    def intervals(
        self,
        *,
        dataset: str | None = None,
        level: float = LEVEL,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> dict[str, Interval]:
        """Return every score with its interval, by the names that `interval` takes."""
        counts = person_counts(self.runs, dataset)
        found = bootstrap(counts, self.scoring.measure, level=level, draws=draws, seed=seed)
        return self.scoring.named(found)

    def table(self) -> str:
        """Return all scores with their 95 % intervals, as text."""
        of_classes = self.scoring.class_table(self.intervals(), self.runs[0].predictions)
        more = [] if of_classes is None else ["", of_classes.to_text()]
        lines = [self._title(), self._score_table().to_text(), *more, *self._notes()]
        return "\n".join([*lines, *self._robustness_lines()])

    def write_robustness(self, folder: Path) -> None:
        """Write jitter.csv, a row a shift, and jitter.json, by |shift|; nothing without a test."""
        found = self._mean_robustness()
        if found is not None:
            write_csv(folder / "jitter.csv", *found.rows())
            _write_json(folder / "jitter.json", found.values())

    def _mean_robustness(self) -> Robustness | None:
        found = [run.robustness for run in self.runs if run.robustness is not None]
        return mean_of(found) if found else None

    def _robustness_lines(self) -> Iterator[str]:
        found = self._mean_robustness()
        if found is not None:
            yield ""
            yield "means over shifts of onset and apex; |shift| is the larger of the two, in frames"
            yield found.table().to_text()

    def to_markdown(self) -> str:
        """Return the scores with their intervals as a table in Markdown."""
        return self._score_table().to_markdown()

    def to_latex(self) -> str:
        """Return the scores with their intervals as a LaTeX table, for the package booktabs."""
        return self._score_table().to_latex()

    def _title(self) -> str:
        first = self.runs[0]
        return f"{first.model}, {first.protocol}, {', '.join(first.classes)}"

    def _score_table(self) -> Table:
        raise NotImplementedError

    def _notes(self) -> Iterator[str]:
        people = len(self.runs[0].people)
        yield f"[ ]: 95 % of {DRAWS:,} bootstrap draws of the people"
        if people < _FEW_PEOPLE:
            yield f"with {people} people such intervals are too narrow"
        yield from self.scoring.notes(self.runs[0].predictions)
        for run in self.runs:
            if run.leaked:
                found = run.as_leak().intervals()
                claims = ", ".join(
                    f"{title} {found[name]}" for name, title in self.scoring.headline.items()
                )
                yield f"LEAK, not a result: {_LEAK} {claims} (seed {run.seed})"

    def _write_tables_and_figure(self, folder: Path) -> None:
        table = self._score_table()
        for name, text in (("table.md", table.to_markdown()), ("table.tex", table.to_latex())):
            (folder / name).write_text(text + "\n", encoding="utf-8")
        found = self.intervals()
        titles = self.scoring.headline.items()
        shown = "\n".join(f"{title} {found[name]}" for name, title in titles)
        runs = [run.predictions for run in self.runs]
        self.scoring.draw(folder, runs, f"{self.runs[0].model}\n{shown}")

    def _cells(self, dataset: str | None = None) -> list[str]:
        """Return clips, people and the scores of a row."""
        first, found = self.runs[0], self.intervals(dataset=dataset)
        mine = [one for one in first.predictions if dataset in (None, one.dataset)]
        counts = [str(len(mine)), str(len({one.who for one in mine}))]
        return [*counts, *(str(found[name]) for name in self.scoring.headline)]


@dataclass(frozen=True, slots=True)
class TrainResult(_Scored):
    """The pooled predictions of all folds, and their scores.

    Attributes
    ----------
    model, protocol : str
    classes : tuple of str
    predictions : tuple of Prediction
        One a clip, in the order of the store.
    epochs : dict of fold to int
        The epoch whose network was tested.
    seed : int
    leaked : tuple
        What choosing each fold's epoch on the tested clips would have predicted, clip by clip:
        a leak, and no result. Empty where it was not asked for.
    kind : "class", "units" or "apex"
        What a label is.
    robustness : Robustness or None
        The scores with onset and apex moved, where they were asked for (``jitter_test``).
    """

    model: str
    protocol: str
    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    epochs: dict[str, int]
    seed: int = 0
    leaked: tuple[Any, ...] = ()
    kind: Kind = "class"
    robustness: Robustness | None = None

    @property
    def scoring(self) -> Scoring:
        return scoring_of(self.kind, self.classes)

    @property
    def runs(self) -> tuple[TrainResult, ...]:
        return (self,)

    @property
    def leak(self) -> Any:
        """What choosing the epochs on the tested clips would have claimed; no result."""
        return self.as_leak().scores if self.leaked else None

    def as_leak(self) -> TrainResult:
        """Return what the leak would have claimed as if it were a result, which it is not."""
        pairs = zip(self.predictions, self.leaked, strict=True)
        claimed = tuple(replace(one, predicted=said, probabilities=()) for one, said in pairs)
        return replace(self, predictions=claimed, epochs={}, leaked=())

    @property
    def scores(self) -> Any:
        """Scores of all clips together: `Scores`, `UnitScores` or `ApexScores`."""
        return self.scoring.score(self.predictions)

    @property
    def by_dataset(self) -> dict[str, Any]:
        """Scores of each data set's clips."""
        return self._scores_by([one.dataset for one in self.predictions])

    @property
    def by_person(self) -> dict[str, Any]:
        """Scores of each person's clips."""
        return self._scores_by([one.who for one in self.predictions])

    def _scores_by(self, groups: Sequence[str]) -> dict[str, Any]:
        mine: dict[str, list[Prediction]] = {name: [] for name in sorted(set(groups))}
        for name, one in zip(groups, self.predictions, strict=True):
            mine[name].append(one)
        return {name: self.scoring.score(ones) for name, ones in mine.items()}

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody who is tested, in sorted order."""
        return tuple(sorted({one.who for one in self.predictions}))

    def write(self, folder: Path) -> None:
        """Write the predictions, the scores and the tables into a folder.

        predictions.csv, subjects.csv, classes.csv where there are classes or units, summary.csv,
        summary.json, table.md, table.tex, and as PNG, PDF and SVG the confusion matrix, the F1 of
        the units or the positions.
        """
        write_csv(folder / "predictions.csv", *self.scoring.rows(self.predictions))
        head = ("dataset", "subject", "person", "clips", *self.scoring.columns)
        write_csv(folder / "subjects.csv", head, self._subject_rows())
        groups: dict[str, str | None] = {"all": None, **{name: name for name in self.by_dataset}}
        found = {group: self.intervals(dataset=name) for group, name in groups.items()}
        write_csv(folder / "summary.csv", *self._summary_rows(found))
        if self.scoring.of_class:
            write_csv(folder / "classes.csv", *self._class_rows(found))
        by_group = {"all": self.scores, **self.by_dataset}
        summary = {
            "model": self.model,
            "protocol": self.protocol,
            "kind": self.kind,
            "seed": self.seed,
            "classes": list(self.classes),
            "groups": {
                name: {**self.scoring.values(by_group[name]), "intervals": _interval_values(one)}
                for name, one in found.items()
            },
            "leak": None if self.leak is None else self.scoring.values(self.leak),
            "epochs": self.epochs,
        }
        _write_json(folder / "summary.json", summary)
        self._write_tables_and_figure(folder)

    def _score_table(self) -> Table:
        rows = [("Full", *self._cells())]
        names = list(self.by_dataset)
        if len(names) > 1:
            rows += [(name, *self._cells(name)) for name in names]
        return Table(("", "clips", "people", *self.scoring.headline.values()), tuple(rows))

    def _subject_rows(self) -> Iterator[list[Any]]:
        """Yield a row a person: the data sets and subjects that are this person, and the scores."""
        names: dict[str, set[tuple[str, str]]] = {}
        for one in self.predictions:
            names.setdefault(one.who, set()).add((one.dataset, one.subject))
        for who, found in self.by_person.items():
            parts = zip(*sorted(names[who]), strict=True)
            datasets, subjects = (" ".join(dict.fromkeys(part)) for part in parts)
            values = (_rounded(getattr(found, name)) for name in self.scoring.columns)
            yield [datasets, subjects, who, found.clips, *values]

    def _summary_rows(
        self, found: dict[str, dict[str, Interval]]
    ) -> tuple[Sequence[str], Iterator[list[Any]]]:
        head = ["model", "protocol", "group", "clips", "people"]
        for column in self.scoring.columns.values():
            head += _interval_head(column)
        rows = (
            [
                *(self.model, self.protocol, group, *self._size(group)),
                *_numbers(one[name] for name in self.scoring.columns),
            ]
            for group, one in found.items()
        )
        return head, rows

    def _class_rows(
        self, found: dict[str, dict[str, Interval]]
    ) -> tuple[Sequence[str], Iterator[list[Any]]]:
        head = ["model", "protocol", "group", "class", "clips"]
        for name in self.scoring.of_class:
            head += _interval_head(name)
        rows = (
            [
                *(self.model, self.protocol, group, label, clips),
                *_numbers(one[f"{name}/{label}"] for name in self.scoring.of_class),
            ]
            for group, one in found.items()
            for label, clips in zip(
                self.classes, self.scoring.shown(self._of_group(group)), strict=True
            )
        )
        return head, rows

    def _size(self, group: str) -> tuple[int, int]:
        mine = self._of_group(group)
        return len(mine), len({one.who for one in mine})

    def _of_group(self, group: str) -> list[Prediction]:
        return [one for one in self.predictions if group in ("all", one.dataset)]


@dataclass(frozen=True, slots=True)
class SeedResults(_Scored):
    """The same training with several seeds.

    Intervals are those of the mean over the seeds, with other people; the deviation is that of
    the seeds, with the same people.

    Attributes
    ----------
    results : tuple of TrainResult
        One a seed.
    """

    results: tuple[TrainResult, ...]

    @property
    def runs(self) -> tuple[TrainResult, ...]:
        return self.results

    @property
    def classes(self) -> tuple[str, ...]:
        return self.results[0].classes

    @property
    def scores(self) -> Any:
        """The mean of each score over the seeds; counts, such as the confusion, are the sum."""
        found = [one.scores for one in self.results]
        means: dict[str, Any] = {}
        for one in fields(found[0]):
            values = [getattr(scores, one.name) for scores in found]
            if isinstance(values[0], np.ndarray):
                means[one.name] = np.sum(values, axis=0)
            elif isinstance(values[0], dict):
                means[one.name] = {
                    name: float(np.mean([value[name] for value in values])) for name in values[0]
                }
            elif one.name != "clips":
                means[one.name] = float(np.mean(values))
        return replace(found[0], **means)

    @property
    def deviation(self) -> dict[str, float]:
        """The standard deviation over the seeds of the scores that tables print."""
        found = [one.scores for one in self.results]
        return {
            name: float(np.std([getattr(s, name) for s in found], ddof=1))
            for name in self.scoring.headline
        }

    def write(self, folder: Path) -> None:
        """Write summary.json, table.md, table.tex and the confusion of all seeds together."""
        summary = {
            **{f"seed-{one.seed}": self.scoring.values(one.scores) for one in self.results},
            "mean": self.scoring.values(self.scores),
            "deviation": self.deviation,
            "intervals": _interval_values(self.intervals()),
        }
        _write_json(folder / "summary.json", summary)
        self._write_tables_and_figure(folder)

    def _score_table(self) -> Table:
        rows = [(f"seed {one.seed}", *one._cells()) for one in self.results]
        spread = (f"{value:.4f}" for value in self.deviation.values())
        rows += [("mean", *self._cells()), ("deviation", "", "", *spread)]
        return Table(("", "clips", "people", *self.scoring.headline.values()), tuple(rows))


def person_counts(runs: Sequence[TrainResult], dataset: str | None = None) -> NDArray[Any]:
    """Return what the scores of each run's and person's clips are counted from: (run, person, …).

    Raises `ApexflowError` when a run has no clip of the data set.
    """
    return np.stack([_person_counts(run, dataset) for run in runs])


def _person_counts(run: TrainResult, dataset: str | None) -> NDArray[Any]:
    mine: dict[str, list[Prediction]] = {}
    for one in run.predictions:
        if dataset in (None, one.dataset):
            mine.setdefault(one.who, []).append(one)
    if not mine:
        there = ", ".join(sorted({one.dataset for one in run.predictions}))
        raise ApexflowError(f"dataset must be one of {there}. Got {dataset!r}.")
    return np.stack([run.scoring.counts(mine[who]) for who in sorted(mine)])


def read_result(folder: str | Path) -> TrainResult | SeedResults:
    """Read what a finished training wrote, of one seed or of several.

    Raises
    ------
    ApexflowError
        There is no finished training in the folder, or a file of it is damaged.
    """
    folder = Path(folder)
    seeds = sorted(folder.glob("seed-*/config.json"), key=lambda path: _seed(path.parent))
    if seeds and not (folder / "predictions.csv").is_file():
        return SeedResults(tuple(_read_one(path.parent) for path in seeds))
    return _read_one(folder)


def _seed(folder: Path) -> int:
    number = folder.name.removeprefix("seed-")
    return int(number) if number.removeprefix("-").isdigit() else 0


def _read_one(folder: Path) -> TrainResult:
    summary, table = folder / "summary.json", folder / "predictions.csv"
    for path in (summary, table):
        if not path.is_file():
            raise ApexflowError(
                f"{folder} holds no finished training: there is no {path.name}; `apexflow train` "
                "writes it when all folds are done"
            )
    path = summary
    try:
        values = json.loads(summary.read_text(encoding="utf-8"))
        classes = tuple(map(str, values["classes"]))
        model, protocol = str(values["model"]), str(values["protocol"])
        epochs, seed = dict(values["epochs"]), int(values.get("seed", 0))
        kind: Kind = values.get("kind", "class")
        scoring = scoring_of(kind, classes)
        path = table
        with table.open(newline="", encoding="utf-8") as file:
            predictions = tuple(scoring.parse(row) for row in csv.DictReader(file))
        if not predictions:
            raise ValueError("it has no row")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ApexflowError(
            f"{path} is damaged ({reason}); the command that trained it writes it again"
        ) from None
    return TrainResult(
        model=model,
        protocol=protocol,
        classes=classes,
        predictions=predictions,
        epochs=epochs,
        seed=seed,
        kind=kind,
    )


def _interval_values(found: dict[str, Interval]) -> dict[str, list[float | None]]:
    # JSON knows no NaN.
    return {
        name: [None if np.isnan(end) else end for end in (one.low, one.high)]
        for name, one in found.items()
    }


def _interval_head(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _numbers(found: Iterable[Interval]) -> list[Any]:
    ends = (end for one in found for end in (one.value, one.low, one.high))
    return [_rounded(end) for end in ends]


def _rounded(value: float) -> float | str:
    return "" if np.isnan(value) else round(value, DIGITS)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table that a spreadsheet shows and does not execute."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(safe_row(head))
        writer.writerows(map(safe_row, rows))
