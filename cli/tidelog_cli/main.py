"""The command `tidelog`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tidelog import __version__
from tidelog.errors import TidelogError
from tidelog_cli import backfill, config, ddl, dead_letters, demo, latest, local, sweep, tables
from tidelog_sandbox.errors import SandboxError

app = typer.Typer(
    help="Every new or changed row of a PostgreSQL database in S3 as JSON Lines, exactly once per row version.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(local.app, name="local")
app.add_typer(backfill.app, name="backfill")
app.add_typer(config.app, name="config")
app.add_typer(dead_letters.app, name="dead-letters")
app.command("sweep")(sweep.sweep)
app.command("ddl")(ddl.ddl)
app.command("latest")(latest.latest)
app.command("tables")(tables.tables)
app.command("demo")(demo.demo)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer passes it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; what goes wrong is one line on stderr and exit status 1."""
    try:
        app()
    except (TidelogError, SandboxError) as error:
        typer.secho(f"tidelog: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
