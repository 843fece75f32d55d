"""One class a clip: UF1, UAR, accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from apexflow.storage.labels import Kind
from apexflow.training.figures import draw_confusion
from apexflow.training.metrics import Scores, class_measures, confusion_matrix
from apexflow.training.scoring.base import (
    DIGITS,
    KEY_HEAD,
    Prediction,
    Scoring,
    key_cells,
    parsed,
)


class ClassScoring(Scoring):
    """Of one class a clip; counts are confusion matrices, rows true classes."""

    kind: ClassVar[Kind] = "class"
    headline: ClassVar[Mapping[str, str]] = {"uf1": "UF1", "uar": "UAR", "accuracy": "accuracy"}
    columns: ClassVar[Mapping[str, str]] = {
        **{name: name for name in headline},
        "precision": "weighted_precision",
        "f1": "weighted_f1",
    }
    of_class: ClassVar[tuple[str, ...]] = ("recall", "precision", "f1")
    tested: ClassVar[tuple[str, ...]] = ("uf1", "uar")

    def decide(self, outputs: Sequence[float]) -> int:
        return int(np.argmax(outputs))

    def counts(self, predictions: Sequence[Prediction]) -> NDArray[np.int64]:
        true = [one.label for one in predictions]
        return confusion_matrix(true, [one.predicted for one in predictions], len(self.classes))

    def measure(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        return class_measures(counts)

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        return Scores.of(self.counts(predictions))

    def shown(self, predictions: Sequence[Prediction]) -> list[int]:
        found: list[int] = self.counts(predictions).sum(1).tolist()
        return found

    def values(self, scores: Scores) -> dict[str, Any]:
        names = (*self.headline, "precision", "recall", "f1")
        values: dict[str, Any] = {name: getattr(scores, name) for name in names}
        return {"clips": scores.clips, **values, "confusion": np.asarray(scores.confusion).tolist()}

    def rows(self, predictions: Sequence[Prediction]) -> tuple[Sequence[str], Iterator[list[Any]]]:
        classes = self.classes
        rows = (
            [
                *key_cells(one),
                *("" if one.label < 0 else one.label, one.predicted),
                *("" if one.label < 0 else classes[one.label], classes[one.predicted]),
                *(round(p, DIGITS) for p in one.probabilities),
            ]
            for one in predictions
        )
        names = (f"p_{name}" for name in classes)
        return (*KEY_HEAD, "label", "predicted", "true_class", "class", *names), rows

    def parse(self, row: Mapping[str, str]) -> Prediction:
        label, predicted = int(row["label"]), int(row["predicted"])
        for number in (label, predicted):
            if not 0 <= number < len(self.classes):
                raise ValueError(f"class {number} of {len(self.classes)}")
        outputs = [float(row[name]) for name in row if name.startswith("p_")]
        return parsed(row, label, predicted, outputs)

    def draw(self, path: Path, runs: Sequence[Sequence[Prediction]], title: str) -> None:
        confusion = np.sum([self.counts(run) for run in runs], axis=0)
        draw_confusion(path / "confusion", confusion, self.classes, title)

    def right(self, prediction: Prediction) -> bool:
        return bool(prediction.predicted == prediction.label)

    def text(self, prediction: Prediction) -> tuple[str, str]:
        said = prediction.predicted
        return self.classes[said], f"{prediction.probabilities[said]:.3f}"

    def told(self, predictions: Sequence[Prediction]) -> str:
        return f"{sum(map(self.right, predictions))} of {len(predictions)} right"
