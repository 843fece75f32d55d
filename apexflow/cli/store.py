"""Commands that look at a store: info, verify, export, report."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from apexflow.cli import EXIT_SOME_FAILED

if TYPE_CHECKING:
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

    opened = open_store(store)
    if failures is not None:
        with click.open_file(failures, "w", encoding="utf-8") as file:
            _write_failures(opened, file)
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
    from apexflow.storage.store import open_store

    damages = find_damage(open_store(store))
    for damage in damages:
        click.echo(damage)
    click.echo(f"{len(damages)} damaged" if damages else f"{store} is sound")
    if damages:
        sys.exit(EXIT_SOME_FAILED)


@click.command()
@click.argument("store", metavar="STORE")
@click.option("--maps", metavar="DIR", help="One PNG per clip: sub006_006_1_2.png.")
@click.option("--normalized", metavar="DIR", help="Aligned frames: subject/clip/frame.jpg.")
@click.option("--gif", metavar="DIR", help="One animation per clip: onset, apex, offset.")
def export(store: str, maps: str | None, normalized: str | None, gif: str | None) -> None:
    """Write a store's contents as plain image files."""
    from apexflow.storage.export import export_gifs, export_maps, export_normalized
    from apexflow.storage.store import open_store

    if not (maps or normalized or gif):
        raise click.UsageError("say what to write: --maps, --normalized or --gif, with a folder")
    opened = open_store(store)
    if maps:
        click.echo(f"{export_maps(opened, maps)} maps in {maps}")
    if normalized:
        click.echo(f"{export_normalized(opened, normalized)} frames in {normalized}")
    if gif:
        click.echo(f"{export_gifs(opened, gif)} animations in {gif}")


@click.command()
@click.argument("store", metavar="STORE")
@click.option("-o", "--output", metavar="FILE", help="Default: STORE with .html at its end.")
def report(store: str, output: str | None) -> None:
    """Write one self-contained HTML page of figures about a store."""
    from apexflow.report import write_report
    from apexflow.storage.store import open_store

    path = Path(output) if output else Path(store.rstrip("/")).with_suffix(".html")
    write_report(open_store(store), path)
    click.echo(f"report in {path}")


def _info_lines(store: Store) -> list[str]:
    attributes = store.attributes
    done = frames = 0
    failed = []
    devices: Counter[str] = Counter()
    for record in store.iter_records():
        if record is not None:
            done += record.done
            devices[record.device] += record.done
            frames += len(record.frame_numbers)
            if record.failed:
                failed.append(record)
    state = "complete" if store.complete else "unfinished; the same process command goes on"
    versions = ", ".join(f"{k} {v}" for k, v in attributes["versions"].items())
    lines = [
        f"store     {store.name} (format {attributes['format']}, {state})",
        f"data      {', '.join(attributes['datasets'])}",
        f"recipe    {store.recipe_hash[:12]}",
        f"made with {versions}",
        f"clips     {store.clip_count}: {done} done, {len(failed)} failed, "
        f"{store.clip_count - done - len(failed)} to do; {frames} frames",
    ]
    # Records of a time before GPUs name no device.
    counts = [f"{name} {count}" for name, count in sorted(devices.items()) if name and count]
    if counts:
        lines.append(f"computed  {', '.join(counts)}")
    for path, array in sorted(store.group.arrays()):
        lines.append(f"  {path:20s} {array.dtype!s:10s} {array.shape}")
    for name, group in sorted(store.group.groups()):
        if name == "clips":
            continue
        for path, array in sorted(group.arrays()):
            lines.append(f"  {name + '/' + path:20s} {array.dtype!s:10s} {array.shape}")
    lines += [f"failed    {'/'.join(r.key)}: {r.message}" for r in failed]
    return lines


def _write_failures(store: Store, file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("dataset", "subject", "clip", "reason"))
    for record in store.iter_records():
        if record is not None and record.failed:
            writer.writerow((*record.key, record.message))


def _timing_lines(store: Store) -> list[str]:
    import numpy as np

    seconds = store.column("timings")
    total = np.nansum(seconds, axis=0)
    clips = max(1, int(np.isfinite(seconds).any(axis=1).sum()))
    return [
        f"  {stage:8s} {spent:9.2f} s  {1000 * spent / clips:8.1f} ms a clip"
        for stage, spent in zip(store.layout.stages, total, strict=True)
    ]
