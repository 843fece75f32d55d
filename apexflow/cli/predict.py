"""``apexflow predict``: what a trained run says of new clips."""

from __future__ import annotations

import click

from apexflow.cli.own_modules import find_in_current_folder


@click.command(short_help="Predict new clips with a trained run.")
@click.argument("run", metavar="RUN")
@click.argument("clips", metavar="STORE|VIDEO...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="Write a CSV with all probabilities.")
@click.option("--onset", type=int, metavar="N", help="Onset frame of the video; its first one.")
@click.option("--apex", type=int, metavar="N", help="Apex frame of the video; else estimated.")
@click.option("--offset", type=int, metavar="N", help="Offset frame of the video; its last one.")
@click.option(
    "--network",
    type=click.Choice(["auto", "folds", "final"]),
    default="auto",
    show_default=True,
    help="For people whom the training does not know: the mean of all folds, or the network "
    "trained on all clips (`train --final`), which auto takes where it is there.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
def predict(
    run: str,
    clips: tuple[str, ...],
    output: str | None,
    onset: int | None,
    apex: int | None,
    offset: int | None,
    network: str,
    device: str,
) -> None:
    """Predict clips with the networks of RUN, the output folder of `apexflow train`.

    A STORE must have been made by the recipe of the training's stores. A VIDEO, a file or a
    folder of numbered images, is processed with that recipe first; its frames are numbered from 0
    in a file, and as they are called in a folder.

    Nobody is predicted by a network that has seen them: clips of people whom the training knows
    go to the network of the fold that tested them. On the training's own clips that gives its
    predictions.csv again.
    """
    from apexflow.new_clips import predict as predict_clips

    find_in_current_folder()
    found = predict_clips(
        run,
        clips,
        onset=onset,
        apex=apex,
        offset=offset,
        network=network,
        device=device,
    )
    if output is None:
        click.echo(found.table())
        return
    found.write(output)
    click.echo(found.summary())
    click.echo(f"predictions in {output}")
