"""``apexflow import-maps``: maps or flow that somebody else has made, into a store."""

from __future__ import annotations

import click


@click.command(short_help="Bring maps or flow made elsewhere into a store.")
@click.argument("paths", metavar="[TABLE] FOLDER", nargs=-1, required=True)
@click.option("-o", "--output", metavar="STORE", help="The new store.")
@click.option(
    "--kind", type=click.Choice(["maps", "flow"]), default="maps", show_default=True, help="What."
)
@click.option(
    "--order",
    type=click.Choice(["rgb", "bgr"]),
    default="rgb",
    show_default=True,
    help="Channels as the file names them, or as OpenCV reads them: what the published weights of "
    "STSTNet are for.",
)
@click.option("--name", default="", metavar="NAME", help="What the store calls them.")
@click.option(
    "--dataset", default="imported", show_default=True, metavar="NAME", help="Where no table says."
)
@click.option("--dry-run", is_flag=True, help="Read every file, say what is there, write nothing.")
def import_maps(
    paths: tuple[str, ...],
    output: str | None,
    kind: str,
    order: str,
    name: str,
    dataset: str,
    dry_run: bool,
) -> None:
    """Bring one file a clip below FOLDER into a new store, which `train` takes like any other.

    Maps are images, or .npy of bytes (height, width, 3); flow is .npy of floats in pixels. TABLE
    has the columns subject and clip; also label or emotion, dataset, person, and path. Without it
    files lie in subject/clip.png or subject/label/clip.png. Folders called …_train hold copies of
    other people's clips, as the published maps of STSTNet do, and are left alone.

    Nothing is written unless every file is sound; each that is not is named.
    """
    from apexflow.engine.imports import plan_import, refuse_existing
    from apexflow.errors import ApexflowError

    if len(paths) > 2:
        raise click.UsageError("name a table and a folder, or a folder alone")
    if output is None and not dry_run:
        raise click.UsageError("say where to: -o STORE; or --dry-run")
    if output is not None:
        refuse_existing(output)
    table, folder = paths if len(paths) == 2 else (None, paths[0])
    plan = plan_import(
        table,
        folder,
        kind="flow" if kind == "flow" else "maps",
        order="bgr" if order == "bgr" else "rgb",
        name=name,
        dataset=dataset,
    )
    click.echo(plan)
    if plan.problems:
        for problem in plan.problems:
            click.echo(problem, err=True)
        raise ApexflowError(
            f"{len(plan.problems)} of {len(plan.clips)} files cannot be imported: mend them, or "
            "leave them out of the folder or the table"
        )
    if output is not None and not dry_run:
        plan.write(output)
        click.echo(f"store in {output}")
