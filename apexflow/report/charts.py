"""Charts as SVG text: they take the page's colours, print sharply and need no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

_BINS = 30
_WIDTH, _HEIGHT = 480, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 34


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with what it shows and how good differs from bad."""

    title: str
    shows: str
    good: str
    bad: str
    svg: Markup


def histogram(values: Sequence[float], label: str, alt: str) -> Markup:
    """Return how often which value occurs, as an SVG picture.

    Parameters
    ----------
    values : sequence of float
        Finite, at least one.
    label : str
        Of the horizontal axis, with the unit.
    alt : str
        What is seen.
    """
    counts, edges = np.histogram(values, bins=_bins(values))
    most = int(counts.max())
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    bar = width / len(counts)
    bars = "".join(
        f'<rect x="{_LEFT + i * bar:.1f}" y="{_TOP + height * (1 - n / most):.1f}" '
        f'width="{max(bar - 1, 0.5):.1f}" height="{height * n / most:.1f}" class="bar">'
        f"<title>{edges[i]:.3g} to {edges[i + 1]:.3g}: {n}</title></rect>"
        for i, n in enumerate(counts.tolist())
        if n
    )
    ground = _TOP + height
    ticks = "".join(
        f'<text x="{_LEFT + width * t:.0f}" y="{ground + 14}" class="tick" '
        f'text-anchor="{anchor}">{edges[0] + t * (edges[-1] - edges[0]):.3g}</text>'
        for t, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    )
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart" '
        f'aria-label="{escape(alt)}">{bars}'
        f'<path d="M{_LEFT} {ground}H{_WIDTH - _RIGHT}" class="axis"/>{ticks}'
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" class="tick" text-anchor="end">{most}</text>'
        f'<text x="{_LEFT - 6}" y="{ground}" class="tick" text-anchor="end">0</text>'
        f'<text x="{_LEFT + width / 2:.0f}" y="{_HEIGHT - 4}" class="label" '
        f'text-anchor="middle">{escape(label)}</text></svg>'
    )


def curve(
    numbers: Sequence[int], values: Sequence[float], marks: Mapping[str, int], alt: str
) -> Markup:
    """Return a value a frame as an SVG line, with the key frames marked.

    ``numbers`` are the frames', ascending; ``marks`` the key frames' names and numbers. What
    moves along it (`clip.js`) is the line of class "cursor".
    """
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    first, last = numbers[0], max(numbers[-1], numbers[0] + 1)
    low, high = float(min(values)), float(max(values))
    span = (high - low) or 1.0

    def x(number: float) -> float:
        return _LEFT + width * (number - first) / (last - first)

    points = " ".join(
        f"{x(n):.1f},{_TOP + height * (1 - (v - low) / span):.1f}"
        for n, v in zip(numbers, values, strict=True)
    )
    ground = _TOP + height
    lines = "".join(
        f'<path d="M{x(n):.1f} {_TOP}V{ground}" class="key"/><text x="{x(n):.1f}" '
        f'y="{ground + 14}" class="tick" text-anchor="{"end" if n == last else "middle"}">'
        f"{escape(name)}</text>"
        for name, n in marks.items()
        if first <= n <= last
    )
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart" data-first="{first}" '
        f'data-last="{last}" data-left="{_LEFT}" data-width="{width}" aria-label="{escape(alt)}">'
        f'<path d="M{_LEFT} {ground}H{_WIDTH - _RIGHT}" class="axis"/>{lines}'
        f'<polyline points="{points}" class="curve"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" class="tick" text-anchor="end">{high:.3g}</text>'
        f'<text x="{_LEFT - 6}" y="{ground}" class="tick" text-anchor="end">{low:.3g}</text>'
        f'<path d="M0 {_TOP}V{ground}" class="cursor" visibility="hidden"/></svg>'
    )


def _bins(values: Sequence[float]) -> int:
    """Return Sturges' number of bins, for few values fewer."""
    return min(_BINS, 1 + int(np.ceil(np.log2(len(values)))) * 2)
