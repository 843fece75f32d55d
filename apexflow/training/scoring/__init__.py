"""What predictions are worth: of classes, of action units, of the position of the apex.

One file a kind of label, all with the same face (`base`): how an output is read, counted a
person, scored, written and drawn. None of it needs torch.
"""

from __future__ import annotations

from apexflow.storage.labels import Kind
from apexflow.training.scoring.apex import ApexScores, ApexScoring
from apexflow.training.scoring.base import Prediction, Scoring
from apexflow.training.scoring.classes import ClassScoring
from apexflow.training.scoring.units import UnitScores, UnitScoring

__all__ = ["ApexScores", "Prediction", "Scoring", "UnitScores", "scoring_of"]

_SCORINGS: dict[Kind, type[Scoring]] = {
    "class": ClassScoring,
    "units": UnitScoring,
    "apex": ApexScoring,
}


def scoring_of(kind: Kind, classes: tuple[str, ...]) -> Scoring:
    """Return how predictions of that kind are scored; ValueError for another kind."""
    if kind not in _SCORINGS:
        raise ValueError(f"kind must be one of {', '.join(_SCORINGS)}. Got {kind!r}.")
    return _SCORINGS[kind](classes)
