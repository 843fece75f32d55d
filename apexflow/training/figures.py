"""Figures of a training: the confusion matrix, and the curves of all folds.

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


def draw_curves(path: Path, folds: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draw each fold's curves thin and their mean thick: losses, UAR on validation.

    ``path`` has no suffix; .png, .pdf and .svg are written.
    """
    from matplotlib.figure import Figure

    titles = {"loss": "loss", "validation_loss": "inner validation loss"}
    titles["validation_uar"] = "inner validation UAR"
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
    return np.asarray(np.nanmean(padded, axis=0))
