"""``apexflow process``: one subcommand for each data set that there is a reader for."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from apexflow.cli import EXIT_SOME_FAILED, Group, completion
from apexflow.datasets import READERS, Reader


@click.group(cls=Group)
def process() -> None:
    """Process a data set into a store: aligned faces, flow, maps.

    `apexflow process NAME --help` says how each data set is expected to lie on disk. Running
    the same command again goes on where the last run ended.
    """


def reader_parameters(reader: Reader) -> list[click.Parameter]:
    """Return the arguments and options by which a data set is read."""
    options: list[click.Parameter] = [
        click.Argument(["root"], metavar="ROOT", type=click.Path()),
        click.Option(
            ["--annotations"],
            metavar="FILE",
            type=click.Path(),
            help="The annotation table"
            + (
                f"; without it, {', '.join(reader.annotations)} in ROOT or beside it."
                if reader.annotations
                else "."
            ),
            required=not reader.annotations and reader.needs_annotations,
        ),
    ]
    for option in reader.options:
        kind = click.Choice(option.choices) if option.choices else click.STRING
        options.append(
            click.Option(
                [f"--{option.name.replace('_', '-')}"],
                type=kind,
                default=option.default,
                show_default=option.default is not None,
                help=option.help,
            )
        )
    return options


def _run_parameters() -> list[click.Parameter]:
    return [
        click.Option(
            ["-o", "--output"], metavar="STORE", required=True, help="The Zarr store to fill."
        ),
        click.Option(
            ["--recipe"],
            metavar="NAME|FILE",
            shell_complete=completion.recipes,
            default="default",
            show_default=True,
            help="What to make of each clip: a recipe's name (see 'recipe list') or a TOML file.",
        ),
        click.Option(
            ["--workers"],
            type=click.IntRange(min=0),
            metavar="N",
            help="Clips at a time; the number of cores by default. 0 works in this process.",
        ),
        click.Option(
            ["--gpus"],
            metavar="auto|N",
            default="auto",
            show_default=True,
            help="GPUs to use, each by a worker of its own: all that are there, or N; 0 for none.",
        ),
        click.Option(
            ["--gpu-decode"],
            is_flag=True,
            help="Decode JPEG frames on the GPUs, with nvImageCodec, whose pixels need not be "
            "the CPU's.",
        ),
        click.Option(
            ["--scheduler"],
            metavar="ADDRESS",
            help="Use the workers of a Dask scheduler: tcp://HOST:8786 or its JSON file.",
        ),
        click.Option(
            ["--clip-timeout"],
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            default=1800,
            show_default=True,
            help="End a clip that takes longer, and record it as failed; 0 waits for ever.",
        ),
        click.Option(
            ["--repair"],
            is_flag=True,
            help="First read the whole store; do the clips again whose part is damaged.",
        ),
        click.Option(
            ["--prune"],
            is_flag=True,
            help="Take clips out of the store that the catalog no longer has.",
        ),
        click.Option(
            ["--keep"],
            is_flag=True,
            help="Keep clips on purpose that the catalog no longer has.",
        ),
        click.Option(
            ["--exclude"],
            metavar="FILE",
            type=click.Path(),
            help="Leave out the clips that this file of marks, saved from a report, calls bad.",
        ),
        click.Option(
            ["--dry-run"],
            is_flag=True,
            help="Only say what would be done: clips, frames, bytes, size of the store.",
        ),
        click.Option(["--dashboard"], is_flag=True, help="Serve Dask's dashboard; say where."),
        click.Option(
            ["--performance-report"],
            metavar="FILE",
            help="Write Dask's performance report to this HTML file.",
        ),
        click.Option(
            ["--log-level"],
            type=click.Choice(["debug", "info", "warning", "error", "critical"]),
            default="warning",
            show_default=True,
            help="The least level of messages on standard error, Dask's own from info down.",
        ),
        click.Option(["--quiet"], is_flag=True, help="No progress, only the summary."),
    ]


def _command(reader: Reader) -> click.Command:
    def run(**values: Any) -> None:
        # What follows loads for a second or two; in a log an error stays one line.
        if not values["quiet"] and sys.stderr.isatty():
            click.echo(f"reading {reader.title}", err=True)
        from apexflow.engine.run import SharedFramesError
        from apexflow.engine.run import process as run_process

        names = (option.name for option in reader.options)
        options = {name: values[name] for name in names if values[name] is not None}
        level = _log_to_stderr(values["log_level"])
        catalog = reader.read(values["root"], values["annotations"], **options)
        catalog = catalog.without(values["exclude"])
        if values["dry_run"]:
            from apexflow.engine.run.todo import forecast

            click.echo(forecast(catalog, values["output"], recipe=values["recipe"]))
            return
        try:
            summary = run_process(
                catalog,
                values["output"],
                recipe=values["recipe"],
                workers=values["workers"],
                gpus=values["gpus"],
                gpu_decode=values["gpu_decode"],
                scheduler=values["scheduler"],
                progress=not values["quiet"],
                repair=values["repair"],
                prune=values["prune"],
                keep=values["keep"],
                clip_timeout=values["clip_timeout"],
                dashboard=values["dashboard"],
                performance_report=values["performance_report"],
                dask_level=level if level <= logging.INFO else logging.CRITICAL,
            )
        except SharedFramesError as error:
            click.echo(error.summary)
            raise
        click.echo(summary)
        if summary.failed:
            sys.exit(EXIT_SOME_FAILED)

    # \b keeps click from filling the lines of the layout.
    text = f"{reader.title}: process it into a store.\n\n\b\n{reader.layout}"
    return click.Command(
        reader.name,
        callback=run,
        params=[*reader_parameters(reader), *_run_parameters()],
        help=text,
        short_help=reader.title,
    )


def _log_to_stderr(name: str) -> int:
    level = logging.getLevelNamesMapping()[name.upper()]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("apexflow")
    ours.handlers = [handler]
    ours.setLevel(level)
    return level


for _reader in READERS.values():
    process.add_command(_command(_reader))
