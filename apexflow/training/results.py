"""What came out of a training, and the files that say it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apexflow.catalog import person_of
from apexflow.storage.csv_cells import safe_row
from apexflow.training.metrics import Scores, scores, scores_by

_SCORE_COLUMNS = ("uf1", "uar", "accuracy", "precision", "recall", "f1")
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network that never saw the subject said of one clip."""

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


@dataclass(frozen=True, slots=True)
class TrainResult:
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
    def leak(self) -> Scores | None:
        """What choosing the epochs on the tested clips would have claimed; no result."""
        if not self.leaked:
            return None
        return scores(self._true, self.leaked, len(self.classes))

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

    def _subject_rows(self) -> Iterator[list[Any]]:
        """Yield a row a person: the data sets and subjects that are this person, and the scores."""
        names: dict[str, set[tuple[str, str]]] = {}
        for one in self.predictions:
            names.setdefault(one.who, set()).add((one.dataset, one.subject))
        for who, found in self.by_person.items():
            parts = zip(*sorted(names[who]), strict=True)
            datasets, subjects = (" ".join(dict.fromkeys(part)) for part in parts)
            yield [datasets, subjects, who, *_score_cells(found)]

    def table(self) -> str:
        """Return the table that papers print: a row for all clips, one a data set."""
        rows = [("Full", self.scores)]
        if len(self.by_dataset) > 1:
            rows += list(self.by_dataset.items())
        head = f"{self.model}, {self.protocol}, {', '.join(self.classes)}"
        lines = [head, f"{'':12s} {'clips':>6s} {'UF1':>7s} {'UAR':>7s} {'Acc':>7s} {'wF1':>7s}"]
        lines += [
            f"{name:12s} {s.clips:6d} {s.uf1:7.4f} {s.uar:7.4f} {s.accuracy:7.4f} {s.f1:7.4f}"
            for name, s in rows
        ]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write predictions.csv, subjects.csv, summary.csv and summary.json into a folder."""
        names = [f"p_{name}" for name in self.classes]
        _write_csv(
            folder / "predictions.csv",
            [
                "dataset",
                "subject",
                "clip",
                "fold",
                "label",
                "predicted",
                "true_class",
                "class",
                *names,
            ],
            (
                [
                    *(one.dataset, one.subject, one.clip, one.fold, one.label, one.predicted),
                    *(self.classes[one.label], self.classes[one.predicted]),
                    *(round(p, _DIGITS) for p in one.probabilities),
                ]
                for one in self.predictions
            ),
        )
        _write_csv(
            folder / "subjects.csv",
            ["dataset", "subject", "person", "clips", *_SCORE_COLUMNS],
            self._subject_rows(),
        )
        groups = {"all": self.scores, **self.by_dataset}
        _write_csv(
            folder / "summary.csv",
            ["model", "protocol", "group", "clips", *_SCORE_COLUMNS],
            ([self.model, self.protocol, name, *_score_cells(s)] for name, s in groups.items()),
        )
        summary = {
            "model": self.model,
            "protocol": self.protocol,
            "classes": list(self.classes),
            "groups": {name: _score_values(found) for name, found in groups.items()},
            "epochs": self.epochs,
        }
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")

    @property
    def _true(self) -> list[int]:
        return [one.label for one in self.predictions]

    @property
    def _predicted(self) -> list[int]:
        return [one.predicted for one in self.predictions]


@dataclass(frozen=True, slots=True)
class SeedResults:
    """The same training with several seeds.

    Attributes
    ----------
    results : tuple of TrainResult
        One a seed.
    """

    results: tuple[TrainResult, ...]

    @property
    def scores(self) -> Scores:
        """The mean of each score over the seeds; the confusion is the sum."""
        found = [one.scores for one in self.results]
        means = {name: float(np.mean([getattr(s, name) for s in found])) for name in _SCORE_COLUMNS}
        return Scores(**means, confusion=np.sum([s.confusion for s in found], axis=0))

    def table(self) -> str:
        """Return a row a seed, and their mean and standard deviation."""
        names = ("uf1", "uar", "accuracy")
        values = np.array([[getattr(one.scores, name) for name in names] for one in self.results])
        lines = [f"{'seed':12s} {'UF1':>7s} {'UAR':>7s} {'Acc':>7s}"]
        rows = [(str(one.seed), row) for one, row in zip(self.results, values, strict=True)]
        rows += [("mean", values.mean(0)), ("deviation", values.std(0, ddof=1))]
        lines += [f"{name:12s} " + " ".join(f"{v:7.4f}" for v in row) for name, row in rows]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write summary.json, the scores of each seed, into a folder."""
        summary = {f"seed-{one.seed}": _score_values(one.scores) for one in self.results}
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def _score_cells(found: Scores) -> list[Any]:
    return [found.clips, *(round(getattr(found, name), _DIGITS) for name in _SCORE_COLUMNS)]


def _score_values(found: Scores) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(found, name) for name in _SCORE_COLUMNS}
    return {"clips": found.clips, **values, "confusion": np.asarray(found.confusion).tolist()}


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(safe_row(head))
        writer.writerows(map(safe_row, rows))
