"""What came out of a training: predictions, scores with their intervals, tables and files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import person_of
from apexflow.errors import ApexflowError
from apexflow.storage.csv_cells import safe_row
from apexflow.training.figures import draw_confusion
from apexflow.training.metrics import Scores, class_measures, confusion_matrix, scores, scores_by
from apexflow.training.statistics import DRAWS, LEVEL, Interval, bootstrap
from apexflow.training.tables import Table

_HEADLINE = {"uf1": "UF1", "uar": "UAR", "accuracy": "accuracy"}
_WEIGHTED = ("precision", "f1")
_OF_CLASS = ("recall", "precision", "f1")
_LEAK = "choosing each fold's epoch on the tested clips would have claimed"
_DIGITS = 6
# Fewer people, and the interval of the bootstrap is a good deal too narrow (docs/results.md).
_FEW_PEOPLE = 16


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network that never saw the person said of one clip."""

    dataset: str
    subject: str
    clip: str
    fold: str
    label: int
    predicted: int
    probabilities: tuple[float, ...]
    person: str = ""

    @property
    def who(self) -> str:
        """The person whose clip it is; the same in several data sets where that is known."""
        return self.person or person_of(self.dataset, self.subject)

    @property
    def key(self) -> tuple[str, str, str]:
        """(data set, subject, clip)."""
        return self.dataset, self.subject, self.clip


class _Scored:
    """Intervals and tables of the same clips' predictions by one training or by several seeds."""

    __slots__ = ()

    @property
    def runs(self) -> tuple[TrainResult, ...]:
        """The training of each seed."""
        raise NotImplementedError

    def interval(
        self,
        score: str = "uf1",
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
            "uf1", "uar", "accuracy"; weighted "precision" and "f1"; or of one class
            "recall/surprise", "precision/surprise", "f1/surprise".
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
        found = bootstrap(counts, class_measures, level=level, draws=draws, seed=seed)
        named = {name: found[name] for name in (*_HEADLINE, *_WEIGHTED)}
        for name in _OF_CLASS:
            each = zip(self.runs[0].classes, found[f"class_{name}"], strict=True)
            named.update({f"{name}/{label}": interval for label, interval in each})
        return named

    def table(self) -> str:
        """Return all scores with their 95 % intervals, as text."""
        return "\n".join(
            [
                self._title(),
                self._score_table().to_text(),
                "",
                self._class_table().to_text(),
                *self._notes(),
            ]
        )

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

    def _class_table(self) -> Table:
        found, counts = self.intervals(), self.runs[0].scores.confusion.sum(1)
        rows = (
            (label, str(count), *(str(found[f"{name}/{label}"]) for name in _OF_CLASS))
            for label, count in zip(self.runs[0].classes, counts, strict=True)
        )
        return Table(("class", "clips", "recall", "precision", "F1"), tuple(rows))

    def _notes(self) -> Iterator[str]:
        people = len(self.runs[0].people)
        yield f"[ ]: 95 % of {DRAWS:,} bootstrap draws of the people"
        if people < _FEW_PEOPLE:
            yield f"with {people} people such intervals are too narrow"
        for run in self.runs:
            if run.leaked:
                found = run.as_leak().intervals()
                claims = ", ".join(f"{title} {found[name]}" for name, title in _HEADLINE.items())
                yield f"LEAK, not a result: {_LEAK} {claims} (seed {run.seed})"

    def _write_tables_and_figure(self, folder: Path) -> None:
        table = self._score_table()
        for name, text in (("table.md", table.to_markdown()), ("table.tex", table.to_latex())):
            (folder / name).write_text(text + "\n", encoding="utf-8")
        found = self.intervals()
        shown = "\n".join(f"{title} {found[name]}" for name, title in _HEADLINE.items())
        confusion = np.sum([run.scores.confusion for run in self.runs], axis=0)
        title = f"{self.runs[0].model}\n{shown}"
        draw_confusion(folder / "confusion", confusion, self.runs[0].classes, title)

    def _cells(self, dataset: str | None = None) -> list[str]:
        """Return clips, people and the scores of a row."""
        first, found = self.runs[0], self.intervals(dataset=dataset)
        mine = [one for one in first.predictions if dataset in (None, one.dataset)]
        counts = [str(len(mine)), str(len({one.who for one in mine}))]
        return [*counts, *(str(found[name]) for name in _HEADLINE)]


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
    leaked : tuple of int
        What choosing each fold's epoch on the tested clips would have predicted, clip by clip:
        a leak, and no result. Empty where it was not asked for.
    """

    model: str
    protocol: str
    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    epochs: dict[str, int]
    seed: int = 0
    leaked: tuple[int, ...] = ()

    @property
    def runs(self) -> tuple[TrainResult, ...]:
        return (self,)

    @property
    def leak(self) -> Scores | None:
        """What choosing the epochs on the tested clips would have claimed; no result."""
        if not self.leaked:
            return None
        return scores(self._true, self.leaked, len(self.classes))

    def as_leak(self) -> TrainResult:
        """Return what the leak would have claimed as if it were a result, which it is not."""
        pairs = zip(self.predictions, self.leaked, strict=True)
        claimed = tuple(replace(one, predicted=said, probabilities=()) for one, said in pairs)
        return replace(self, predictions=claimed, epochs={}, leaked=())

    @property
    def scores(self) -> Scores:
        """Scores of all clips together."""
        return scores(self._true, self._predicted, len(self.classes))

    @property
    def by_dataset(self) -> dict[str, Scores]:
        """Scores of each data set's clips."""
        groups = [one.dataset for one in self.predictions]
        return scores_by(groups, self._true, self._predicted, len(self.classes))

    @property
    def by_person(self) -> dict[str, Scores]:
        """Scores of each person's clips."""
        whose = [one.who for one in self.predictions]
        found = scores_by(whose, self._true, self._predicted, len(self.classes))
        return {who: found[who] for who in sorted(found)}

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody who is tested, in sorted order."""
        return tuple(sorted({one.who for one in self.predictions}))

    def write(self, folder: Path) -> None:
        """Write the predictions, the scores and the tables into a folder.

        predictions.csv, subjects.csv, classes.csv, summary.csv, summary.json, table.md,
        table.tex, and the confusion matrix as PNG, PDF and SVG.
        """
        write_csv(folder / "predictions.csv", *prediction_rows(self.predictions, self.classes))
        head = ("dataset", "subject", "person", "clips", *_HEADLINE, *_WEIGHTED)
        write_csv(folder / "subjects.csv", head, self._subject_rows())
        groups: dict[str, str | None] = {"all": None, **{name: name for name in self.by_dataset}}
        found = {group: self.intervals(dataset=name) for group, name in groups.items()}
        write_csv(folder / "summary.csv", *self._summary_rows(found))
        write_csv(folder / "classes.csv", *self._class_rows(found))
        by_group = {"all": self.scores, **self.by_dataset}
        summary = {
            "model": self.model,
            "protocol": self.protocol,
            "seed": self.seed,
            "classes": list(self.classes),
            "groups": {
                name: {**_score_values(by_group[name]), "intervals": _interval_values(one)}
                for name, one in found.items()
            },
            "leak": None if self.leak is None else _score_values(self.leak),
            "epochs": self.epochs,
        }
        _write_json(folder / "summary.json", summary)
        self._write_tables_and_figure(folder)

    def _score_table(self) -> Table:
        rows = [("Full", *self._cells())]
        names = list(self.by_dataset)
        if len(names) > 1:
            rows += [(name, *self._cells(name)) for name in names]
        return Table(("", "clips", "people", *_HEADLINE.values()), tuple(rows))

    def _subject_rows(self) -> Iterator[list[Any]]:
        """Yield a row a person: the data sets and subjects that are this person, and the scores."""
        names: dict[str, set[tuple[str, str]]] = {}
        for one in self.predictions:
            names.setdefault(one.who, set()).add((one.dataset, one.subject))
        for who, found in self.by_person.items():
            parts = zip(*sorted(names[who]), strict=True)
            datasets, subjects = (" ".join(dict.fromkeys(part)) for part in parts)
            values = (round(getattr(found, name), _DIGITS) for name in (*_HEADLINE, *_WEIGHTED))
            yield [datasets, subjects, who, found.clips, *values]

    def _summary_rows(
        self, found: dict[str, dict[str, Interval]]
    ) -> tuple[Sequence[str], Iterator[list[Any]]]:
        head = ["model", "protocol", "group", "clips", "people"]
        for name in (*_HEADLINE, *_WEIGHTED):
            column = f"weighted_{name}" if name in _WEIGHTED else name
            head += _interval_head(column)
        rows = (
            [
                *(self.model, self.protocol, group, *self._size(group)),
                *_numbers(one[name] for name in (*_HEADLINE, *_WEIGHTED)),
            ]
            for group, one in found.items()
        )
        return head, rows

    def _class_rows(
        self, found: dict[str, dict[str, Interval]]
    ) -> tuple[Sequence[str], Iterator[list[Any]]]:
        head = ["model", "protocol", "group", "class", "clips"]
        for name in _OF_CLASS:
            head += _interval_head(name)
        of_group = {"all": self.scores, **self.by_dataset}
        rows = (
            [
                *(self.model, self.protocol, group, label, int(clips)),
                *_numbers(one[f"{name}/{label}"] for name in _OF_CLASS),
            ]
            for group, one in found.items()
            for label, clips in zip(self.classes, of_group[group].confusion.sum(1), strict=True)
        )
        return head, rows

    def _size(self, group: str) -> tuple[int, int]:
        mine = [one for one in self.predictions if group in ("all", one.dataset)]
        return len(mine), len({one.who for one in mine})

    @property
    def _true(self) -> list[int]:
        return [one.label for one in self.predictions]

    @property
    def _predicted(self) -> list[int]:
        return [one.predicted for one in self.predictions]


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
    def scores(self) -> Scores:
        """The mean of each score over the seeds; the confusion is the sum."""
        found = [one.scores for one in self.results]
        names = (*_HEADLINE, "precision", "recall", "f1")
        means = {name: float(np.mean([getattr(s, name) for s in found])) for name in names}
        return Scores(**means, confusion=np.sum([s.confusion for s in found], axis=0))

    @property
    def deviation(self) -> dict[str, float]:
        """The standard deviation over the seeds of UF1, UAR and accuracy."""
        found = [one.scores for one in self.results]
        return {
            name: float(np.std([getattr(s, name) for s in found], ddof=1)) for name in _HEADLINE
        }

    def write(self, folder: Path) -> None:
        """Write summary.json, table.md, table.tex and the confusion of all seeds together."""
        summary = {
            **{f"seed-{one.seed}": _score_values(one.scores) for one in self.results},
            "mean": _score_values(self.scores),
            "deviation": self.deviation,
            "intervals": _interval_values(self.intervals()),
        }
        _write_json(folder / "summary.json", summary)
        self._write_tables_and_figure(folder)

    def _score_table(self) -> Table:
        rows = [(f"seed {one.seed}", *one._cells()) for one in self.results]
        spread = (f"{value:.4f}" for value in self.deviation.values())
        rows += [("mean", *self._cells()), ("deviation", "", "", *spread)]
        return Table(("", "clips", "people", *_HEADLINE.values()), tuple(rows))


def prediction_rows(
    predictions: Sequence[Prediction], classes: Sequence[str]
) -> tuple[Sequence[str], Iterator[list[Any]]]:
    """Return the head and the rows of ``predictions.csv``; no label where it is unknown."""
    head = ("dataset", "subject", "person", "clip", "fold", "label", "predicted")
    names = (f"p_{name}" for name in classes)
    rows = (
        [
            *(one.dataset, one.subject, one.who, one.clip, one.fold),
            *("" if one.label < 0 else one.label, one.predicted),
            *("" if one.label < 0 else classes[one.label], classes[one.predicted]),
            *(round(p, _DIGITS) for p in one.probabilities),
        ]
        for one in predictions
    )
    return (*head, "true_class", "class", *names), rows


def person_counts(runs: Sequence[TrainResult], dataset: str | None = None) -> NDArray[np.int64]:
    """Return the confusion of each run's and person's clips: (run, person, class, class).

    Raises `ApexflowError` when a run has no clip of the data set.
    """
    return np.stack([_person_counts(run, dataset) for run in runs])


def _person_counts(run: TrainResult, dataset: str | None) -> NDArray[np.int64]:
    mine: dict[str, list[Prediction]] = {}
    for one in run.predictions:
        if dataset in (None, one.dataset):
            mine.setdefault(one.who, []).append(one)
    if not mine:
        there = ", ".join(sorted({one.dataset for one in run.predictions}))
        raise ApexflowError(f"dataset must be one of {there}. Got {dataset!r}.")
    return np.stack([_confusion(mine[who], len(run.classes)) for who in sorted(mine)])


def _confusion(predictions: Sequence[Prediction], n_classes: int) -> NDArray[np.int64]:
    true, predicted = [one.label for one in predictions], [one.predicted for one in predictions]
    return confusion_matrix(true, predicted, n_classes)


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
        path = table
        with table.open(newline="", encoding="utf-8") as file:
            predictions = tuple(_prediction(row, classes) for row in csv.DictReader(file))
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
    )


def _prediction(row: dict[str, str], classes: tuple[str, ...]) -> Prediction:
    label, predicted = int(row["label"]), int(row["predicted"])
    for number in (label, predicted):
        if not 0 <= number < len(classes):
            raise ValueError(f"class {number} of {len(classes)}")
    return Prediction(
        *(row["dataset"], row["subject"], row["clip"], row["fold"], label, predicted),
        tuple(float(row[name]) for name in row if name.startswith("p_")),
        row.get("person") or "",
    )


def _score_values(found: Scores) -> dict[str, Any]:
    names = (*_HEADLINE, "precision", "recall", "f1")
    values: dict[str, Any] = {name: getattr(found, name) for name in names}
    return {"clips": found.clips, **values, "confusion": np.asarray(found.confusion).tolist()}


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
    return ["" if np.isnan(end) else round(end, _DIGITS) for end in ends]


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table that a spreadsheet shows and does not execute."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(safe_row(head))
        writer.writerows(map(safe_row, rows))
