"""The face of every kind of scoring, and the prediction that it scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import person_of
from apexflow.storage.labels import Kind
from apexflow.training.statistics import Interval
from apexflow.training.tables import Table

DIGITS = 6
"""Of probabilities and positions in tables."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network that never saw the person said of one clip.

    Attributes
    ----------
    dataset, subject, clip, fold : str
    label : int, tuple of int or ApexPosition
        As a sample has it (`apexflow.storage.labels.Label`); -1 where it is unknown.
    predicted : int, tuple of int or float
        A class; of each action unit 1 or 0; or the part of the way from onset to offset.
    probabilities : tuple of float
        Of each class or unit; of the apex, the position.
    person : str
    """

    dataset: str
    subject: str
    clip: str
    fold: str
    label: Any
    predicted: Any
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


class Scoring(ABC):
    """How predictions of one kind are read, scored, written and drawn.

    Attributes
    ----------
    classes : tuple of str
        Classes, or action units, or "position".
    kind : "class", "units" or "apex"
    headline : mapping of score to title
        What tables print; runs are compared by the first.
    columns : mapping of score to column
        What summary.csv holds.
    of_class : tuple of str
        The scores of each class.
    tested : tuple of str
        The scores that `compare` gives a p of.
    """

    kind: ClassVar[Kind]
    headline: ClassVar[Mapping[str, str]]
    columns: ClassVar[Mapping[str, str]]
    of_class: ClassVar[tuple[str, ...]] = ()
    tested: ClassVar[tuple[str, ...]]

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes

    @abstractmethod
    def decide(self, outputs: Sequence[float]) -> Any:
        """Return what one clip's outputs say: `Prediction.predicted`."""

    @abstractmethod
    def counts(self, predictions: Sequence[Prediction]) -> NDArray[Any]:
        """Return what scores are computed from, which adds up over people."""

    @abstractmethod
    def measure(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """Return each score of counts (..., *shape), and "class_…" of each class."""

    @abstractmethod
    def score(self, predictions: Sequence[Prediction]) -> Any:
        """Return the scores as an object with their names as attributes, and ``clips``."""

    @abstractmethod
    def rows(self, predictions: Sequence[Prediction]) -> tuple[Sequence[str], Iterator[list[Any]]]:
        """Return the head and the rows of ``predictions.csv``."""

    @abstractmethod
    def parse(self, row: Mapping[str, str]) -> Prediction:
        """Return what a row of ``predictions.csv`` says; ValueError or KeyError where it cannot."""

    @abstractmethod
    def draw(self, path: Path, runs: Sequence[Sequence[Prediction]], title: str) -> None:
        """Draw the predictions of each seed into one figure, as PNG, PDF and SVG."""

    def named(self, found: Mapping[str, Any]) -> dict[str, Interval]:
        """Return intervals by the names that `TrainResult.interval` takes."""
        named: dict[str, Interval] = {name: found[name] for name in self.columns}
        for name in self.of_class:
            each = zip(self.classes, found[f"class_{name}"], strict=True)
            named.update({f"{name}/{label}": interval for label, interval in each})
        return named

    def class_table(
        self, found: Mapping[str, Interval], predictions: Sequence[Prediction]
    ) -> Table | None:
        """Return the scores of each class as a table; None where there are none."""
        if not self.of_class:
            return None
        rows = (
            (label, str(count), *(str(found[f"{name}/{label}"]) for name in self.of_class))
            for label, count in zip(self.classes, self.shown(predictions), strict=True)
        )
        return Table((self.class_title, "clips", "recall", "precision", "F1"), tuple(rows))

    class_title: ClassVar[str] = "class"

    def shown(self, predictions: Sequence[Prediction]) -> list[int]:
        """Return how many clips show each class."""
        return [0] * len(self.classes)

    def values(self, scores: Any) -> dict[str, Any]:
        """Return scores as plain JSON values."""
        return {
            "clips": scores.clips,
            **{name: _json(getattr(scores, name)) for name in self.columns},
        }

    def notes(self, predictions: Sequence[Prediction]) -> Iterator[str]:
        """Yield what a reader of the scores should know."""
        yield from ()

    def right(self, prediction: Prediction) -> bool | None:
        """Say whether a prediction is right; None where it is not right or wrong as a whole."""
        return None

    @abstractmethod
    def text(self, prediction: Prediction) -> tuple[str, str]:
        """Return what was said of a clip, and how sure, as short texts."""

    @abstractmethod
    def told(self, predictions: Sequence[Prediction]) -> str:
        """Return how good one fold's predictions are, in a few words."""


def key_cells(one: Prediction) -> tuple[str, ...]:
    """Return the first cells of a row of ``predictions.csv``."""
    return one.dataset, one.subject, one.who, one.clip, one.fold


KEY_HEAD = ("dataset", "subject", "person", "clip", "fold")


def parsed(
    row: Mapping[str, str], label: Any, predicted: Any, outputs: Sequence[float]
) -> Prediction:
    """Return the prediction of a row, with what its own kind read of it."""
    key = (row["dataset"], row["subject"], row["clip"], row["fold"])
    return Prediction(*key, label, predicted, tuple(outputs), row.get("person") or "")


def _json(value: float) -> float | None:
    return None if np.isnan(value) else value
