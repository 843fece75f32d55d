"""Several action units a clip: binary F1 of each, their mean, of all clips and a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from apexflow.action_units import UNKNOWN
from apexflow.storage.labels import Kind
from apexflow.training.figures import draw_units
from apexflow.training.metrics import mean_of_known, ratio
from apexflow.training.scoring.base import (
    DIGITS,
    KEY_HEAD,
    Prediction,
    Scoring,
    key_cells,
    parsed,
)
from apexflow.training.tables import Table

THRESHOLD = 0.5
"""A unit whose probability is as high is said to be shown."""


@dataclass(frozen=True, slots=True)
class UnitScores:
    """What predictions of action units are worth.

    Attributes
    ----------
    uf1 : float
        The mean over units of 2 TP / (2 TP + FP + FN), each over the clips of which the unit is
        known; a unit counts where it is shown or predicted anywhere.
    precision, recall : float
        The means of TP / (TP + FP), 0 where a shown unit is never predicted, and of
        TP / (TP + FN).
    f1 : dict of unit to float
        NaN where a unit is neither shown nor predicted.
    counts : int64 (unit, 2, 2)
        Clips that do not show a unit and that do (rows), and what was said of them (columns).
    clips : int
    """

    uf1: float
    precision: float
    recall: float
    f1: dict[str, float]
    counts: NDArray[np.int64]
    clips: int

    def __str__(self) -> str:
        return (
            f"mean F1 {self.uf1:.4f}  precision {self.precision:.4f}  recall {self.recall:.4f}  "
            f"({self.clips} clips, {len(self.f1)} action units)"
        )


class UnitScoring(Scoring):
    """Of several action units a clip; counts are (unit, 2, 2), what is unknown left out."""

    kind: ClassVar[Kind] = "units"
    headline: ClassVar[Mapping[str, str]] = {
        "uf1": "mean F1",
        "precision": "precision",
        "recall": "recall",
    }
    columns: ClassVar[Mapping[str, str]] = {
        "uf1": "mean_f1",
        "precision": "precision",
        "recall": "recall",
    }
    of_class: ClassVar[tuple[str, ...]] = ("recall", "precision", "f1")
    tested: ClassVar[tuple[str, ...]] = ("uf1", "recall")
    class_title: ClassVar[str] = "unit"

    def decide(self, outputs: Sequence[float]) -> tuple[int, ...]:
        return tuple(int(p >= THRESHOLD) for p in outputs)

    def counts(self, predictions: Sequence[Prediction]) -> NDArray[np.int64]:
        true = np.array([one.label for one in predictions])
        said = np.array([one.predicted for one in predictions])
        pairs = [[((true == t) & (said == s)).sum(0) for s in (0, 1)] for t in (0, 1)]
        return np.moveaxis(np.array(pairs, np.int64), -1, 0)

    def measure(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        hits = counts[..., 1, 1].astype(np.float64)
        shown, said = counts[..., 1, :].sum(-1), counts[..., :, 1].sum(-1)
        f1, recall = ratio(2 * hits, shown + said), ratio(hits, shown)
        # What is shown and never predicted has a precision of 0, as in scikit-learn.
        precision = ratio(hits, np.maximum(said, shown > 0))
        return {
            "uf1": mean_of_known(f1),
            "precision": mean_of_known(precision),
            "recall": mean_of_known(recall),
            "class_f1": f1,
            "class_precision": precision,
            "class_recall": recall,
        }

    def score(self, predictions: Sequence[Prediction]) -> UnitScores:
        counts = self.counts(predictions)
        found = self.measure(counts)
        means = {name: float(found[name]) for name in self.columns}
        f1 = dict(zip(self.classes, found["class_f1"].tolist(), strict=True))
        return UnitScores(**means, f1=f1, counts=counts, clips=len(predictions))

    def shown(self, predictions: Sequence[Prediction]) -> list[int]:
        found: list[int] = self.counts(predictions)[:, 1].sum(1).tolist()
        return found

    def values(self, scores: UnitScores) -> dict[str, Any]:
        f1 = {unit: None if np.isnan(value) else value for unit, value in scores.f1.items()}
        return {**super().values(scores), "unit_f1": f1, "counts": scores.counts.tolist()}

    def class_table(self, found: Mapping[str, Any], predictions: Sequence[Prediction]) -> Table:
        """Return each unit's scores, and the F1 of saying of every clip that it shows it."""
        counts = self.counts(predictions)
        shown, known = counts[:, 1].sum(1), counts.sum((1, 2))
        always = ratio(2.0 * shown, shown + known)
        rows = [
            (
                *(name, str(n), str(len(predictions) - of) if of < len(predictions) else ""),
                *(str(found[f"{score}/{name}"]) for score in self.of_class),
                f"{chance:.4f}",
            )
            for name, n, of, chance in zip(self.classes, shown, known, always, strict=True)
        ]
        head = ("unit", "clips", "unknown", "recall", "precision", "F1", "F1 of always")
        means = (str(found[name]) for name in ("recall", "precision", "uf1"))
        rows.append(("mean", "", "", *means, f"{float(mean_of_known(always)):.4f}"))
        return Table(head, tuple(rows))

    def notes(self, predictions: Sequence[Prediction]) -> Iterator[str]:
        yield "F1 of always: what saying of every clip that it shows the unit would have"
        never = self._absent(predictions)
        if never:
            yield f"shown by no tested clip: {', '.join(never)}; where predicted, its F1 is 0"
        for name in sorted({one.dataset for one in predictions}):
            mine = self._absent([one for one in predictions if one.dataset == name])
            absent = [unit for unit in mine if unit not in never]
            if absent:
                yield f"{name}: no clip shows {', '.join(absent)}"

    def _absent(self, predictions: Sequence[Prediction]) -> list[str]:
        pairs = zip(self.classes, self.shown(predictions), strict=True)
        return [name for name, shown in pairs if not shown]

    def rows(self, predictions: Sequence[Prediction]) -> tuple[Sequence[str], Iterator[list[Any]]]:
        head = [*KEY_HEAD]
        for name in self.classes:
            head += [f"true_{name}", name, f"p_{name}"]
        return head, (self._row(one) for one in predictions)

    def _row(self, one: Prediction) -> list[Any]:
        cells: list[Any] = [*key_cells(one)]
        true = one.label if isinstance(one.label, tuple) else (UNKNOWN,) * len(self.classes)
        for shown, said, p in zip(true, one.predicted, one.probabilities, strict=True):
            cells += ["" if shown == UNKNOWN else shown, said, round(p, DIGITS)]
        return cells

    def parse(self, row: Mapping[str, str]) -> Prediction:
        label = tuple(int(row[f"true_{name}"] or UNKNOWN) for name in self.classes)
        predicted = tuple(int(row[name]) for name in self.classes)
        if not set(label) <= {0, 1, UNKNOWN} or not set(predicted) <= {0, 1}:
            raise ValueError("a unit is neither 1 nor 0")
        return parsed(row, label, predicted, [float(row[f"p_{name}"]) for name in self.classes])

    def draw(self, path: Path, runs: Sequence[Sequence[Prediction]], title: str) -> None:
        f1 = [self.measure(self.counts(run))["class_f1"] for run in runs]
        draw_units(path / "units", np.array(f1), self.classes, title)

    def text(self, prediction: Prediction) -> tuple[str, str]:
        pairs = zip(self.classes, prediction.predicted, strict=True)
        shown = [i for i, (_, said) in enumerate(pairs) if said]
        if not shown:
            return "none", f"{max(prediction.probabilities):.3f} at most"
        sure = " ".join(f"{prediction.probabilities[i]:.3f}" for i in shown)
        return "+".join(self.classes[i] for i in shown), sure

    def told(self, predictions: Sequence[Prediction]) -> str:
        hits, shown, said = self._sums(predictions)
        return f"{hits} of {shown} action units found, {said - hits} falsely"

    def _sums(self, predictions: Sequence[Prediction]) -> tuple[int, int, int]:
        counts = self.counts(predictions).sum(0)
        return int(counts[1, 1]), int(counts[1].sum()), int(counts[:, 1].sum())
