"""``apexflow audit``: one subcommand for each data set that there is a reader for."""

from __future__ import annotations

import sys
from typing import Any

import click

from apexflow.cli import Group, completion
from apexflow.cli.process import reader_parameters
from apexflow.datasets import AUDITED, Reader


@click.group(cls=Group)
def audit() -> None:
    """List what is wrong with a data set, before any work.

    Findings are grouped by rule, with examples and what mends them; --json lists every one.
    Exit status: 0 clean, 1 findings, 2 cannot run; notes leave a data set clean.
    """


def _audit_parameters() -> list[click.Parameter]:
    return [
        click.Option(
            ["--deep"],
            is_flag=True,
            help="Decode every frame; without, more than 64 MiB are judged by their headers.",
        ),
        click.Option(
            ["--recipe"],
            metavar="NAME|FILE",
            shell_complete=completion.recipes,
            help="Also list the clips that this recipe cannot use.",
        ),
        click.Option(
            ["--write-corrections"],
            metavar="FILE",
            type=click.Path(),
            help="Write the corrections that are proposed to a new CSV or TOML file: confirm "
            "them, then give it as --corrections.",
        ),
        click.Option(["--json", "form"], flag_value="json", help="Print one JSON object."),
        click.Option(["--csv", "form"], flag_value="csv", help="Print one finding a row."),
    ]


def _command(reader: Reader) -> click.Command:
    def run(**values: Any) -> None:
        from apexflow.engine.audit import audit as run_audit

        form, target = values.pop("form"), values.pop("write_corrections")
        given = {name: value for name, value in values.items() if value is not None}
        report = run_audit(reader.name, **given)
        forms = {"json": report.to_json, "csv": report.to_csv}
        click.echo(forms.get(form, report.__str__)().rstrip("\n"))
        if target is not None:
            from apexflow.datasets.corrections import write_corrections

            count = write_corrections(target, report.corrections)
            click.echo(
                f"{count} corrections in {target}: confirm each, delete the others", err=True
            )
        sys.exit(report.exit_status)

    return click.Command(
        reader.name,
        callback=run,
        params=[*reader_parameters(reader), *_audit_parameters()],
        # \b keeps click from filling the lines of the layout.
        help=f"{reader.title}: list what is wrong with it.\n\n\b\n{reader.layout}",
        short_help=reader.title,
    )


for _reader in AUDITED.values():
    audit.add_command(_command(_reader))
