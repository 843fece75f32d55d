"""Commands that look at a store: info, verify, export, report."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from apexflow.cli import EXIT_SOME_FAILED
from apexflow.errors import ApexflowError
from apexflow.quality import say_flagged

if TYPE_CHECKING:
    from apexflow.engine.magnified import StoredMagnifier
    from apexflow.storage.store import Store


@click.command()
@click.argument("store", metavar="STORE")
@click.option("--timings", is_flag=True, help="Seconds spent per stage.")
@click.option(
    "--failures",
    metavar="FILE",
    help="Write the clips that failed, and why, to this CSV file; - prints it.",
)
def info(store: str, timings: bool, failures: str | None) -> None:
    """Say what a store holds: recipe, clips, arrays, failures."""
    from apexflow.storage.store import open_store
    from apexflow.storage.target import disk_errors

    with open_store(store) as opened:
        if failures is not None:
            with disk_errors(f"cannot write {failures}", "make room, or choose another file"):
                _write_failures(opened, failures)
            if failures == "-":
                return
        click.echo("\n".join(_info_lines(opened)))
        if timings:
            click.echo("\n".join(_timing_lines(opened)))


@click.command()
@click.argument("store", metavar="STORE")
def verify(store: str) -> None:
    """Read everything in a store and name what is damaged.

    Exit status 1 when something is.
    """
    from apexflow.storage.checks import verify as find_damage

    damages = find_damage(store)
    for damage in damages:
        click.echo(damage)
    click.echo(f"{len(damages)} damaged" if damages else f"{store} is sound")
    if damages:
        sys.exit(EXIT_SOME_FAILED)


@click.command()
@click.argument("store", metavar="STORE")
@click.option("--maps", metavar="DIR", help="One PNG per clip: sub006_006_1_2.png.")
@click.option("--normalized", metavar="DIR", help="Aligned frames: subject/clip/frame.jpg.")
@click.option("--gif", metavar="DIR", help="One animation per clip: sub006_006_1_2.gif.")
@click.option(
    "--magnified",
    type=click.FloatRange(0, 1000, min_open=True),
    metavar="FACTOR",
    help="Enlarge the motion of what --gif and --normalized write: the papers' alpha, motion "
    "becomes 1 + FACTOR times as large. Animations then show every frame, at 20 frames/s.",
)
@click.option(
    "--magnify-by",
    type=click.Choice(["flow", "eulerian"]),
    default="flow",
    show_default=True,
    help="Warp by the measured flow, or amplify gray levels within the bound of Wu et al. 2012.",
)
@click.option(
    "--band",
    type=click.FloatRange(min=0),
    nargs=2,
    default=(0.0, 10.0),
    metavar="LOW HIGH",
    show_default=True,
    help="Hz: what is slower or faster is not enlarged.",
)
@click.option(
    "--fps",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Frames/s, where the store does not know them.",
)
def export(
    store: str,
    maps: str | None,
    normalized: str | None,
    gif: str | None,
    magnified: float | None,
    magnify_by: Literal["flow", "eulerian"],
    band: tuple[float, float],
    fps: float | None,
) -> None:
    r"""Write a store's contents as plain image files.

    \b
    apexflow export samm.zarr --maps maps
    apexflow export samm.zarr --gif moving --magnified 10
    apexflow export samm.zarr --normalized frames --magnified 10 --magnify-by eulerian

    Magnification is described in docs/magnification.md. Clips in which it cannot do what was
    asked for are named, with the reason; exit status 1 when some are left out.
    """
    from apexflow.storage.export import export_gifs, export_maps, export_normalized
    from apexflow.storage.store import open_store

    if not (maps or normalized or gif):
        raise click.UsageError("say what to write: --maps, --normalized or --gif, with a folder")
    if magnified is not None and not (normalized or gif):
        raise click.UsageError("--magnified FACTOR goes with --gif DIR or --normalized DIR")
    with open_store(store) as opened:
        change = None
        if magnified is not None:
            change = _magnifier(opened, magnify_by, magnified, band, fps)
        if maps:
            click.echo(f"{export_maps(opened, maps)} maps in {maps}")
        if normalized:
            count = export_normalized(opened, normalized, change=change)
            click.echo(f"{count} frames in {normalized}")
        if gif:
            click.echo(f"{export_gifs(opened, gif, change=change)} animations in {gif}")
    if change is not None and change.left_out:
        sys.exit(EXIT_SOME_FAILED)


def _magnifier(
    store: Store,
    method: Literal["flow", "eulerian"],
    alpha: float,
    band: tuple[float, float],
    fps: float | None,
) -> StoredMagnifier:
    from apexflow.engine.magnified import StoredMagnifier
    from apexflow.engine.recipe import Magnification

    low, high = band
    if low >= high:
        raise click.UsageError(f"--band: LOW must be below HIGH, not {low:g} and {high:g}")
    wanted = Magnification(method=method, alpha=alpha, low=low, high=high)
    return StoredMagnifier(store, wanted, fps=fps, tell=click.echo)


@click.command()
@click.argument("store", metavar="STORE")
@click.option("-o", "--output", metavar="FILE", help="Default: STORE with .html at its end.")
@click.option(
    "--root",
    metavar="ROOT",
    type=click.Path(exists=True, file_okay=False),
    help="The data set's folder: shows the frames before alignment, and measures false motion.",
)
@click.option(
    "--pages",
    type=click.IntRange(min=0),
    metavar="N",
    help="The most clips that can be opened, flagged and failed ones first; 1000 by default.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
def report(
    store: str, output: str | None, root: str | None, pages: int | None, quiet: bool
) -> None:
    """Write a report of a store: one page, and one for each clip beside it.

    Done, failed and flagged clips; distributions of score and shift; people and classes; a
    methods paragraph for a paper; a table of clips to sort, filter and mark. FILE loads what a
    click opens from the folder FILE_files beside it: move both together.
    """
    from apexflow.cli.progress import counting
    from apexflow.report import MOST_PAGES, write_report
    from apexflow.storage.store import open_store
    from apexflow.storage.target import disk_errors

    path = Path(output) if output else Path(store.rstrip("/")).with_suffix(".html")
    cannot = disk_errors(f"cannot write {path}", "make room, or choose another file (-o)")
    with open_store(store) as opened, cannot, counting("clips", show=not quiet) as progress:
        write_report(
            opened,
            path,
            root=root,
            pages=MOST_PAGES if pages is None else pages,
            progress=progress,
        )
    click.echo(f"report in {path}")


def _classes(store: Store) -> str:
    """Say which classes the clips would have in training, and what would be left out."""
    from apexflow.storage.labels import class_map, stored_clips

    try:
        return str(class_map(stored_clips(store)))
    except ApexflowError as error:
        return str(error)


def _info_lines(store: Store) -> list[str]:
    attributes = store.attributes
    done = frames = 0
    failed, flags = [], []
    devices: Counter[str] = Counter()
    bits: Counter[int] = Counter()
    damaged: set[int] = set()
    magnified: list[Mapping[str, Any]] = []
    for record in store.sound_records(damaged):
        if record is not None:
            magnified += [record.magnification] if record.magnification else []
            done += record.done
            devices[record.device] += record.done
            bits[record.sample_bits] += record.done and record.sample_bits > 8
            frames += len(record.frame_numbers)
            if record.failed:
                failed.append(record)
            elif record.done:
                flags.append((record.key, record.flags))
    state = "complete" if store.complete else "unfinished; the same process command goes on"
    versions = ", ".join(f"{k} {v}" for k, v in attributes.get("versions", {}).items())
    left = store.clip_count - done - len(failed) - len(damaged)
    lines = [
        f"store     {store.name} (format {attributes['format']}, {state})",
        f"data      {', '.join(attributes.get('datasets', []))}",
        f"recipe    {str(attributes.get('recipe_hash', ''))[:12]}",
        f"made with {versions}",
        f"clips     {store.clip_count}: {done} done, {len(failed)} failed, "
        f"{left} to do; {frames} frames",
    ]
    lines.append(f"classes   {_classes(store)}")
    lines.append(f"flagged   {say_flagged(text for _, text in flags)}")
    lines += _magnified_lines(attributes, magnified)
    if damaged:
        lines.append(f"damaged   {len(damaged)} commit records; `apexflow verify` names them")
    # Records of a time before GPUs name no device.
    counts = [f"{name} {count}" for name, count in sorted(devices.items()) if name and count]
    if counts:
        lines.append(f"computed  {', '.join(counts)}")
    if deep := [f"{number} in {count} clips" for number, count in sorted(bits.items()) if count]:
        lines.append(f"bits      {', '.join(deep)}: scaled to 8 by the range that is used")
    lines += _run_lines(attributes)
    lines += _array_lines(store)
    lines += [f"failed    {'/'.join(r.key)}: {r.message}" for r in failed]
    lines += [f"flagged   {'/'.join(key)}: {text}" for key, text in flags if text]
    return lines + _shared_lines(store) + _stranger_lines(store)


def _magnified_lines(
    attributes: Mapping[str, Any], found: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Say how motion was enlarged, and in how many clips the bound allowed less somewhere."""
    if not found:
        return []
    wanted = attributes["recipe"]["magnification"]
    line = f"magnified by {wanted['method']}, alpha {wanted['alpha']:g}"
    attenuated = [
        each for each in found if any(a < wanted["alpha"] for _, a in each.get("levels", ()))
    ]
    if attenuated:
        line += f"; by less at some scales in {len(attenuated)} of {len(found)} clips (bound)"
    return [line]


def _shared_lines(store: Store) -> list[str]:
    """Name the clips that have the frames of another person's clip."""
    names, people = list(map("/".join, store.keys())), store.people()
    return [
        f"shared    {names[row]}: the frames of {names[other]}, under another person "
        f"({people[row]}, {people[other]}); no fold is made of both"
        for row, other in store.shared().items()
    ]


def _run_lines(attributes: Mapping[str, Any]) -> list[str]:
    """Say which runs had other versions than the store was made with."""
    made = attributes.get("versions", {})
    lines = []
    for run in attributes.get("runs", []):
        others = [
            f"{name} {made.get(name, '(none)')} -> {now}"
            for name, now in run.get("versions", {}).items()
            if made.get(name) != now
        ]
        if others:
            lines.append(f"run       {run.get('started')}: {', '.join(others)}")
    return lines


def _array_lines(store: Store) -> list[str]:
    from apexflow.errors import ApexflowError
    from apexflow.storage.format import FRAME_FLOAT_COLUMNS

    lines = []
    columns = (f"frames/{name}" for name in ("frame_number", *FRAME_FLOAT_COLUMNS))
    for path in sorted((*columns, *store.picture_paths())):
        if not store.has_array(path) and path == "frames/quality":
            continue  # stores of earlier versions lack it
        try:
            array = store.array(path)
        except ApexflowError:
            lines.append(f"  {path:20s} damaged")
        else:
            lines.append(f"  {path:20s} {array.dtype!s:10s} {array.shape}")
    return lines


def _stranger_lines(store: Store) -> list[str]:
    """Name the clips that the last run's catalog did not have."""
    lines = []
    for key, standing in zip(store.keys(), store.column("catalog").tolist(), strict=True):
        if standing:
            what = "takes no part" if standing == "gone" else "kept on purpose"
            lines.append(f"{standing:9s} {'/'.join(key)}: no longer in the catalog, {what}")
    return lines


def _write_failures(store: Store, path: str) -> None:
    from apexflow.storage.csv_cells import safe_row

    with click.open_file(path, "w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("dataset", "subject", "clip", "reason"))
        for record in store.iter_records():
            if record is not None and record.failed:
                writer.writerow(safe_row((*record.key, record.message)))


def _timing_lines(store: Store) -> list[str]:
    import numpy as np

    seconds = store.column("timings")
    total = np.nansum(seconds, axis=0)
    clips = max(1, int(np.isfinite(seconds).any(axis=1).sum()))
    return [
        f"  {stage:8s} {spent:9.2f} s  {1000 * spent / clips:8.1f} ms a clip"
        for stage, spent in zip(store.layout.stages, total, strict=True)
    ]
