"""The command line: a thin layer on the public functions, loaded command by command."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from difflib import get_close_matches

import click

from apexflow import __version__
from apexflow.errors import ApexflowError

EXIT_SOME_FAILED = 1
EXIT_CANNOT_RUN = 2
EXIT_INTERRUPTED = 130

# name: (module, function). A command's module loads when it is named, or for --help.
_COMMANDS = {
    "demo": ("apexflow.cli.demo", "demo"),
    "look": ("apexflow.cli.look", "look"),
    "table": ("apexflow.cli.table", "table"),
    "audit": ("apexflow.cli.audit", "audit"),
    "process": ("apexflow.cli.process", "process"),
    "recipe": ("apexflow.cli.recipe", "recipe"),
    "info": ("apexflow.cli.store", "info"),
    "verify": ("apexflow.cli.store", "verify"),
    "export": ("apexflow.cli.store", "export"),
    "report": ("apexflow.cli.store", "report"),
    "compact": ("apexflow.cli.compact", "compact"),
    "features": ("apexflow.cli.features", "features"),
    "import-maps": ("apexflow.cli.import_maps", "import_maps"),
    "train": ("apexflow.cli.train", "train"),
    "predict": ("apexflow.cli.predict", "predict"),
    "compare": ("apexflow.cli.compare", "compare"),
    "spot": ("apexflow.cli.spot", "spot"),
    "spot-score": ("apexflow.cli.spot_score", "spot_score"),
    "bench": ("apexflow.cli.bench", "bench"),
}


class Group(click.Group):
    """A group that answers a misspelt command with the one that is meant.

    click does so itself from 8.4 on, where it knows the commands; 8.2 says nothing.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if like := get_close_matches(args[0], self.list_commands(ctx), n=1):
                told = f"{error.message} Did you mean {like[0]}?"
                raise click.UsageError(told, ctx) from error
            raise


class _LazyGroup(Group):
    """A group that imports a command's module only when the command is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, function = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), function)
        return command


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 all well, 1 some clips failed or damage was found, 2 cannot run.",
)
@click.version_option(__version__, prog_name="apexflow")
def cli() -> None:
    """Turn raw micro-expression data sets into training-ready optical flow.

    Begin with `apexflow demo`: it makes a small data set, runs everything and writes a report,
    with no data, no network and no GPU.
    """


def main() -> None:
    """Run the command line: errors in one line on standard error, and an exit status."""
    # Decoders report damage on their own; a clip's failure says it once, with its name.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    _end_on_signals()
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ApexflowError as error:
        click.echo(f"apexflow: error: {error}", err=True)
        sys.exit(EXIT_CANNOT_RUN)
    except (click.Abort, KeyboardInterrupt):
        click.echo("apexflow: stopped; the same command goes on from here", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has closed it, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_on_signals() -> None:
    """End in order on the first Ctrl-C or SIGTERM, at once on the second."""

    def first(_number: int, _frame: object) -> None:
        for name in _SIGNALS:
            signal.signal(name, second)
        raise KeyboardInterrupt

    def second(_number: int, _frame: object) -> None:
        os._exit(EXIT_INTERRUPTED)  # the workers end as soon as we are gone

    for name in _SIGNALS:
        signal.signal(name, first)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
