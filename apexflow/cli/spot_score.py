"""``apexflow spot-score``: spotted intervals against true ones."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from apexflow.cli import EXIT_SOME_FAILED
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from apexflow.spotting import Intervals, Score

_SHOWN_ROWS = 20

# \b keeps click from filling the lines of the list.
_HELP = """\
Score spotted intervals, of one or more tables SPOTS, against those of TRUTH.

A table has the columns video, onset, offset, and as it likes kind (micro or macro), apex,
dataset, emotion. Write micro=FILE or macro=FILE for a table without kinds. TRUTH may be the
workbook of SAMM Long Videos or of CAS(ME)² as it is published. The score is without rows that
cannot be read, and names them; then the exit status is 1.

\b
  apexflow spot-score spots.csv truth.csv
  apexflow spot-score spots.csv SAMMLV_gt.xlsx --json
  apexflow spot-score micro=a.csv macro=b.csv truth.csv --length micro=7:16 --length macro=17:
"""


@click.command("spot-score", help=_HELP, short_help="Score spotted intervals against the truth.")
@click.argument("spots", metavar="[KIND=]SPOTS...", nargs=-1, required=True)
@click.argument("truth", metavar="TRUTH", type=click.Path())
@click.option(
    "--iou",
    type=float,
    default=0.5,
    show_default=True,
    metavar="PART",
    help="The least overlap: frames in both intervals over frames in either.",
)
@click.option(
    "--rule",
    type=click.Choice(["megc2020", "one-to-one"]),
    default="megc2020",
    show_default=True,
    help="Count true intervals that any spotted one overlaps, as published, or pair each with "
    "one of its own.",
)
@click.option(
    "--length",
    "lengths",
    multiple=True,
    metavar="KIND=LEAST:MOST",
    help="First drop spotted intervals of this kind that last fewer or more frames.",
)
@click.option("--videos", is_flag=True, help="Print each video's score, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all parts.")
def spot_score(
    spots: tuple[str, ...],
    truth: str,
    iou: float,
    rule: Literal["megc2020", "one-to-one"],
    lengths: tuple[str, ...],
    videos: bool,
    as_json: bool,
) -> None:
    """Print the table of scores."""
    from apexflow.spotting import Intervals, score

    limits = [_length(text) for text in lengths]
    found = sum((_read(text) for text in spots), Intervals())
    for kind, least, most in limits:
        kept = found.of(kind).lasting(least, most).spans
        found = replace(found, spans=(*(s for s in found if s.kind != kind), *kept))
    result = score(found, truth, iou=iou, rule=rule)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
    else:
        click.echo(_table(result, videos=videos))
        for note in result.notes:
            click.echo(f"note: {note}", err=True)
    if result.left_out:
        sys.exit(EXIT_SOME_FAILED)


def _read(text: str) -> Intervals:
    from apexflow.spotting.intervals import KINDS, read_intervals

    kind, _, path = text.partition("=")
    if kind in KINDS:
        return read_intervals(path, kind=kind)
    return read_intervals(text)


def _length(text: str) -> tuple[str, int, int | None]:
    match = re.fullmatch(r"(micro|macro)=(\d*):(\d*)", text)
    if match is None:
        raise ApexflowError(f"--length must be like micro=7:16 or macro=17:, got {text!r}")
    kind, least, most = match.groups()
    return kind, int(least or 1), int(most) if most else None


def _table(result: Score, *, videos: bool) -> str:
    rows = [("together", result), *result.kinds.items(), *result.datasets.items()]
    rows += list(result.videos.items()) if videos else []
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':{width}}     tp  predicted   true  precision  recall      F1"]
    lines += [
        f"{name:{width}} {one.tp:6d} {one.n_predicted:10d} {one.n_true:6d} "
        f"{one.precision:10.4f} {one.recall:7.4f} {one.f1:7.4f}"
        for name, one in rows
    ]
    if result.strs is not None:
        lines.append(f"analysis F1 {result.analysis_f1:.4f}, STRS {result.strs:.4f}")
    if result.left_out:
        lines.append(f"rows left out of these figures ({len(result.left_out)}):")
        lines += [f"  {row}" for row in result.left_out[:_SHOWN_ROWS]]
        if more := len(result.left_out[_SHOWN_ROWS:]):
            lines.append(f"  … {more} more (--json lists all)")
    return "\n".join(lines)
