"""One self-contained HTML page about a store: figures, failures, how it was made."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from apexflow.errors import ApexflowError
from apexflow.report import figures, motion
from apexflow.report.figures import Figure
from apexflow.storage.format import FAILED
from apexflow.storage.store import Store


def write_report(
    store: Store,
    path: str | Path,
    *,
    root: str | Path | None = None,
    checks: list[tuple[str, str, str]] | None = None,
) -> None:
    """Write the page for a store.

    Parameters
    ----------
    store : Store
    path : path
        The HTML file; everything that it shows is inside it.
    root : path, optional
        The data set's folder: with it, the page shows the crops before alignment too.
    checks : list of (name, measured, wanted), optional
        Measurements against known motion, as `apexflow demo` makes them.
    """
    from jinja2 import Environment

    source = (resources.files("apexflow.report") / "page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    records = [record for record in store.records() if record is not None]
    text = template.render(
        store=store.name,
        attributes=store.attributes,
        recipe=_flat(store.attributes["recipe"]),
        done=sum(record.done for record in records),
        failed=[record for record in records if record.status == FAILED],
        clips=store.clip_count,
        frames=sum(len(record.frame_numbers) for record in records),
        figures=_figures(store, None if root is None else Path(root)),
        checks=checks or [],
    )
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ApexflowError(f"cannot write the report {path}: {error.strerror}") from None


def _figures(store: Store, root: Path | None) -> list[Figure]:
    clips = list(store.finished())
    if not clips:
        return []
    found: list[Figure] = []
    if store.layout.keep_frames:
        found += figures.alignment(store, clips, root)
        found += [
            figures.first_frames(store, clips),
            figures.key_frames(store, clips),
            figures.animation(store, clips),
        ]
    found += [
        figure
        for figure in (
            None if root is None else motion.alignments(store, clips, root),
            motion.regions(store, clips),
            motion.encodings(store, clips),
        )
        if figure is not None
    ]
    for name in store.layout.maps:
        found.append(figures.maps(store, clips, name))
        if store.layout.keep_frames:
            found.append(figures.triptych(store, clips, name))
    return found


def _flat(values: dict[str, object], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, str(value)))
    return rows
