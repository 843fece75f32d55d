"""Long videos with known expressions: what spotting is measured against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.synthetic import sampling
from apexflow.synthetic.clip import HEAD
from apexflow.synthetic.expressions import EXPRESSIONS, bumps, lids
from apexflow.synthetic.light import Light
from apexflow.synthetic.motion import Curve
from apexflow.synthetic.portrait import LANDMARKS, Subject, paint

Image = NDArray[np.uint8]

LENGTHS_MS = {"micro": (250.0, 480.0), "macro": (700.0, 1800.0)}
"""From onset to offset. A micro-expression lasts half a second at most (Yan et al. 2013, DOI
10.1007/s10919-013-0159-8)."""

_BLINK_MS = 150.0  # from where the lids begin to fall to where they are open again
_SYLLABLES = 4.0  # a second
_LIGHT_MS = 8000.0  # of the course that `Light` takes over a clip; then it begins again
_NO_BUMPS = np.array([[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]])
_REST_MS = 900.0  # between two expressions, and before the first: at least


@dataclass(frozen=True, slots=True, kw_only=True)
class LongEvent:
    """One true expression of a long video. Frames are counted from 0.

    Attributes
    ----------
    kind : {"micro", "macro"}
    expression : str
        A key of `EXPRESSIONS`.
    onset, apex, offset : int
        The first frame in which it moves, the strongest, and the last.
    amplitude : float
        Displacement at the apex in pixels of the frame.
    """

    kind: Literal["micro", "macro"]
    expression: str
    onset: int
    apex: int
    offset: int
    amplitude: float

    def strength(self, frame: int) -> float:
        """Return 0 outside of the interval, 1 at the apex, smooth in between."""
        if not self.onset < frame < self.offset:
            return 0.0
        side = self.apex - self.onset if frame < self.apex else self.offset - self.apex
        return 0.5 + 0.5 * float(np.cos(np.pi * (frame - self.apex) / max(side, 1)))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LongTruth:
    """All that is true of one long video.

    Attributes
    ----------
    subject : Subject
        Whose face it is.
    fps : float
    events : tuple of LongEvent
        In order; two never overlap.
    shift : (N, 2) float64
        Of the head in each of N frames, in pixels of the frame.
    rotation, scale : (N,) float64
        Of the head: degrees clockwise as seen, and enlargement.
    blinks : tuple of int
        The frames in which the lids are lowest.
    speech : tuple of (int, int)
        The first and last frame of each time that the mouth speaks.
    speech_amplitude : float
        How far the lower lip moves with a syllable, in pixels of the frame.
    light : Light
        Its course over a clip is taken every 8 seconds.
    noise : float
        Standard deviation of the sensor's noise in gray levels.
    beside : Subject or None
        Another, smaller face to the left, which rests: a frame is that much wider.
    name : str
    seed : int
        Chooses noise and syllables.
    """

    subject: Subject
    fps: float
    events: tuple[LongEvent, ...]
    shift: Curve
    rotation: Curve
    scale: Curve
    blinks: tuple[int, ...] = ()
    speech: tuple[tuple[int, int], ...] = ()
    speech_amplitude: float = 2.0
    light: Light = field(default_factory=Light)
    noise: float = 2.0
    beside: Subject | None = None
    name: str = "001_1"
    seed: int = 0

    def __len__(self) -> int:
        return len(self.rotation)

    @property
    def left(self) -> int:
        """Columns of the frame that the other face takes."""
        return self.beside.size[1] if self.beside else 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The face box (x0, y0, x1, y1) in frame 0."""
        x0, y0, x1, y1 = self.subject.box
        dx, dy = self.shift[0]
        return (
            round(x0 + dx) + self.left,
            round(y0 + dy),
            round(x1 + dx) + self.left,
            round(y1 + dy),
        )

    @property
    def landmarks(self) -> NDArray[np.float64]:
        """Eyes, nose and mouth corners in frame 0, (5, 2), left to right as seen."""
        return self.subject.landmarks + self.shift[0] + (self.left, 0)

    @classmethod
    def random(
        cls,
        subject: Subject,
        *,
        seed: int,
        seconds: float = 60.0,
        fps: float = 30.0,
        micro: int = 6,
        macro: int = 3,
        amplitude: float = 1.5,
        shift: float = 4.0,
        rotation: float = 1.0,
        scale: float = 0.01,
        blinks_a_minute: float = 15.0,
        speech: float = 0.0,
        light: Light | None = None,
        noise: float = 2.0,
        beside: Subject | None = None,
        name: str = "001_1",
    ) -> LongTruth:
        """Draw a long video.

        Parameters
        ----------
        subject : Subject
        seed : int
        seconds, fps : float
        micro, macro : int
            How many expressions of each kind; as many as there is time for.
        amplitude : float
            Of every expression, in pixels of the frame.
        shift, rotation, scale : float
            Largest deviation of the head in pixels, degrees and parts. A head takes some
            seconds from one side to the other.
        blinks_a_minute : float
        speech : float
            Part of the time in which the mouth speaks, in pieces of 2 to 4 seconds; never
            during an expression.
        light, noise, beside, name
            As the attributes.
        """
        rng = np.random.default_rng([seed, 20])
        frames = round(seconds * fps)
        events = _draw_events(rng, frames, fps, micro, macro, amplitude)
        path = np.stack([_sway(rng, frames, fps), _sway(rng, frames, fps)], axis=1)
        expected = blinks_a_minute * seconds / 60
        blinks = np.sort(rng.integers(0, frames, rng.poisson(expected))).tolist()
        return cls(
            subject=subject,
            fps=fps,
            events=events,
            shift=shift * path / np.sqrt(2),
            rotation=rotation * _sway(rng, frames, fps),
            scale=1 + scale * _sway(rng, frames, fps),
            blinks=tuple(blinks),
            speech=_draw_speech(rng, frames, fps, speech, events),
            light=light or Light(),
            noise=noise,
            beside=beside,
            name=name,
            seed=seed,
        )

    def frames(self, chosen: Sequence[int] | None = None) -> Iterator[Image]:
        """Render frames, all of them unless some are named: (height, width) uint8 each."""
        face = paint(self.subject)
        other = None
        if self.beside is not None:
            pose = (*self.beside.centre, 1.0, 2.0, 1.0, 0.0, 0.0, 0.0)
            other = sampling.expose(
                paint(self.beside), pose, _NO_BUMPS, sampling.NO_LIDS, *self.beside.size
            )
        for frame in range(len(self)) if chosen is None else chosen:
            yield self._take(frame, face, other)

    def _take(
        self, frame: int, face: NDArray[np.float32], other: NDArray[np.float32] | None
    ) -> Image:
        subject = self.subject
        moved = self._pose(frame), self._bumps(frame), sampling.NO_LIDS
        lit = sampling.expose(face, *moved, *subject.size)
        if other is not None:
            lit = np.concatenate([other, lit], axis=2)
        course = round(_LIGHT_MS * self.fps / 1000)
        middle = subject.centre[0] + self.left, subject.centre[1]
        lit = self.light.shine(lit, frame, course, middle, 0.5 * subject.face_height)
        key = np.random.SeedSequence([self.seed, frame]).generate_state(1, np.uint64)[0]
        image: Image = sampling.develop(lit, 1.0, 0.0, self.noise, key)
        return image[:, :, 0]

    def _pose(self, frame: int) -> sampling.Pose:
        inner, outer = (radius * self.subject.face_height for radius in HEAD)
        (dx, dy), scale = self.shift[frame].tolist(), float(self.scale[frame])
        angle = np.deg2rad(self.rotation[frame])
        turn = scale * float(np.cos(angle)), scale * float(np.sin(angle))
        return (*self.subject.centre, inner, outer, *turn, dx, dy)

    def _bumps(self, frame: int) -> NDArray[np.float64]:
        """Return all that moves the face in a frame."""
        found = [
            bumps(self.subject, event.expression, event.amplitude * event.strength(frame))
            for event in self.events
            if event.onset < frame < event.offset
        ]
        half = _BLINK_MS / 2000 * self.fps
        after = min((abs(frame - blink) / half for blink in self.blinks), default=1.0)
        if after < 1:
            found.append(lids(self.subject, 0.5 + 0.5 * float(np.cos(np.pi * after))))
        found += [
            self._syllables(frame, first, last)
            for first, last in self.speech
            if first <= frame <= last
        ]
        return np.vstack(found) if found else _NO_BUMPS

    def _syllables(self, frame: int, first: int, last: int) -> NDArray[np.float64]:
        """Return the lower lip and the chin, which fall and rise with each syllable."""
        time = (frame - first) / self.fps * _SYLLABLES
        rng = np.random.default_rng([self.seed, 21, first, int(time)])
        part = rng.uniform(0.4, 1.0) * (0.5 - 0.5 * np.cos(2 * np.pi * (time % 1)))
        fade = min(frame - first, last - frame) / (0.15 * self.fps)
        fall = self.speech_amplitude * part * min(fade, 1.0)
        middles = self.subject.locate(np.array([LANDMARKS["lower_lip"], LANDMARKS["chin"]]))
        radii = self.subject.face_height * np.array([[0.22, 0.14], [0.2, 0.12]])
        return np.hstack([middles, radii, np.array([[0.0, fall], [0.0, 0.6 * fall]])])


def _sway(rng: np.random.Generator, frames: int, fps: float) -> Curve:
    """Return a smooth curve of at most 1: waves of 3 to 15 seconds."""
    time = np.arange(frames) / fps
    curve = np.zeros(frames)
    for seconds in (3.3, 6.7, 15.0):
        period, phase = seconds * rng.uniform(0.8, 1.25), rng.uniform(0, 2 * np.pi)
        curve += seconds * np.sin(2 * np.pi * time / period + phase)
    return curve / max(float(np.abs(curve).max()), 1e-12)


def _draw_events(
    rng: np.random.Generator, frames: int, fps: float, micro: int, macro: int, amplitude: float
) -> tuple[LongEvent, ...]:
    kinds: list[Literal["micro", "macro"]] = [*["micro"] * micro, *["macro"] * macro]  # type: ignore[list-item]
    rng.shuffle(kinds)
    lengths = [round(rng.uniform(*LENGTHS_MS[kind]) * fps / 1000) for kind in kinds]
    rest = round(_REST_MS * fps / 1000)
    while kinds and sum(lengths) + rest * (len(lengths) + 1) > frames:
        kinds.pop()
        lengths.pop()
    spare = frames - sum(lengths) - rest * (len(lengths) + 1)
    pauses = np.diff(np.sort(rng.integers(0, spare + 1, len(kinds))), prepend=0)
    events, at = [], 0
    names = sorted(EXPRESSIONS)
    for kind, length, pause in zip(kinds, lengths, pauses.tolist(), strict=True):
        onset = at + rest + pause
        at = offset = onset + length
        apex = onset + round(length * rng.uniform(0.35, 0.6))
        expression = names[int(rng.integers(len(names)))]
        events.append(
            LongEvent(
                kind=kind,
                expression=expression,
                onset=onset,
                apex=apex,
                offset=offset,
                amplitude=amplitude,
            )
        )
    return tuple(events)


def _draw_speech(
    rng: np.random.Generator,
    frames: int,
    fps: float,
    part: float,
    events: Sequence[LongEvent],
) -> tuple[tuple[int, int], ...]:
    """Draw pieces of speech between the expressions, until the part of the time is full."""
    wanted = part * frames
    found: list[tuple[int, int]] = []
    gap = round(0.5 * fps)
    edges = [0, *(n for event in events for n in (event.onset - gap, event.offset + gap)), frames]
    pauses = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 2 * fps]
    rng.shuffle(pauses)
    for start, end in pauses:  # grows by what a piece leaves of its pause
        if sum(last - first for first, last in found) >= wanted:
            break
        length = min(round(rng.uniform(2, 4) * fps), end - start)
        first = int(rng.integers(start, end - length + 1))
        found.append((first, first + length - 1))
        left = (start, first - gap), (first + length + gap, end)
        pauses += [(a, b) for a, b in left if b - a > 2 * fps]
    return tuple(sorted(found))


def write_long_video(path: str | Path, truth: LongTruth) -> Path:
    """Write a long video: MPEG-4 for ``.mp4``, Motion JPEG for ``.avi``.

    Frame sizes must be even for MPEG-4. Raises ValueError for another suffix and OSError when
    OpenCV cannot write the file.
    """
    from apexflow.synthetic.write import open_writer

    path = Path(path)
    height, width = truth.subject.size
    writer = open_writer(path, truth.fps, (width + truth.left, height))
    try:
        for image in truth.frames():
            writer.write(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    finally:
        writer.release()
    return path


def write_long_table(path: str | Path, truths: Sequence[LongTruth]) -> Path:
    """Write the true intervals: video, kind, onset, apex, offset, emotion.

    Frames are counted from 0, as in a video file.
    """
    lines = ["video,kind,onset,apex,offset,emotion"]
    lines += [
        f"{truth.name},{event.kind},{event.onset},{event.apex},{event.offset},{event.expression}"
        for truth in truths
        for event in truth.events
    ]
    path = Path(path)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def without_expressions(truth: LongTruth) -> LongTruth:
    """Return the same video in which nobody shows an expression."""
    return replace(truth, events=())
