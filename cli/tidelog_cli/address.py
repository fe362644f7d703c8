"""The address of a database and what is taken of it, as an operator says it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import typer

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TLS = {"verify-full": "verify-full", "verify-ca": "verify-full", "require": "require", "disable": "disable"}

DATABASE = typer.Option(
    envvar="TIDELOG_DATABASE",
    metavar="URL",
    help="postgresql://user@host:port/db. The password may stand in it (user:password@) or in PGPASSWORD. "
    "Add ?sslmode=verify-full, require or disable; without it the server's certificate is verified, unless the "
    "server is on this machine.",
)
Database = Annotated[str, DATABASE]
AnyDatabase = Annotated[str | None, DATABASE]

Tables = Annotated[
    list[str] | None,
    typer.Option("--tables", help="Pattern of tables to take, such as 'public.*'. May be repeated. Default: all."),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", help="Pattern of tables to leave out. May be repeated.")
]

ChunkMegabytes = Annotated[
    int, typer.Option(min=1, metavar="MB", help="What takes more than this to read is read in chunks, side by side.")
]

TimeBoundMegabytes = Annotated[
    int,
    typer.Option(min=0, metavar="MB", help="From this size on a table with indexed timestamps is read through them."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="The configuration document. What it says wins over the other options.",
    ),
]


def read_address(database: str) -> tuple[str, str]:
    """Return a database's address without options, the password of the environment in it, and the kind of TLS.

    Raises:
        typer.BadParameter: it has an option that is none.
    """
    parts = urlsplit(database)
    options = parse_qs(parts.query)
    if unknown := set(options) - {"sslmode"}:
        raise typer.BadParameter(
            f"{unknown.pop()} is no option of the address: only sslmode is", param_hint="--database"
        )
    default = "disable" if parts.hostname in _LOOPBACK else "verify-full"
    mode = options.get("sslmode", [default])[0]
    if mode not in _TLS:
        raise typer.BadParameter(f"sslmode {mode} is not one of {', '.join(_TLS)}", param_hint="--database")
    where = parts.netloc
    if parts.username and parts.password is None and "PGPASSWORD" in os.environ:
        user, _, host = where.rpartition("@")
        where = f"{user}:{quote(os.environ['PGPASSWORD'], safe='')}@{host}"
    return urlunsplit((parts.scheme, where, parts.path, "", "")), _TLS[mode]
