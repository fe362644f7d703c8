"""The address of a database and what is taken of it, as an operator says it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, parse_qs, urlsplit, urlunsplit

import typer

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TLS = {"verify-full": "verify-full", "verify-ca": "verify-full", "require": "require", "disable": "disable"}

DATABASE = typer.Option(
    envvar="TIDELOG_DATABASE",
    metavar="URL",
    help="postgresql://user@host:port/db. The password may stand in it (user:password@) or in PGPASSWORD. "
    "Add ?sslmode=verify-full, require or disable; without it the server's certificate is verified, unless the "
    "server is on this machine. &sslrootcert=FILE names the authority that has signed it.",
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


def read_address(database: str) -> tuple[dict[str, object], str]:
    """Return what a database's address says, as its secret would, with the password of the environment, and the TLS.

    Raises:
        typer.BadParameter: its host or port can't be read, it has an option that is none, or names a file that can't be
            read.
        SandboxError: it is no address.
    """
    from tidelog_sandbox.credentials import secret_content  # noqa: PLC0415 - the sandbox takes long to load

    parts = _split(database)
    options = parse_qs(parts.query)
    if unknown := sorted(set(options) - {"sslmode", "sslrootcert"}):
        reason = f"{unknown[0]} is no option of the address: only sslmode and sslrootcert are"
        raise typer.BadParameter(reason, param_hint="--database")
    default = "disable" if parts.hostname in _LOOPBACK and "sslrootcert" not in options else "verify-full"
    mode = options.get("sslmode", [default])[0]
    if mode not in _TLS:
        raise typer.BadParameter(f"sslmode {mode} is not one of {', '.join(_TLS)}", param_hint="--database")
    content = secret_content(urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")))
    if parts.password is None and "PGPASSWORD" in os.environ:
        content["password"] = os.environ["PGPASSWORD"]
    if path := options.get("sslrootcert", [""])[0]:
        try:
            content["ca"] = Path(path).read_text("ascii")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text of certificates (PEM)"
            reason = f"sslrootcert {path} can't be read: {why}"
            raise typer.BadParameter(reason, param_hint="--database") from error
    return content, _TLS[mode]


def _split(database: str) -> SplitResult:
    """Take an address apart. What is wrong with it is not quoted: it may be the end of a password."""
    try:
        parts = urlsplit(database)
        parts.port  # noqa: B018 - it is read only here
    except ValueError as error:
        reason = (
            "its host or port can't be read: a port is a number up to 65535, an IPv6 address stands in brackets, and "
            "/ ? # @ : in a password are written %2F %3F %23 %40 %3A"
        )
        raise typer.BadParameter(reason, param_hint="--database") from error
    return parts
