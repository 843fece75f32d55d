"""Results as Markdown tables that are readable as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def as_text(results: dict[str, Any]) -> str:
    """Return the results of `run` as text.

    Parameters
    ----------
    results : dict

    Returns
    -------
    str
    """
    machine, versions = results["machine"], results["versions"]
    names = ", ".join(f"{name} {number}" for name, number in versions.items())
    return "\n\n".join(
        [
            "# The CPU kernels beside OpenCV and scikit-image",
            "`apexflow bench` or `python benchmarks/kernels.py` prints these tables again.",
            f"One pinned core of {machine['cpu']} ({machine['cores']} cores, "
            f"{machine['system']}); {names}. Median ms for each frame, pair or map; a clip's "
            "preparation is shared out over its frames.",
            _speed(results["speed"]),
            "Throughput of batches in one thread on one core and in two threads on two:",
            _threads(results["threads"]),
            "Mean end-point error against the true flow, in px; the last column is the error of "
            "no flow at all:",
            _accuracy(results["accuracy"]),
        ]
    )


def _speed(rows: Sequence[dict[str, Any]]) -> str:
    head = ("kernel", "size", "apexflow", "OpenCV", "ratio", "scikit-image", "difference")
    return as_table(
        head,
        [
            (
                row["kernel"],
                row["size"],
                f"{row['ours_ms']:.3f}",
                f"{row['reference_ms']:.3f}",
                f"{row['ratio']:.1f}",
                f"{other:.1f}" if (other := row["others_ms"].get("scikit-image")) else "",
                f"{row['difference']:.1g} {row['unit']}",
            )
            for row in rows
        ],
    )


def _threads(rows: Sequence[dict[str, Any]]) -> str:
    head = ("kernel", "one thread, s", "two threads, s", "speed-up", "cores")
    return as_table(
        head,
        [
            (
                row["kernel"],
                f"{row['one_s']:.3f}",
                f"{row['two_s']:.3f}",
                f"{row['speedup']:.2f}",
                str(row["cores"]),
            )
            for row in rows
        ],
    )


def _accuracy(rows: Sequence[dict[str, Any]]) -> str:
    head = ("images", "method", "apexflow", "OpenCV", "no flow")
    return as_table(
        head,
        [
            (
                row["images"],
                row["method"],
                *(f"{row[key]:.4f}" for key in ("ours_px", "opencv_px", "still_px")),
            )
            for row in rows
        ],
    )


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are as wide as their widest cell."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
