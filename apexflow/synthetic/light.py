"""Light that changes over a clip: what a camera sees beside motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

_WHITE = 255.0
# Of a wave of light: how often it comes in a clip, and its length in parts of the frame's height.
_COURSES = 1.3
_LENGTHS = (1.5, 4.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """How the light of a clip changes; nothing unless asked for.

    Each part is 0 (of gamma 1) at its largest effect's other end, so that parts add up to known
    cases. "Over the clip" is nothing at both ends and all in the middle.

    Attributes
    ----------
    drift : float
        Amplitude of a smooth wave of light that wanders over the picture: .04 is ±4%.
    flicker : float
        Amplitude of the changes of all light from frame to frame, as lamps on alternating
        current give: .05 is ±5%.
    side : float
        How much brighter one side of the face becomes over the clip, and darker the other.
    gamma : float
        Exponent that gray levels, 1 being white, come to over the clip.
    vignette : float
        How much darker the corners of the picture are than its middle, in every frame.
    seed : int
        Chooses the wave and the flicker.
    """

    drift: float = 0.0
    flicker: float = 0.0
    side: float = 0.0
    gamma: float = 1.0
    vignette: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("drift", "flicker", "side", "vignette"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def shine(
        self, scene: Image, frame: int, count: int, middle: tuple[float, float], width: float
    ) -> Image:
        """Return a frame in this light.

        Parameters
        ----------
        scene : (channels, H, W) float32
            Gray levels of 0 to 255.
        frame, count : int
            Which of how many frames.
        middle : (x, y)
            Of the face, in pixels of the frame.
        width : float
            From the middle to where the light from the side is full.
        """
        time = frame / max(1, count - 1)
        over = 0.5 - 0.5 * np.cos(2 * np.pi * time)
        lit = scene
        if self.gamma != 1:
            exponent = 1 + (self.gamma - 1) * over
            lit = _WHITE * np.power(np.clip(lit, 0, _WHITE) / _WHITE, exponent)
        return (lit * self._gain(scene.shape[1:], frame, time, over, middle, width)).astype(
            np.float32
        )

    def _gain(
        self,
        size: tuple[int, ...],
        frame: int,
        time: float,
        over: float,
        middle: tuple[float, float],
        width: float,
    ) -> Image:
        """Return the factor (H, W) of each pixel's light."""
        height = size[0]
        y, x = (np.arange(n, dtype=np.float64) for n in size)
        rng = np.random.default_rng([self.seed, 9])
        start, turn = rng.uniform(0, 2 * np.pi, 2)
        rate = 2 * np.pi / (height * rng.uniform(*_LENGTHS))
        wave = 2 * np.pi * _COURSES * time + start + rate * np.cos(turn) * x
        gain = 1 + self.drift * np.sin(wave + (rate * np.sin(turn) * y)[:, None])
        swing = np.random.default_rng([self.seed, 10, frame]).uniform(0, 2 * np.pi)
        gain *= 1 + self.flicker * np.sin(swing)
        gain *= 1 + self.side * over * np.clip((x - middle[0]) / width, -1, 1)
        corner = [((n - 1) / 2) ** 2 for n in size]
        far = ((y - (size[0] - 1) / 2) ** 2)[:, None] + (x - (size[1] - 1) / 2) ** 2
        return (gain * (1 - self.vignette * far / sum(corner))).astype(np.float32)
