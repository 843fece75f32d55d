"""Figures of a training: the confusion matrix, and the curves of all folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def draw_confusion(
    path: Path, confusion: NDArray[np.int64], classes: Sequence[str], title: str
) -> None:
    """Draw a confusion matrix as PNG: shades are parts of each true class, numbers are clips."""
    from matplotlib.figure import Figure

    parts = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = 2.5 + 0.7 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes))
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.set_xticks(ticks, classes, rotation=30, ha="right")
    axes.set_yticks(ticks, classes)
    for row in ticks:
        for column in ticks:
            color = "white" if parts[row, column] > 0.5 else "black"
            text = f"{confusion[row, column]}\n{100 * parts[row, column]:.0f}%"
            axes.text(column, row, text, ha="center", va="center", color=color)
    figure.colorbar(shades, label="part of the true class")
    figure.savefig(path, dpi=120)


def draw_curves(path: Path, folds: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draw each fold's curves thin and their mean thick, as PNG: losses, UAR on validation."""
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
    figure.savefig(path, dpi=120)


def _mean(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over the folds that got as far, epoch by epoch."""
    longest = max(len(curve) for curve in curves)
    padded = np.full((len(curves), longest), np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    return np.asarray(np.nanmean(padded, axis=0))
