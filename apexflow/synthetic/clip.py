"""A clip with known motion: its truth is its description, its frames are rendered from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apexflow.synthetic import sampling
from apexflow.synthetic.expressions import EXPRESSIONS, bumps, eyelids
from apexflow.synthetic.light import Light
from apexflow.synthetic.motion import Motion
from apexflow.synthetic.portrait import Subject, paint
from apexflow.synthetic.sampling import Points

Flow = NDArray[np.float32]
Matrix = NDArray[np.float64]

HEAD = (0.85, 1.3)
"""Radii in face heights: up to the first the head moves rigidly, beyond the second nothing does.

The first holds a face box and the search region around it.
"""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ClipTruth:
    """All that is true of one synthetic clip. Frames are counted from 0 here.

    Attributes
    ----------
    subject : Subject
        Whose face it is.
    motion : Motion
        What moves in each frame.
    expression : str
        A key of `EXPRESSIONS`.
    amplitude : float
        Displacement at the apex in pixels of the frame.
    apex : int
        The frame of the strongest expression. The onset is frame 0, the offset the last.
    noise : float
        Standard deviation of the sensor's noise in gray levels.
    noise_seed : int
        Chooses the noise.
    name : str
        The clip's name, for example "006_1_2".
    first_number : int
        The number of frame 0 in file names and annotations.
    annotated_apex : int or None
        The apex's number as annotated, where that is not the truth.
    light : Light
        How the light changes beside the motion's gain and drift.
    shutter : float
        For which part of the time from frame to frame the shutter is open, 0 to 1: motion
        blur. A frame's truth is that of the middle of its exposure.
    blinks : tuple of int
        The frames in which the eyes are closed. The upper lids fall over them and rise within
        `BLINK` frames; where one covers the eye the truth is undefined, NaN.
    lag : float
        Frames from the first part of the expression to the last: action units out of step. The
        parts follow one another evenly, so that the apex is that of the one in the middle.
    """

    subject: Subject
    motion: Motion
    expression: str
    amplitude: float
    apex: int
    noise: float = 2.0
    noise_seed: int = 0
    name: str = "001_1_1"
    first_number: int = 1
    annotated_apex: int | None = None
    light: Light = field(default_factory=Light)
    shutter: float = 0.0
    blinks: tuple[int, ...] = ()
    lag: float = 0.0

    def __post_init__(self) -> None:
        if self.expression not in EXPRESSIONS:
            raise ValueError(
                f"expression must be one of {sorted(EXPRESSIONS)}, got {self.expression!r}"
            )
        if not 0 <= self.apex < len(self.motion):
            raise ValueError(f"apex must be a frame 0..{len(self.motion) - 1}, got {self.apex}")
        if self.noise < 0:
            raise ValueError(f"noise must not be negative, got {self.noise}")
        if not np.isfinite(self.lag):
            raise ValueError(f"lag must be finite, got {self.lag}")
        if not 0 <= self.shutter <= 1:
            raise ValueError(f"shutter must be from 0 to 1, got {self.shutter}")
        strongest = int(np.abs(self.motion.intensity).argmax())
        steep = max(
            sampling.face_steepness(self._bumps(strongest)),
            *(sampling.head_steepness(_pose(self, frame)) for frame in range(len(self))),
        )
        if steep > sampling.STEEPEST:
            raise ValueError(
                "amplitude, shift, rotation and scale must keep neighbours in place: their "
                f"displacements may differ by {sampling.STEEPEST} pixels a pixel, got {steep:.2f}"
            )

    @classmethod
    def random(
        cls,
        subject: Subject,
        expression: str,
        *,
        seed: int,
        frames: int = 30,
        amplitude: float = 3.0,
        shift: float = 4.0,
        rotation: float = 0.0,
        scale: float = 0.0,
        noise: float = 2.0,
        name: str = "001_1_1",
        first_number: int = 1,
    ) -> ClipTruth:
        """Draw a clip of a subject; the options are those of `Motion.random`."""
        rng = np.random.default_rng([seed, 5])
        apex = min(max(round(frames * rng.uniform(0.35, 0.6)), 1), frames - 2)
        motion = Motion.random(frames, apex, seed=seed, shift=shift, rotation=rotation, scale=scale)
        return cls(
            subject=subject,
            motion=motion,
            expression=expression,
            amplitude=amplitude,
            apex=apex,
            noise=noise,
            noise_seed=int(rng.integers(2**31)),
            name=name,
            first_number=first_number,
        )

    def __len__(self) -> int:
        return len(self.motion)

    @property
    def onset(self) -> int:
        """The frame in which the expression starts: 0."""
        return 0

    @property
    def offset(self) -> int:
        """The last frame."""
        return len(self) - 1

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The face box (x0, y0, x1, y1) in the onset frame, in its pixels."""
        x0, y0, x1, y1 = self.subject.box
        dx, dy = self.motion.shift[0]
        return (x0 + dx, y0 + dy, x1 + dx, y1 + dy)

    def head_matrix(self, frame: int, reference: int = 0) -> Matrix:
        """Return the map (2, 3) by which the head moved from frame ``reference`` to ``frame``."""
        return _compose(_head(self, frame), _invert(_head(self, reference)))

    def shifts(self, reference: int = 0, *, at: tuple[float, float] | None = None) -> Points:
        """Return the head's true translation in each frame against one frame.

        (N, 2) float64, (dx, dy) in pixels of the frame: what template matching with the
        reference frame's face has to find. When the head also turns or grows it depends on the
        place: the point ``at`` (x, y) of the reference frame, by default the middle of the face.
        """
        middle = np.asarray(self.subject.centre) + self.motion.shift[reference]
        point = middle if at is None else np.asarray(at, np.float64)
        matrices = [self.head_matrix(frame, reference) for frame in range(len(self))]
        return np.stack([_apply(matrix, point) - point for matrix in matrices])

    def flow_at(self, points: Points, start: int | None = None, end: int | None = None) -> Points:
        """Return the true displacement (…, 2) of what lies at points (…, 2) of frame ``start``.

        From the onset to the apex unless other frames are named. float64, pixels; NaN where an
        eyelid covers it in frame ``end``.
        """
        start = self.onset if start is None else start
        end = self.apex if end is None else end
        flat = np.ascontiguousarray(points, np.float64).reshape(-1, 2)
        return (self._see(self._trace(flat, start), end) - flat).reshape(np.shape(points))

    def flow(self, start: int | None = None, end: int | None = None) -> Flow:
        """Return the true dense flow (H, W, 2) float32, as `flow_at` at each pixel."""
        return self.flow_at(_grid(self.subject.size), start, end).astype(np.float32)

    def crop_flow(
        self,
        first: Matrix,
        second: Matrix,
        size: tuple[int, int],
        start: int | None = None,
        end: int | None = None,
    ) -> Flow:
        """Return the true flow between two crops, in pixels of the crop.

        Parameters
        ----------
        first, second : (2, 3) float64
            Where the pixels of the crops of frames ``start`` and ``end`` were taken from: the
            map from crop to frame, as `crop_matrix` makes it for a box and a shift.
        size : (int, int)
            Height and width of the crops.
        start, end : int, optional
            Onset and apex by default.

        Returns
        -------
        (height, width, 2) float32
            NaN where an eyelid covers in ``end`` what is seen in ``start``.
        """
        grid = _grid(size)
        seen = _apply(first, grid)
        seen = seen + self.flow_at(seen, start, end)
        return (_apply(_invert(second), seen) - grid).astype(np.float32)

    def expression_at(self, points: Points, frame: int = 0) -> Points:
        """Return how far (…, 2) the apex's expression moves what lies at points of a frame.

        In pixels of the frame, without the head's motion.
        """
        flat = np.ascontiguousarray(points, np.float64).reshape(-1, 2)
        material = self._trace(flat, frame)
        at_rest = (*_pose(self, frame)[:4], 1.0, 0.0, 0.0, 0.0)
        moved = sampling.forward(material, at_rest, self._bumps(self.apex), sampling.NO_LIDS)
        return (moved - material).reshape(np.shape(points))

    def still(
        self,
        first: Matrix | None = None,
        size: tuple[int, int] | None = None,
        *,
        below: float = 0.02,
    ) -> NDArray[np.bool_]:
        """Return the mask of what the expression moves by less than ``below`` pixels.

        Of the whole onset frame, or of its crop by the map ``first`` of a given size. The mask
        covers the head alone: the background does not move with it.
        """
        points = _grid(self.subject.size if size is None else size)
        points = points if first is None else _apply(first, points)
        middle = np.asarray(self.subject.centre) + self.motion.shift[0]
        reach = _LARGEST_STILL * self.subject.face_height
        head = np.hypot(*np.moveaxis(points - middle, -1, 0)) < reach
        return head & (np.hypot(*np.moveaxis(self.expression_at(points), -1, 0)) < below)

    def _see(self, material: Points, frame: int) -> Points:
        place = _pose(self, frame), self._bumps(frame), self._lids(frame)
        return np.asarray(sampling.forward(material, *place))

    def _trace(self, seen: Points, frame: int) -> Points:
        place = _pose(self, frame), self._bumps(frame), self._lids(frame)
        return np.asarray(sampling.inverse(seen, *place))

    def _bumps(self, time: float) -> Points:
        """Return what moves the face at a time, counted in frames."""
        parts = len(EXPRESSIONS[self.expression].parts)
        behind = self.lag * (np.arange(parts) / max(parts - 1, 1) - 0.5)
        times = np.clip(time - behind, 0, len(self) - 1)
        strengths = [float(_at(self.motion.intensity, float(t))) for t in times]
        return bumps(self.subject, self.expression, self.amplitude * np.array(strengths))

    def _lids(self, time: float) -> Points:
        """Return the eyelids at a time; none where they are open."""
        closed = max((_lid(time - frame) for frame in self.blinks), default=0.0)
        return eyelids(self.subject, closed) if closed else sampling.NO_LIDS


_LARGEST_STILL = HEAD[0] - 0.05


def take(
    truth: ClipTruth, frame: int, face: NDArray[np.float32], *, noisy: bool = True
) -> NDArray[np.uint8]:
    """Render one frame of a clip.

    Parameters
    ----------
    truth : ClipTruth
        The clip.
    frame : int
        Which frame, counted from 0.
    face : (channels, …, …) float32
        The subject's painted face, see `paint`.
    noisy : bool
        Whether to add the sensor's noise.

    Returns
    -------
    (height, width) or (height, width, 3) uint8
        Gray or RGB, as the face was painted.
    """
    light = expose(truth, frame, face)
    if truth.light != _EVEN:
        subject = truth.subject
        middle = subject.centre, 0.5 * subject.face_height
        light = truth.light.shine(light, frame, len(truth), *middle)
    key = np.random.SeedSequence([truth.noise_seed, frame]).generate_state(1, np.uint64)[0]
    image: NDArray[np.uint8] = sampling.develop(
        light,
        float(truth.motion.gain[frame]),
        float(truth.motion.drift[frame]),
        truth.noise if noisy else 0.0,
        key,
    )
    return image[:, :, 0] if image.shape[2] == 1 else image


def expose(truth: ClipTruth, frame: int, face: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one frame before illumination, noise and rounding: (channels, H, W) float32."""
    times = [float(frame)]
    if truth.shutter:
        moments = truth.shutter * ((np.arange(_MOMENTS) + 0.5) / _MOMENTS - 0.5)
        times = np.clip(frame + moments, 0, len(truth) - 1).tolist()
    seen = [
        sampling.expose(
            face, _pose(truth, time), truth._bumps(time), truth._lids(time), *truth.subject.size
        )
        for time in times
    ]
    return np.asarray(seen[0]) if len(seen) == 1 else np.mean(seen, axis=0, dtype=np.float32)


_MOMENTS = 5  # of an exposure; the motion between two of them is hundredths of a pixel
_EVEN = Light()

BLINK = 8
"""Frames from where the lids begin to fall to where they are closed: 40 ms at 200 frames/s."""


def _lid(after: float) -> float:
    """Return how far the lids are closed some frames after they are closed most: 1 there."""
    return 0.5 + 0.5 * float(np.cos(np.pi * min(abs(after) / BLINK, 1.0)))


def _at(curve: Points, time: float) -> Points:
    """Return a motion's curve (N, …) at a time counted in frames: between two, in between."""
    frame = int(time)
    part = time - frame
    if not part:
        return np.asarray(curve[frame])
    return np.asarray((1 - part) * curve[frame] + part * curve[frame + 1])


def render(
    truth: ClipTruth,
    frames: Iterable[int] | None = None,
    *,
    noisy: bool = True,
    color: bool = False,
) -> NDArray[np.uint8]:
    """Render the frames of a clip, all of them unless some are named.

    Returns
    -------
    (N, height, width) or (N, height, width, 3) uint8
        Gray, or RGB when ``color`` is asked for.
    """
    face = paint(truth.subject, color=color)
    chosen = range(len(truth)) if frames is None else frames
    return np.stack([take(truth, frame, face, noisy=noisy) for frame in chosen])


def crop_matrix(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    *,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Matrix:
    """Return the map (2, 3) from the pixels of a resized crop to those of its frame.

    The crop shows ``box`` (x0, y0, x1, y1; the far edges are exclusive) moved by ``shift``
    (dx, dy), resized to ``size`` (height, width) each axis by itself. Pixel centres lie at
    whole numbers and edges of the box fall on edges of the crop, as with `cv2.resize`.
    """
    x0, y0, x1, y1 = box
    fx, fy = (x1 - x0) / size[1], (y1 - y0) / size[0]
    return np.array(
        [
            [fx, 0.0, x0 + shift[0] + 0.5 * fx - 0.5],
            [0.0, fy, y0 + shift[1] + 0.5 * fy - 0.5],
        ]
    )


def _pose(truth: ClipTruth, time: float) -> sampling.Pose:
    motion, subject = truth.motion, truth.subject
    (x, y), (dx, dy) = subject.centre, _at(motion.shift, time).tolist()
    inner, outer = (radius * subject.face_height for radius in HEAD)
    angle, scale = np.deg2rad(_at(motion.rotation, time)), float(_at(motion.scale, time))
    cosine, sine = scale * float(np.cos(angle)), scale * float(np.sin(angle))
    return (x, y, inner, outer, cosine, sine, dx, dy)


def _grid(size: tuple[int, int]) -> Points:
    """Pixel centres (x, y) of an image: (H, W, 2) float64."""
    height, width = size
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    return np.stack([x, y], axis=-1)


def _apply(matrix: Matrix, points: Points) -> Points:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def _head(truth: ClipTruth, frame: int) -> Matrix:
    """Return the map (2, 3) from the neutral pose to a frame, on the head."""
    x, y, _, _, cosine, sine, dx, dy = _pose(truth, frame)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, np.array([x + dx, y + dy]) - linear @ [x, y]])


def _compose(second: Matrix, first: Matrix) -> Matrix:
    """Return the map that does ``first``, then ``second``."""
    return np.column_stack([second[:, :2] @ first[:, :2], _apply(second, first[:, 2])])


def _invert(matrix: Matrix) -> Matrix:
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])
