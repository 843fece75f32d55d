"""The position of the apex: mean absolute error in frames, in milliseconds and in parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from apexflow.storage.labels import ApexPosition, Kind
from apexflow.training.figures import draw_positions
from apexflow.training.metrics import ratio
from apexflow.training.scoring.base import (
    DIGITS,
    KEY_HEAD,
    Prediction,
    Scoring,
    key_cells,
    parsed,
)


@dataclass(frozen=True, slots=True)
class ApexScores:
    """How far predicted apexes lie from the annotated ones, in the mean.

    Attributes
    ----------
    mae_frames, mae_ms : float
        In frames; in milliseconds of the clips whose rate is known, NaN where none is.
    mae : float
        In parts of the way from onset to offset.
    within : float
        The part of the clips whose error is one frame at most.
    clips : int
    """

    mae_frames: float
    mae_ms: float
    mae: float
    within: float
    clips: int

    def __str__(self) -> str:
        return (
            f"MAE {self.mae_frames:.2f} frames, {self.mae_ms:.1f} ms, {self.mae:.4f} of the clip  "
            f"({self.clips} clips)"
        )


class ApexScoring(Scoring):
    """Of positions; counts are clips, sums of errors, clips with a rate, and clips within 1."""

    kind: ClassVar[Kind] = "apex"
    headline: ClassVar[Mapping[str, str]] = {
        "mae_frames": "MAE frames",
        "mae_ms": "MAE ms",
        "mae": "MAE part",
    }
    columns: ClassVar[Mapping[str, str]] = {n: n for n in ("mae_frames", "mae_ms", "mae", "within")}
    tested: ClassVar[tuple[str, ...]] = ("mae_frames", "mae")

    def decide(self, outputs: Sequence[float]) -> float:
        """Return the position, within onset to offset."""
        return float(min(1.0, max(0.0, outputs[0])))

    def counts(self, predictions: Sequence[Prediction]) -> NDArray[np.float64]:
        return np.sum([_errors(one.label, one.predicted) for one in predictions], axis=0)

    def measure(self, counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        clips, frames, ms, with_rate, part, within = np.moveaxis(counts, -1, 0)
        return {
            "mae_frames": ratio(frames, clips),
            "mae_ms": ratio(ms, with_rate),
            "mae": ratio(part, clips),
            "within": ratio(within, clips),
        }

    def score(self, predictions: Sequence[Prediction]) -> ApexScores:
        found = self.measure(self.counts(predictions))
        values = {name: float(found[name]) for name in self.columns}
        return ApexScores(**values, clips=len(predictions))

    def notes(self, predictions: Sequence[Prediction]) -> Iterator[str]:
        middle = sum(abs(one.label.value - 0.5) * _length(one.label) for one in predictions)
        yield (
            "errors: the smaller, the better; the middle of each clip would err by "
            f"{middle / len(predictions):.2f} frames"
        )
        without = sum(not one.label.fps for one in predictions)
        if without:
            yield f"of {without} clips nobody says the frames a second: they count in no ms"

    def rows(self, predictions: Sequence[Prediction]) -> tuple[Sequence[str], Iterator[list[Any]]]:
        head = (
            *(*KEY_HEAD, "onset", "apex", "offset", "fps", "position", "predicted_position"),
            *("predicted_apex", "error_frames", "error_ms"),
        )
        return head, (self._row(one) for one in predictions)

    def _row(self, one: Prediction) -> list[Any]:
        where, said = one.label, round(one.predicted, DIGITS)
        if not isinstance(where, ApexPosition):
            return [*key_cells(one), *[""] * 5, said, *[""] * 3]
        _, frames, ms, with_rate, *_ = _errors(where, one.predicted)
        return [
            *key_cells(one),
            *(where.onset, where.apex, where.offset, where.fps or ""),
            *(round(where.value, DIGITS), said),
            round(where.onset + one.predicted * _length(where), 2),
            round(frames, 2),
            round(ms, 1) if with_rate else "",
        ]

    def parse(self, row: Mapping[str, str]) -> Prediction:
        onset, apex, offset = (int(row[name]) for name in ("onset", "apex", "offset"))
        where = ApexPosition(onset, apex, offset, float(row["fps"] or 0))
        said = float(row["predicted_position"])
        if not where.onset <= where.apex <= where.offset > where.onset or not 0 <= said <= 1:
            raise ValueError("an apex outside of its clip")
        return parsed(row, where, said, [said])

    def draw(self, path: Path, runs: Sequence[Sequence[Prediction]], title: str) -> None:
        pairs = [(one.label.value, one.predicted) for run in runs for one in run]
        draw_positions(path / "positions", np.array(pairs), title)

    def text(self, prediction: Prediction) -> tuple[str, str]:
        return f"{prediction.predicted:.3f} of the way from onset to offset", ""

    def told(self, predictions: Sequence[Prediction]) -> str:
        return f"{self.score(predictions).mae_frames:.2f} frames off"


def _length(where: ApexPosition) -> int:
    return where.offset - where.onset


def _errors(where: ApexPosition, said: float) -> NDArray[np.float64]:
    """Return 1 clip, its error in frames and ms, 1 where ms are known, its part, 1 within 1."""
    part = abs(said - where.value)
    frames = part * _length(where)
    ms = 1000 * frames / where.fps if where.fps else 0.0
    # A frame is one to rounding: the part of a clip is a float.
    return np.array([1, frames, ms, where.fps > 0, part, frames <= 1 + 1e-9], np.float64)
