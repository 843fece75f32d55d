"""Motion: what moves how far in each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Motion:
    """Known motion of a clip of N frames. All values are against the neutral pose.

    Attributes
    ----------
    shift : (N, 2) float64
        Translation (dx, dy) of the head at the middle of the face, in pixels of the frame.
    rotation : (N,) float64
        Rotation of the head about the middle of the face in degrees, clockwise as seen.
    scale : (N,) float64
        Enlargement of the head about the middle of the face.
    intensity : (N,) float64
        Strength of the expression: 0 at rest, 1 at the apex.
    gain, drift : (N,) float64
        Illumination: gray levels become ``gain * level + drift``.
    """

    shift: Curve
    rotation: Curve
    scale: Curve
    intensity: Curve
    gain: Curve
    drift: Curve

    def __post_init__(self) -> None:
        frames = len(self.intensity)
        for name in self.__slots__:
            value = np.array(getattr(self, name), np.float64)
            shape = (frames, 2) if name == "shift" else (frames,)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite and of shape {shape}, got {value.shape}")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        if frames == 0:
            raise ValueError("a motion must have at least one frame, got 0")
        if self.scale.min() <= 0:
            raise ValueError(f"scale must be positive, got {self.scale.min()}")

    def __len__(self) -> int:
        return len(self.intensity)

    @classmethod
    def random(
        cls,
        frames: int,
        apex: int,
        *,
        seed: int,
        shift: float = 4.0,
        rotation: float = 0.0,
        scale: float = 0.0,
        brightness: float = 3.0,
        flicker: float = 0.01,
    ) -> Motion:
        """Draw a smooth motion, whose expression starts with frame 0 and peaks at ``apex``.

        Parameters
        ----------
        frames, apex : int
            Number of frames, at least 3, and the position of the apex between the others.
        seed : int
            Chooses the motion.
        shift, rotation, scale, brightness, flicker : float
            Largest deviation within the clip: of the head's position in pixels, of its
            rotation in degrees and of its scale, and of the illumination's drift in gray levels
            and of its gain. Frame 0 deviates by 0.
        """
        if frames < _FEWEST_FRAMES:
            raise ValueError(f"frames must be at least {_FEWEST_FRAMES}, got {frames}")
        if not 0 < apex < frames - 1:
            raise ValueError(f"apex must lie between 0 and {frames - 1} (frames - 1), got {apex}")
        rng = np.random.default_rng([seed, 4])
        path = np.stack([_wander(frames, rng), _wander(frames, rng)], axis=1)
        path *= shift / max(float(np.hypot(*path.T).max()), _TINY)
        return cls(
            shift=path,
            rotation=_swing(frames, rng, rotation),
            scale=1.0 + _swing(frames, rng, scale),
            intensity=rise_and_fall(frames, apex, rest=rng.uniform(0.0, 0.1)),
            gain=1.0 + _swing(frames, rng, flicker),
            drift=_swing(frames, rng, brightness),
        )


def rise_and_fall(frames: int, apex: int, *, rest: float = 0.0) -> Curve:
    """Return the expression's strength: 0 at frame 0, 1 at the apex, ``rest`` at the end."""
    up = 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, apex + 1))
    down = 0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, frames - apex))
    return np.concatenate([up, rest + (1.0 - rest) * down[1:]])


def _swing(frames: int, rng: np.random.Generator, largest: float) -> Curve:
    """Return a smooth random curve from 0 whose largest deviation is given."""
    curve = _wander(frames, rng)
    return curve * (largest / max(float(np.abs(curve).max()), _TINY))


def _wander(frames: int, rng: np.random.Generator) -> Curve:
    """Return a smooth random curve that starts at 0: slow waves, the slower the larger."""
    time = np.linspace(0.0, 1.0, frames)
    curve = np.zeros(frames)
    for cycles in (0.35, 0.9, 2.1):
        phase, size = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.5, 1.0) / (1.0 + cycles)
        curve += size * np.sin(2 * np.pi * cycles * time + phase)
    return curve - curve[0]


_FEWEST_FRAMES = 3  # onset, apex, offset
_TINY = 1e-12
