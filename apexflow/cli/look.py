"""``apexflow look``: one page about one video, with nothing to prepare."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source", metavar="VIDEO|FOLDER")
@click.option(
    "-o", "--output", metavar="PAGE", help="Default: the video's or folder's name with .html."
)
@click.option(
    "--blazeface",
    metavar="FILE",
    help="Find the face by this model, face_detection_short_range.tflite, not by MTCNN.",
)
@click.option(
    "--mesh",
    metavar="FILE",
    help="Take eyes, eyebrows and mouth from the 468 points of this model, face_landmark.tflite.",
)
def look(source: str, output: str | None, blazeface: str | None, mesh: str | None) -> None:
    """Look at one video, or one folder of numbered frames: no table, no recipe.

    Writes one self-contained page: the face's box, the aligned face beside the raw frames, what
    moves when in eyes, eyebrows and mouth, intervals that are candidates for an expression, the
    flow of the strongest one, and what is doubtful. Candidates are where to look, no more.
    """
    from apexflow.quality import format_flags
    from apexflow.report.look import write_look

    path = Path(output) if output else Path(f"{Path(source).resolve().stem}.html")
    found = write_look(source, path, blazeface=blazeface, mesh=mesh)
    for line in found.verdicts:
        click.echo(line)
    if found.flags:
        click.echo(f"flags      {format_flags(found.flags)}")
    for i, one in enumerate(found.candidates, 1):
        first, apex, last = (found.numbers[row] for row in (one.onset, one.apex, one.offset))
        head = ", less than the head" if one.is_head else ""
        click.echo(
            f"candidate  {i}: frames {first} to {last}, most at {apex}: {one.region} moves "
            f"{one.motion:.2f} px of the crop{head}"
        )
    click.echo(f"page       {path}")
