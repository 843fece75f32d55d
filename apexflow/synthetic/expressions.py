"""Expressions: which parts of the face move where.

The patterns follow the action units of the Facial Action Coding System that SAMM's tables
name for each emotion [1]_; they are patterns of motion to test with, not a model of muscles.

References
----------
.. [1] P. Ekman, W. Friesen, J. Hager, "Facial Action Coding System", 2002.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from apexflow.synthetic.portrait import Subject


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the face that moves.

    Attributes
    ----------
    landmark : str
        A key of `portrait.LANDMARKS`: the middle of the part.
    direction : (float, float)
        Displacement (x, y) in the picture for amplitude 1.
    radius : (float, float)
        Half axes of the ellipse that moves, as fractions of the face's height. The
        displacement falls as ``(1 - r²)³`` from the middle to nothing at the edge.
    """

    landmark: str
    direction: tuple[float, float]
    radius: tuple[float, float] = (0.16, 0.13)


@dataclass(frozen=True, slots=True)
class Expression:
    """An emotion's pattern of motion, with the names that annotation tables use."""

    emotion: str
    action_units: str
    objective_class: int
    parts: tuple[Part, ...]


_BROW = (0.15, 0.11)
_WIDE_BROW = (0.20, 0.11)  # inner and outer end melt into one
_LIP = (0.22, 0.12)

EXPRESSIONS: Final[Mapping[str, Expression]] = MappingProxyType(
    {
        "happiness": Expression(
            "Happiness",
            "6+12",
            1,
            (
                Part("left_mouth", (-0.80, -0.60)),
                Part("right_mouth", (0.80, -0.60)),
                Part("left_cheek", (-0.10, -0.45)),
                Part("right_cheek", (0.10, -0.45)),
            ),
        ),
        "surprise": Expression(
            "Surprise",
            "1+2+26",
            2,
            (
                Part("left_brow_outer", (0.00, -0.70), _WIDE_BROW),
                Part("left_brow_inner", (0.00, -0.70), _WIDE_BROW),
                Part("right_brow_inner", (0.00, -0.70), _WIDE_BROW),
                Part("right_brow_outer", (0.00, -0.70), _WIDE_BROW),
                Part("lower_lip", (0.00, 0.70), (0.22, 0.17)),
            ),
        ),
        "anger": Expression(
            "Anger",
            "4+7",
            3,
            (
                Part("left_brow_inner", (0.45, 0.85), _BROW),
                Part("right_brow_inner", (-0.45, 0.85), _BROW),
                Part("left_eye", (0.00, -0.30), (0.13, 0.07)),
                Part("right_eye", (0.00, -0.30), (0.13, 0.07)),
            ),
        ),
        "disgust": Expression(
            "Disgust",
            "9+10",
            4,
            (
                Part("left_nostril", (-0.20, -0.80), (0.14, 0.13)),
                Part("right_nostril", (0.20, -0.80), (0.14, 0.13)),
                Part("upper_lip", (0.00, -0.70), _LIP),
                Part("left_brow_inner", (0.10, 0.40), _BROW),
                Part("right_brow_inner", (-0.10, 0.40), _BROW),
            ),
        ),
        "sadness": Expression(
            "Sadness",
            "1+15",
            5,
            (
                Part("left_brow_inner", (0.25, -0.80), _BROW),
                Part("right_brow_inner", (-0.25, -0.80), _BROW),
                Part("left_mouth", (0.10, 0.80)),
                Part("right_mouth", (-0.10, 0.80)),
            ),
        ),
        "fear": Expression(
            "Fear",
            "1+2+4+20",
            6,
            (
                Part("left_brow_inner", (0.55, -0.60), _BROW),
                Part("right_brow_inner", (-0.55, -0.60), _BROW),
                Part("left_mouth", (-0.95, 0.10)),
                Part("right_mouth", (0.95, 0.10)),
            ),
        ),
        "contempt": Expression(
            "Contempt",
            "R12+R14",
            7,
            (
                Part("right_mouth", (0.75, -0.65)),
                Part("right_cheek", (0.10, -0.35)),
            ),
        ),
        "repression": Expression(
            "Repression",
            "15+17+24",
            7,
            (
                Part("left_mouth", (0.45, 0.55)),
                Part("right_mouth", (-0.45, 0.55)),
                Part("chin", (0.00, -0.60), (0.20, 0.12)),
            ),
        ),
    }
)
"""The patterns by name. Amplitude 1 moves the middle of the strongest parts by about 1 pixel."""


# Of an eyelid: as `Part`, and how far it falls in parts of the face's height.
_LID = (0.13, 0.07)
_LID_FALL = 1 / 50


def lids(subject: Subject, closed: float) -> NDArray[np.float64]:
    """Return the bumps, as `bumps` does, of both eyelids, fallen by a part of all that they can."""
    middles = subject.locate(np.array(subject.portrait.five[:2]))
    one = np.array([*_LID, 0.0, closed * _LID_FALL]) * subject.face_height
    return np.hstack([middles, np.tile(one, (2, 1))])


# Of an eye: half width and half height of its opening, and height of the lid above it.
_EYE = (0.09, 0.032, 0.05)


def eyelids(subject: Subject, closed: float) -> NDArray[np.float64]:
    """Return the upper eyelids, closed by a part of the way, as `sampling.expose` takes them."""
    middles = subject.locate(np.array(subject.portrait.five[:2]))
    one = np.array([*(subject.face_height * np.array(_EYE)), closed])
    return np.hstack([middles, np.tile(one, (2, 1))])


def bumps(
    subject: Subject, expression: str, amplitude: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lay an expression on a subject's face, its parts at one amplitude or each at its own.

    Returns
    -------
    (parts, 6) float64
        For each part centre x, y; radius x, y; displacement x, y at the apex, in pixels of the
        frame: what `sampling.expose` takes.
    """
    if expression not in EXPRESSIONS:
        raise ValueError(f"expression must be one of {sorted(EXPRESSIONS)}, got {expression!r}")
    parts = EXPRESSIONS[expression].parts
    landmarks = subject.portrait.landmarks
    middles = subject.locate(np.array([landmarks[part.landmark] for part in parts]))
    radii = subject.face_height * np.array([part.radius for part in parts])
    amplitudes = np.broadcast_to(amplitude, len(parts))[:, np.newaxis]
    moves = amplitudes * np.array([part.direction for part in parts])
    return np.hstack([middles, radii, moves * [-1.0 if subject.mirror else 1.0, 1.0]])
