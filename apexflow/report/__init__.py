"""A report of a store: one page for the whole data set, and one for each clip beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from apexflow.errors import ApexflowError
from apexflow.failures import group_failures
from apexflow.report import alignment, clip
from apexflow.report.charts import Chart, histogram
from apexflow.report.entries import (
    DONE,
    FAILED,
    TODO,
    Entry,
    flagged_first,
    people_and_classes,
    read_entries,
    spark,
)
from apexflow.report.methods import methods
from apexflow.report.pictures import Figure, jpeg
from apexflow.storage.store import Store

MOST_PAGES = 1000
"""Clips that have a page of their own when nobody says otherwise: half a megabyte each."""

_OURS = re.compile(r"\d{5,}\.(html|jpg)")


def write_report(
    store: Store,
    path: str | Path,
    *,
    root: str | Path | None = None,
    checks: Sequence[tuple[str, str, str]] = (),
    pages: int = MOST_PAGES,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> None:
    """Write ``report.html`` about a store, and ``report_files/`` with what it loads when asked.

    Parameters
    ----------
    store : Store
    path : path
        The HTML file. The folder beside it is called after it; move both together.
    root : path, optional
        The data set's folder: with it, the page shows the crops before alignment and the false
        motion of three ways of alignment.
    checks : sequence of (name, measured, wanted)
        Measurements against known motion, as `apexflow demo` makes them.
    pages : int
        The most clips that have a page of their own, flagged and failed ones first.
    progress : callable
        Called with (clips done, clips) as pictures are made.

    Raises
    ------
    ApexflowError
        The store is damaged, or a file cannot be written.
    """
    path = Path(path)
    files = path.with_name(f"{path.stem}_files")
    entries = read_entries(store)
    try:
        rows = _write_clips(store, entries, files, pages, progress)
        text = _page(store, entries, rows, Path(root) if root else None, checks, files.name)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ApexflowError(f"cannot write the report {path}: {error.strerror}") from None


def _write_clips(
    store: Store,
    entries: Sequence[Entry],
    files: Path,
    pages: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Write each clip's thumbnail and page; return the rows of the table, flagged ones first."""
    folder = files / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if _OURS.fullmatch(old.name):
            old.unlink()
    for name in ("style.css", "clip.js"):
        (files / name).write_text(_source(name), encoding="utf-8")
    with_curves: list[tuple[Entry, tuple[float, ...], dict[str, Any]]] = []
    ordered = flagged_first(entries)
    for place, entry in enumerate(ordered):
        row: dict[str, Any] = {"page": place < pages, "thumb": False}
        pictures = clip.read_pictures(store, entry)
        if entry.status == DONE:
            thumb = clip.thumbnail(store, entry, pictures)
            if thumb is not None:
                (folder / f"{entry.index:05d}.jpg").write_bytes(jpeg(thumb))
                row["thumb"] = True
        if row["page"]:
            text = _clip_page(store, entry, pictures)
            (folder / f"{entry.index:05d}.html").write_text(text, encoding="utf-8")
        with_curves.append((entry, pictures.motion, row))
        progress(place + 1, len(ordered))
    lowest = _percentile((entry.lowest_score for entry in entries), 1, 0.0)
    most = _percentile((max(motion, default=None) for _, motion, _ in with_curves), 99, 1.0)
    return [row | _row(entry, motion, lowest, most) for entry, motion, row in with_curves]


def _row(entry: Entry, motion: Sequence[float], lowest: float, most: float) -> dict[str, Any]:
    scores = () if entry.record is None else entry.record.score
    return {
        "id": f"{entry.index:05d}",
        "key": entry.key,
        "class": entry.class_name,
        "status": entry.status,
        "flags": entry.flags,
        "reason": entry.reason,
        "score": _rounded(entry.lowest_score),
        "shift": _rounded(entry.largest_shift),
        "scores": spark(scores, lowest, 1.0, keep="low"),
        "motion": spark(motion, 0.0, most, keep="high"),
    }


def _page(
    store: Store,
    entries: Sequence[Entry],
    rows: list[dict[str, Any]],
    root: Path | None,
    checks: Sequence[tuple[str, str, str]],
    files: str,
) -> str:
    counts = Counter(entry.status for entry in entries)
    classes, people, sums = people_and_classes(entries)
    done = [entry for entry in entries if entry.status == DONE]
    figures: list[Figure | None] = [alignment.before_and_after(store, done, root)]
    if root is not None:
        figures.append(alignment.false_motion(store, done, root))
    return str(
        _template("page.html").render(
            store=store.name,
            attributes=store.attributes,
            files=files,
            clips=len(entries),
            done=counts[DONE],
            failed=counts[FAILED],
            todo=counts[TODO],
            gone=sum(entry.gone for entry in entries),
            flagged=sum(bool(entry.flags) for entry in entries),
            flags=_flag_counts(entries),
            frames=sum(len(entry.record.frame_numbers) for entry in entries if entry.record),
            charts=_charts(done),
            classes=classes,
            people=people,
            sums=sums,
            methods=methods(store, entries),
            failures=group_failures(
                (entry.name, entry.reason) for entry in entries if entry.status == FAILED
            ),
            thumb_text=clip.thumbnail_text(store),
            paged=sum(row["page"] for row in rows),
            rows=rows,
            checks=checks,
            figures=[figure for figure in figures if figure is not None],
            recipe=_flat(store.attributes["recipe"]),
        )
    )


def _clip_page(store: Store, entry: Entry, pictures: clip.ClipPictures) -> str:
    return str(
        _template("clip.html").render(
            name=entry.name,
            facts=clip.facts(entry),
            player=clip.player(entry, pictures),
            charts=clip.charts(entry, pictures),
            figures=list(clip.figures(store, entry, pictures)),
        )
    )


def _charts(done: Sequence[Entry]) -> list[Chart]:
    scores = [entry.lowest_score for entry in done if entry.lowest_score is not None]
    shifts = [entry.largest_shift for entry in done if entry.largest_shift is not None]
    found = []
    if scores:
        found.append(
            Chart(
                "Lowest score of each clip",
                "Correlation with the template frame, of the frame that looks least like it.",
                "one narrow hump near 1.",
                "a tail or a second hump to the left: heads that turned, hands, faces that were "
                "lost. Sort the clips by score and look at the first.",
                histogram(scores, "lowest score", f"lowest scores of {len(scores)} clips"),
            )
        )
    if shifts:
        found.append(
            Chart(
                "Largest shift of each clip",
                "How far the head goes from where the template frame has it, px of the frame.",
                "a hump of a few pixels: people sit still for a second.",
                "single clips far to the right: the head left its place, or was not followed.",
                histogram(shifts, "largest shift, px", f"largest shifts of {len(shifts)} clips"),
            )
        )
    return found


def _flag_counts(entries: Sequence[Entry]) -> dict[str, int]:
    from apexflow.quality import count_flags

    return count_flags(entry.flags for entry in entries if entry.flags)


def _percentile(values: Iterable[float | None], q: float, otherwise: float) -> float:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.percentile(known, q)) if known else otherwise


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, str(value)))
    return rows


def _source(name: str) -> str:
    return (resources.files("apexflow.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_source),
    )
    return environment.get_template(name)
