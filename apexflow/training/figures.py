"""Figures of a training: what was predicted, and the curves of all folds.

Each is written as PNG to look at, and as PDF and SVG for papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# No dates and no random names: the same results give the same files.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {},
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
}


def draw_confusion(
    path: Path, confusion: NDArray[np.int64], classes: Sequence[str], title: str
) -> None:
    """Draw a confusion matrix: shades and per cent are parts of each true class, numbers clips.

    ``path`` has no suffix; .png, .pdf and .svg are written.
    """
    from matplotlib.figure import Figure

    parts = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = 2.5 + 0.7 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes))
    axes.set(xlabel="predicted class", ylabel="true class")
    # Names are what they are: a dollar in one begins no formula.
    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.set_xticks(ticks, classes, rotation=30, ha="right", parse_math=False)
    axes.set_yticks(ticks, classes, parse_math=False)
    for row in ticks:
        for column in ticks:
            color = "white" if parts[row, column] > 0.5 else "black"
            text = f"{confusion[row, column]}\n{100 * parts[row, column]:.0f}%"
            axes.text(column, row, text, ha="center", va="center", color=color)
    figure.colorbar(shades, label="part of the true class")
    _save(figure, path)


def draw_units(path: Path, f1: NDArray[np.float64], units: Sequence[str], title: str) -> None:
    """Draw the F1 of each action unit as bars, of several seeds their mean and each as a point.

    ``f1`` is (seed, unit), NaN where it is undefined; ``path`` has no suffix.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 0.5 * len(units), 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(units))
    axes.bar(places, _mean(list(f1)), color="C0")
    if len(f1) > 1:
        axes.plot(np.tile(places, len(f1)), f1.ravel(), "k.", markersize=3)
    axes.set(ylabel="F1", ylim=(0, 1))
    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.set_xticks(places, units, rotation=45, ha="right", parse_math=False)
    _save(figure, path)


def draw_positions(path: Path, pairs: NDArray[np.float64], title: str) -> None:
    """Draw predicted over annotated positions of the apex, (n, 2) in 0..1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.8, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.plot(*pairs.T, "C0.", markersize=4, alpha=0.6)
    axes.set(xlabel="annotated apex, from onset to offset", ylabel="predicted apex")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_title(title, fontsize="medium", parse_math=False)
    _save(figure, path)


def draw_curves(path: Path, folds: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draw each fold's curves thin and their mean thick: losses, the score on validation.

    ``path`` has no suffix; .png, .pdf and .svg are written.
    """
    from matplotlib.figure import Figure

    titles = {"loss": "loss", "validation_loss": "inner validation loss"}
    titles["validation_uar"] = "inner validation UAR"
    titles["validation_f1"] = "inner validation mean F1"
    titles["validation_mae"] = "inner validation MAE (part of the clip)"
    there = {name: title for name, title in titles.items() if name in next(iter(folds.values()))}
    figure = Figure(figsize=(3.7 * len(there), 3.5), layout="constrained")
    places = figure.subplots(1, len(there), squeeze=False)[0]
    for axes, (name, title) in zip(places, there.items(), strict=True):
        curves = [np.asarray(curve[name]) for curve in folds.values()]
        for curve in curves:
            axes.plot(np.arange(1, len(curve) + 1), curve, color="0.7", linewidth=0.6)
        mean = _mean(curves)
        axes.plot(np.arange(1, len(mean) + 1), mean, color="C0", linewidth=1.8)
        axes.set(xlabel="epoch", title=title)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for all three
    with rc_context({"svg.hashsalt": "apexflow"}):
        for suffix, metadata in _METADATA.items():
            figure.savefig(path.with_name(f"{path.name}.{suffix}"), dpi=120, metadata=metadata)


def _mean(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over the folds that got as far, epoch by epoch."""
    longest = max(len(curve) for curve in curves)
    padded = np.full((len(curves), longest), np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    known = (~np.isnan(padded)).sum(0)
    return np.nansum(padded, axis=0) / np.where(known, known, 1)
