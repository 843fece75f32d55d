"""One self-contained page about spotted videos: curves, thresholds, candidates to look at."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.spotting.curves import Curve, MotionCurves, Spot

Image = NDArray[np.uint8]

PLAYER_SIDE = 144
"""Of a candidate's pictures, in pixels."""

PLAYER_FRAMES = 18
MOST_PLAYERS = 80
"""Candidates of a page that can be played, the highest; the others are rows alone."""

_WIDTH, _HEIGHT = 1000, 150  # of a drawn curve
_COLOURS = {"micro": "#d55e00", "macro": "#0072b2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """A candidate's aligned crops: n pictures side by side in one JPEG.

    Attributes
    ----------
    numbers : tuple of int
        The frames.
    sprite : bytes
    """

    numbers: tuple[int, ...]
    sprite: bytes

    @classmethod
    def of(cls, numbers: Sequence[int], crops: Sequence[Image]) -> Player:
        """Pack crops of any size."""
        side = PLAYER_SIDE
        small = [cv2.resize(c, (side, side), interpolation=cv2.INTER_AREA) for c in crops]
        _, data = cv2.imencode(".jpg", np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, 82])
        return cls(numbers=tuple(numbers), sprite=data.tobytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One row of a page: the cells of the table of spots, and its pictures where it has any."""

    row: dict[str, str]
    spot: Spot
    player: Player | None = None

    @property
    def anchor(self) -> str:
        """What links lead to: no two spots of a page have the same."""
        return _anchor(self.row["video"], self.spot)

    @property
    def picture(self) -> str:
        """The pictures as text."""
        return base64.b64encode(self.player.sprite).decode() if self.player else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPart:
    """What a page says of one video."""

    name: str
    fps: float
    motion: MotionCurves
    candidates: tuple[Candidate, ...]

    @property
    def drawings(self) -> list[tuple[str, str]]:
        """Each kind's curve, drawn: (kind, SVG)."""
        return [
            (kind, _drawn(self.name, kind, curve, self.motion, self.fps))
            for kind, curve in self.motion.curves.items()
        ]

    @property
    def summary(self) -> str:
        """How long it is, and what was seen in it."""
        motion = self.motion
        seconds = len(motion.numbers) / motion.rate
        parts = [f"{seconds:.0f} s at {self.fps:g} frames/s"]
        for name, mask in (("blinks", motion.blinks), ("speech", motion.speech)):
            parts.append(f"{name} {100 * mask.mean():.0f}% of the time")
        if motion.lost.any():
            parts.append(f"face lost {100 * motion.lost.mean():.1f}% of the time")
        return ", ".join(parts)


def write_page(path: str | Path, parts: Sequence[VideoPart], *, recipe: str) -> None:
    """Write the page; everything that it shows is inside it.

    A candidate can be played, its frames and emotion changed, or be refused: the page saves
    the changes as a file of corrections, and the table of spots without those refused.

    Raises `ApexflowError` where the file cannot be written.
    """
    from jinja2 import Environment

    source = (resources.files("apexflow.spotting") / "page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    rows = [candidate.row for part in parts for candidate in part.candidates]
    text = template.render(
        parts=parts,
        recipe=recipe,
        side=PLAYER_SIDE,
        count=len(rows),
        players=sum(c.player is not None for part in parts for c in part.candidates),
        # "<" would end the script that holds it.
        rows=json.dumps(rows).replace("<", "\\u003c"),
    )
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ApexflowError(f"cannot write the page {path}: {error.strerror}") from None


def _drawn(video: str, kind: str, curve: Curve, motion: MotionCurves, fps: float) -> str:
    """Return a curve as an SVG: bands where something was spotted, the threshold, the time."""
    count = len(curve.values)
    top = max(float(curve.values.max()), curve.threshold, 1e-9) * 1.05
    first, last = int(motion.numbers[0]), int(motion.numbers[-1])
    wide = max(last - first, 1)

    def x(number: float) -> float:
        return _WIDTH * (number - first) / wide

    bands = "".join(
        f'<a href="#{_anchor(video, spot)}"><rect x="{x(spot.onset):.1f}" y="0" '
        f'width="{max(x(spot.offset) - x(spot.onset), 2):.1f}" height="{_HEIGHT}" '
        f'fill="{_COLOURS[kind]}" fill-opacity=".22"/></a>'
        for spot in motion.spots
        if spot.kind == kind
    )
    # The highest value of each column of the drawing: no peak is lost.
    edges = np.linspace(0, count, min(count, _WIDTH) + 1).astype(int)[:-1]
    highest = np.maximum.reduceat(curve.values, edges)
    points = " ".join(
        f"{x(motion.numbers[at]):.1f},{_HEIGHT * (1 - value / top):.1f}"
        for at, value in zip(edges.tolist(), highest.tolist(), strict=True)
    )
    line = _HEIGHT * (1 - curve.threshold / top)
    seconds = wide / fps
    step = next((s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300) if seconds / s <= 12), 600)
    ticks = "".join(
        f'<text x="{_WIDTH * t * step / seconds:.1f}" y="{_HEIGHT + 14}">{t * step} s</text>'
        for t in range(int(seconds // step) + 1)
    )
    return (
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 22}" role="img" '
        f'aria-label="curve of {kind} expressions">'
        f'{bands}<polyline points="{points}" fill="none" stroke="{_COLOURS[kind]}"/>'
        f'<line x1="0" x2="{_WIDTH}" y1="{line:.1f}" y2="{line:.1f}" class="threshold"/>{ticks}'
        f'<text x="{_WIDTH - 4}" y="{line - 4:.1f}" text-anchor="end">threshold '
        f"{curve.threshold:.2f}</text></svg>"
    )


def _anchor(video: str, spot: Spot) -> str:
    plain = quote(video, safe="").replace("%", "_")
    return f"{plain}-{spot.kind}-{spot.onset}-{spot.offset}"
