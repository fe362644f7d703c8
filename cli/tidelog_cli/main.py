"""The command `tidelog`."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Annotated

import typer

from tidelog import __version__
from tidelog.errors import TidelogError
from tidelog_cli.commands import LazyGroup

_INTERRUPTED = 130  # as a shell says of what Ctrl-C has ended


class _Commands(LazyGroup):
    places = {  # noqa: RUF012 - declared as a class variable where it comes from
        "demo": ("tidelog_cli.demo:demo", "See it work on this machine, on a shop's database."),
        "local": ("tidelog_cli.local:app", "Run tidelog on this machine, on a database of your own."),
        "status": ("tidelog_cli.status:status", "How all stands: ticks, queues, the horizon, each table."),
        "history": ("tidelog_cli.history:history", "What happened to a table, and how many rows came when."),
        "tables": ("tidelog_cli.tables:tables", "How each table is read and why so, or would be."),
        "run": ("tidelog_cli.run:run", "Ingest now, all tables or some."),
        "sweep": ("tidelog_cli.sweep:sweep", "Look now for rows that timestamps do not tell of."),
        "backfill": ("tidelog_cli.backfill:app", "Read rows again, and look after large reads under way."),
        "config": ("tidelog_cli.config:app", "The configuration: which tables are taken, and how each is read."),
        "cost": ("tidelog_cli.cost:cost", "Dollars a month, item by item, and what that rests on."),
        "verify": ("tidelog_cli.verify:verify", "Prove that the lake is right: its ledger, its objects, its rows."),
        "rebuild": ("tidelog_cli.rebuild:rebuild", "Parameter Store from the ledgers, where the two differ."),
        "latest": ("tidelog_cli.latest:latest", "A table as it is now in the lake, in one file."),
        "ddl": ("tidelog_cli.ddl:ddl", "Statements with which a query engine reads a table in place."),
        "dead-letters": ("tidelog_cli.dead_letters:app", "What could not be worked off: look at it, send it back."),
    }


app = typer.Typer(
    cls=_Commands,
    help="Every new or changed row of a PostgreSQL database in S3 as JSON Lines, exactly once per row version.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    if isinstance(sys.stdout, io.TextIOWrapper):  # What a terminal has no sign for is spelt out, as stderr does.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except _told() as error:
        _tell(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        _close_quietly()
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        _tell(f"{error.filename or 'write'}: {error.strerror}")
        sys.exit(1)


def _tell(error: str) -> None:
    from tidelog_cli.output import console  # noqa: PLC0415 - it takes a while to load

    console(err=True).print(f"tidelog: {error}", style="red")


def _told() -> tuple[type[Exception], ...]:
    """Return the errors that are told in a line. Those of the sandbox are there only where it was loaded."""
    sandbox = sys.modules.get("tidelog_sandbox.errors")
    return (TidelogError, sandbox.SandboxError) if sandbox else (TidelogError,)


def _close_quietly() -> None:
    """Give what is still to be written to nobody: who reads the output, such as head, has seen enough."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, sys.stdout.fileno())
