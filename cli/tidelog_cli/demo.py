"""`tidelog demo`: a shop's database, the real template on a local AWS, and two ticks with business in between."""

from __future__ import annotations

import gzip
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer
from pg8000.native import Connection

from tidelog_cli.local import deployed, run_tick
from tidelog_cli.output import console, show_tick
from tidelog_cli.ticks import TickResult
from tidelog_sandbox import shop
from tidelog_sandbox.postgres import Postgres

_DATABASE = "totesys"


def demo(
    lake: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the demo's lake. It is emptied first.")
    ] = Path(".tidelog/demo"),
) -> None:
    """Ingest a shop's database on this machine: everything at first, then only what changed."""
    screen = console()
    started = time.monotonic()
    _empty(lake)
    with Postgres(settings={"fsync": "off"}) as server:
        screen.print("PostgreSQL is up; opening the Totesys shop …")
        address = server.create_database(_DATABASE)
        connection = Connection(
            "postgres",
            host="127.0.0.1",
            port=server.port,
            database=_DATABASE,
            password=server.password,
            ssl_context=False,
        )
        shop.create(connection)
        screen.print("Deploying template.yaml on this machine: Lambda, SQS, S3, Parameter Store …")
        with deployed(address, lake, None, None) as sandbox:
            screen.print("\n[bold]Tick 1[/bold]: everything is new")
            first = run_tick(sandbox, "tick 1")
            show_tick(screen, first)
            changed = shop.do_business(connection, seed=1)
            words = ", ".join(f"{rows} in {table}" for table, rows in changed.items())
            screen.print(f"\nThe shop does business. Rows written: {words}")
            screen.print("\n[bold]Tick 2[/bold]: only what changed")
            second = run_tick(sandbox, "tick 2")
            show_tick(screen, second)
        connection.close()
    if not (first.complete and second.complete):
        raise typer.Exit(1)
    _show_lake(lake, second)
    screen.print(f"\nDone in {time.monotonic() - started:.0f} s.")


def _show_lake(lake: Path, tick: TickResult) -> None:
    screen = console()
    largest = max((table for table in tick.tables if table.segment), key=lambda table: table.rows)
    path = lake / str(largest.segment)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        line = next(lines).rstrip("\n")
    screen.print(f"\nThe first line of {path}:\n{line}", markup=False)
    screen.print("\nTry next:")
    for command in (
        f"find {lake} -name '*.jsonl.gz' | sort",
        f"zcat {path} | head -3",
        f"cat {lake}/ledger/{largest.table}/000000000002.json",
        ".venv/bin/tidelog local run --database postgresql://user@host:5432/yours --lake mylake",
    ):
        screen.print(f"  {command}", markup=False)


def _empty(lake: Path) -> None:
    """Empty the demo's folder, but nothing that is not a lake."""
    if lake.exists() and {entry.name for entry in lake.iterdir()} - {"data", "ledger", "schema", ".tidelog"}:
        raise typer.BadParameter(f"{lake} holds other files than a lake's: name another folder", param_hint="--lake")
    shutil.rmtree(lake, ignore_errors=True)
