"""Results without a training: predictions that are right now and then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apexflow.training.results import Prediction, TrainResult

CLASSES = ("negative", "positive", "surprise")


def random_result(
    skill: float, seed: int = 0, *, people: int = 6, clips: int = 60, model: str = "ststnet"
) -> TrainResult:
    """The same clips whatever ``skill`` and ``seed``, which decide what is predicted."""
    of_clips, of_network = np.random.default_rng(99), np.random.default_rng(seed)
    made = []
    for i in range(clips):
        who, label = int(of_clips.integers(people)), int(of_clips.integers(3))
        drawn = of_network.dirichlet(np.ones(3))
        said = label if of_network.random() < skill else int(of_network.integers(3))
        rest = sorted(drawn, reverse=True)
        p = np.roll(rest, said) if rest[0] > rest[1] else drawn
        made.append(
            Prediction(
                *("ab"[who % 2], str(who), f"c{i}", f"fold {who}", label),
                int(np.argmax(p)),
                tuple(float(v) for v in p),
            )
        )
    return TrainResult(model, "megc2019", CLASSES, tuple(made), {}, seed)


def arrays(result: TrainResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(true, predicted, position of the person) of each clip."""
    ones: Sequence[Prediction] = result.predictions
    people = {who: i for i, who in enumerate(result.people)}
    return (
        np.array([one.label for one in ones]),
        np.array([one.predicted for one in ones]),
        np.array([people[one.who] for one in ones]),
    )
