"""`tidelog demo`: a shop's database, the real template on a local AWS, business, a large table, and failures."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tidelog_cli.local import deployed, run_tick
from tidelog_cli.output import console
from tidelog_cli.ticks import TickResult, show_tick

if TYPE_CHECKING:
    from pg8000.native import Connection

    from tidelog_sandbox.postgres import Postgres

_DATABASE = "totesys"
_ROLE = "tidelog"
_OF_A_LAKE = {"data", "ledger", "schema", "failures", "ticks", ".tidelog"}
_CHUNK = "8"  # MiB
_MINUTE = 1.0
"""Seconds that a minute of a retry's rest, or of an alarm's period, lasts here."""


def demo(
    lake: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the demo's lake. It is emptied first.")
    ] = Path(".tidelog/demo"),
) -> None:
    """Ingest a shop's database on this machine: everything, what changed, a large table, what failures held up."""
    # They take long to load, and --help needs none of them.
    from tidelog_cli import archive  # noqa: PLC0415
    from tidelog_cli.mishap import Mishap  # noqa: PLC0415
    from tidelog_sandbox.postgres import Postgres  # noqa: PLC0415

    screen = console()
    started = time.monotonic()
    _empty(lake)
    with Postgres(settings={"fsync": "off"}) as server:
        screen.print("PostgreSQL is up; opening the Totesys shop …")
        address = _open_shop(server)
        screen.print("Deploying template.yaml on this machine: Lambda, SQS, S3, Parameter Store …")
        with (
            deployed(address, lake, RetrySeconds=f"{_MINUTE:g}", LockSeconds="1", ChunkMegabytes=_CHUNK) as sandbox,
            _connected(server) as owner,
            _connected(server) as migration,
        ):
            sandbox.start_alarms(_MINUTE)
            screen.print("\n[bold]Tick 1[/bold]: everything is new", markup=True)
            first = run_tick(sandbox, "tick 1")
            show_tick(screen, first)
            _do_business(screen, owner, seed=1)
            screen.print("\n[bold]Tick 2[/bold]: only what changed", markup=True)
            second = run_tick(sandbox, "tick 2")
            show_tick(screen, second)
            screen.print(f"\nThe shop takes over an archive: {archive.ROWS:,} rows in one go. And business goes on.")
            archive.import_archive(owner, _ROLE)
            _do_business(screen, owner, seed=2)
            whole = archive.Archive(screen, sandbox, owner).run()
            _do_business(screen, owner, seed=3)
            healed = Mishap(screen, sandbox, owner, migration, role=_ROLE, lake=lake).run()
    if not (first.complete and second.complete and whole and healed):
        raise typer.Exit(1)
    _show_lake(screen, lake, second)
    screen.print(f"\nDone in {time.monotonic() - started:.0f} s.")


def _open_shop(server: Postgres) -> str:
    """Create the shop's database and a role that may only read it; return the role's address."""
    from tidelog_sandbox import shop  # noqa: PLC0415 - as above

    server.create_database(_DATABASE)
    with _connected(server) as owner:
        shop.create(owner)
        owner.run(f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{server.password}'")
        owner.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {_ROLE}")
    return f"postgresql://{_ROLE}:{server.password}@127.0.0.1:{server.port}/{_DATABASE}"


@contextmanager
def _connected(server: Postgres) -> Iterator[Connection]:
    """Lend a connection of the database's owner."""
    from pg8000.native import Connection  # noqa: PLC0415 - as above

    connection = Connection("postgres", "127.0.0.1", _DATABASE, server.port, server.password, ssl_context=False)
    with closing(connection):
        yield connection


def _do_business(screen: Console, owner: Connection, seed: int) -> None:
    from tidelog_sandbox import shop  # noqa: PLC0415 - as above

    changed = shop.do_business(owner, seed=seed)
    words = ", ".join(f"{rows} in {table}" for table, rows in changed.items())
    screen.print(f"\nThe shop does business. Rows written: {words}")


def _show_lake(screen: Console, lake: Path, tick: TickResult) -> None:
    largest = max((table for table in tick.tables if table.segment), key=lambda table: table.rows)
    path = lake / str(largest.segment)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        line = next(lines).rstrip("\n")
    screen.print(f"\nThe first line of {path}:\n{line}")
    screen.print("\nTry next:")
    for command in (
        f"find {lake} -name '*.jsonl.gz' | sort",
        f"zcat {path} | head -3",
        f"cat {lake}/ledger/{largest.table}/000000000002.json",
        f".venv/bin/tidelog latest {largest.table} --lake {lake} --to {largest.table}.parquet",
        ".venv/bin/tidelog local run --database postgresql://user@host:5432/yours --lake mylake",
    ):
        screen.print(f"  {command}")


def _empty(lake: Path) -> None:
    """Empty the demo's folder, but nothing that is not a lake."""
    if lake.exists() and {entry.name for entry in lake.iterdir()} - _OF_A_LAKE:
        raise typer.BadParameter(f"{lake} holds other files than a lake's: name another folder", param_hint="--lake")
    shutil.rmtree(lake, ignore_errors=True)
