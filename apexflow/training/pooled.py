"""What all folds said of their test clips, pooled before any score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.storage.dataset import ClipDataset
from apexflow.training.config import TrainConfig
from apexflow.training.folds import Fold
from apexflow.training.results import TrainResult
from apexflow.training.robustness import Robustness, ShiftScore
from apexflow.training.scoring import Prediction, Scoring, scoring_of
from apexflow.training.shifts import Shift
from apexflow.training.task import FinishedFold


@dataclass(frozen=True, slots=True)
class Pool:
    """The clips of a training and the folds that test them.

    Attributes
    ----------
    dataset : ClipDataset
    folds : sequence of Fold
    """

    dataset: ClipDataset
    folds: Sequence[Fold]

    @property
    def scoring(self) -> Scoring:
        return scoring_of(self.dataset.kind, self.dataset.classes)

    def told(self, fold: Fold, finished: FinishedFold) -> str:
        """Return what is said of a fold when it is finished."""
        told = f"{fold.name}: {self.scoring.told(self._predictions(fold, finished.probabilities))}"
        if finished.epoch:
            return f"{told}, epoch {finished.epoch}"
        return "".join([told, *(f", C {c:g}" for c in finished.curves.get("chosen_C", ()))])

    def result(self, found: Sequence[FinishedFold], config: TrainConfig) -> TrainResult:
        """Return the predictions of all folds, in the order of the clips."""
        by_clip: dict[int, Prediction] = {}
        leaks: dict[int, Any] = {}
        for fold, finished in zip(self.folds, found, strict=True):
            said = self._predictions(fold, finished.probabilities)
            by_clip.update(zip(fold.test, said, strict=True))
            if finished.leak is not None:
                leaks.update(zip(fold.test, finished.leak.predicted, strict=True))
        return TrainResult(
            model=config.model_name,
            protocol=config.labels or "labels of the store",
            classes=self.dataset.classes,
            predictions=tuple(by_clip[i] for i in sorted(by_clip)),
            epochs={fold.name: one.epoch for fold, one in zip(self.folds, found, strict=True)},
            seed=config.seed,
            leaked=tuple(leaks[i] for i in sorted(leaks)),
            kind=self.dataset.kind,
        )

    def robustness(
        self,
        shifts: Sequence[Shift],
        rows: Sequence[Mapping[int, NDArray[np.float32]]],
        clamped: Sequence[int],
    ) -> Robustness:
        """Return the scores at each shift of what was said of each clip there."""
        scores = tuple(
            ShiftScore(*shift, count, self._headline(said))
            for shift, count, said in zip(shifts, clamped, rows, strict=True)
        )
        clips = sum(len(fold.test) for fold in self.folds)
        return Robustness(clips, self.scoring.headline, scores)

    def _headline(self, rows: Mapping[int, NDArray[np.float32]]) -> dict[str, float]:
        """Return the scores that tables print."""
        said = [
            one
            for fold in self.folds
            for one in self._predictions(fold, [rows[i].astype(float).tolist() for i in fold.test])
        ]
        scores = self.scoring.score(said)
        return {name: float(getattr(scores, name)) for name in self.scoring.headline}

    def _predictions(self, fold: Fold, rows: Iterable[Sequence[float]]) -> list[Prediction]:
        """Return what a fold says of its test clips, in their order."""
        found = []
        for i, row in zip(fold.test, rows, strict=True):
            who = self.dataset.samples[i]
            key = (who.dataset, who.subject, who.clip, fold.name)
            said = self.scoring.decide(row)
            found.append(Prediction(*key, who.label, said, tuple(row), who.person))
        return found
