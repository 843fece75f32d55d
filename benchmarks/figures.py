"""Draw the figures of docs/motion.md from its own tables, which the other benchmarks printed.

python benchmarks/figures.py                  # docs/images/motion-*.svg
python benchmarks/figures.py --output /tmp    # elsewhere
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

DOCS = Path(__file__).parents[1] / "docs"
# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, VERMILION, GRAY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#777777"
STYLE = {
    "svg.hashsalt": "apexflow",  # the same file from the same numbers
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}

Table = list[dict[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=DOCS / "motion.md")
    parser.add_argument("--output", type=Path, default=DOCS / "images")
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    drawings = {
        "motion-error": (draw_errors, ("errors-even", "errors-drift")),
        "motion-confidence": (draw_confidence, ("confidence",)),
        "motion-apex": (draw_apex, ("apex",)),
    }
    with mpl.rc_context(STYLE):
        for name, (draw, tables) in drawings.items():
            figure = draw(*(read_table(text, table) for table in tables))
            figure.savefig(options.output / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


def read_table(text: str, name: str) -> Table:
    """Return the rows of the table that follows the comment ``<!-- table: name -->``."""
    lines = text.split(f"<!-- table: {name} -->")[1].strip().splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("*", "") for cell in line.strip("|").split("|")])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def draw_errors(even: Table, drift: Table) -> plt.Figure:
    """Draw the error of each method, and its false motion, in even and in drifting light."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True, sharex=True)
    for axis, table, title in zip(
        axes, (even, drift), ("even light", "light that drifts, ±4%"), strict=True
    ):
        methods = [row for row in table if row["method"] != "no flow"]
        (nothing,) = (float(row["epe"]) for row in table if row["method"] == "no flow")
        places = np.arange(len(methods))[::-1]
        for shift, column, colour, label in (
            (0.2, "epe", BLUE, "end-point error"),
            (-0.2, "false", ORANGE, "false motion where nothing moves"),
        ):
            values = [float(row[column]) for row in methods]
            axis.barh(places + shift, values, 0.38, color=colour, label=label)
            for place, value in zip(places, values, strict=True):
                axis.text(value * 1.05, place + shift, f"{value:.3f}", va="center", fontsize=8)
        axis.axvline(nothing, color=GRAY, linestyle="--", label="error of no flow at all")
        axis.set(title=title, xlabel="px of the crop", xscale="log", xlim=(0.012, 5))
        ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.set_yticks(places, [row["method"] for row in methods])
        axis.grid(visible=False, axis="y")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_confidence(table: Table) -> plt.Figure:
    """Draw the true error of each tenth of the pixels over the one that the confidence tells."""
    figure, axis = plt.subplots(figsize=(6, 4.4))
    shown = {
        "even light": BLUE,
        "light that drifts over": VERMILION,
        "small motions": GREEN,
        "noise of 5": ORANGE,
    }
    for name, colour in shown.items():
        (row,) = (row for row in table if row["clips"].startswith(name))
        cells = [re.fullmatch(r"([\d.]+) \(([\d.]+)\)", row[str(n)]) for n in range(1, 11)]
        found, told = np.array([[float(part) / 100 for part in c.groups()] for c in cells if c]).T
        axis.plot(told, found, "o-", color=colour, markersize=4, label=row["clips"])
    ends = np.array([0.008, 0.3])
    axis.plot(ends, ends, color=GRAY, linestyle="--", label="as told")
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2)
    axis.set(xscale="log", yscale="log", xlabel="expected error, px", ylabel="true error (RMS), px")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.legend(fontsize=8)
    return figure


def draw_apex(table: Table) -> plt.Figure:
    """Draw how far the estimated apex lies from the true one."""
    figure, axis = plt.subplots(figsize=(6, 4))
    rates = dict.fromkeys(row["frames/s"] for row in table)
    for rate, colour in zip(rates, (BLUE, GREEN, ORANGE, VERMILION), strict=True):
        rows = [row for row in table if row["frames/s"] == rate]
        _draw_curve(axis, rows, "flow: mean", colour, "-", f"flow, {rate} frames/s")
    means: Table = []
    for peak in dict.fromkeys(row["peak, px"] for row in table):
        middle = [_ms(row["middle"]) for row in table if row["peak, px"] == peak]
        means.append({"peak, px": peak, "middle": f"{np.mean(middle):.0f} ms"})
    _draw_curve(axis, means, "middle", GRAY, "--", "middle of the clip, all rates")
    axis.set(
        xscale="log",
        ylim=(0, None),
        xlabel="length of the strongest vector, px of the crop",
        ylabel="distance from the apex, ms",
    )
    axis.set_xticks([float(row["peak, px"]) for row in means], [row["peak, px"] for row in means])
    axis.minorticks_off()
    axis.legend(fontsize=8)
    return figure


def _draw_curve(axis: Axes, rows: Table, column: str, colour: str, line: str, label: str) -> None:
    peaks = [float(row["peak, px"]) for row in rows]
    axis.plot(peaks, [_ms(row[column]) for row in rows], f"o{line}", color=colour, label=label)


def _ms(cell: str) -> float:
    return float(cell.removesuffix(" ms"))


if __name__ == "__main__":
    main()
