"""`tidelog run`: tables are ingested now, and not at the next tick of the schedule."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tidelog.messages import VERSION
from tidelog_cli.naming import table_name
from tidelog_cli.output import console, counted, fitted, live_spinner, size
from tidelog_cli.stack import Stack, StackName
from tidelog_cli.trying import Tried, Trying


def run(
    stack: StackName,
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="schema.table; a whole tick where none is named.")
    ] = None,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until each table was tried; status 1 if one has failed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ingest now: a tick as the schedule starts it, or the tables that are named.

    The names are checked before anything is sent. With --wait the result of a large read is its plan: see
    tidelog backfill list.
    """
    found = Stack.find(stack)
    names = [str(table_name(table)) for table in tables or ()]
    trying = Trying(found) if wait else None
    with live_spinner("asking the scheduler"):
        sent, refused, request = _some(found, names) if names else _tick(found, wanted=wait)
    tried = trying.follow(sent, request) if trying else []
    if as_json:
        told = {"tables": sent, "refused": refused}
        typer.echo(json.dumps(told | {"tried": [each.as_json() for each in tried]} if wait else told, indent=1))
    elif wait:
        _show(tried)
    else:
        console().print(f"Sent for {counted(len(sent), 'table')}. How far it is: tidelog status --stack {found.name}")
    for left in refused if not as_json else ():
        console(err=True).print(f"refused: {left['table']}: {left['reason']}", style="red")
    if refused or any(each.failed for each in tried):
        raise typer.Exit(1)


def _some(stack: Stack, names: list[str]) -> tuple[list[str], list[dict[str, str]], str]:
    """Have tables ingested; return which, that none was refused, and the id of the request."""
    answer = stack.ask({"version": VERSION, "type": "ingest", "tables": names})
    return answer["tables"], [], answer["request"]


def _tick(stack: Stack, *, wanted: bool) -> tuple[list[str], list[dict[str, str]], str]:
    """Have a tick run; return its tables, those that it refused, and the id of the request if one is wanted."""
    request = uuid.uuid4().hex if wanted else ""
    tick = {"scheduled_time": datetime.now(UTC).isoformat(timespec="microseconds"), "all": True}
    answer = stack.ask(tick | ({"request": request} if request else {}))
    return answer["tables"], answer["refused"], request


def _show(tried: list[Tried]) -> None:
    new = [each for each in tried if each.events and not each.failed]
    if new:
        rows: list[tuple[Any, ...]] = [
            (each.table, f"{each.rows:,}", size(each.bytes), f"{each.sequential_id:,}", each.note) for each in new
        ]
        screen, headings = console(), ("table", "rows", "bytes", "sequential id", "")
        screen.print(fitted(headings, rows, left=("table",), screen=screen))
    if unchanged := [each.table for each in tried if not each.events and not each.failed]:
        console().print(f"unchanged: {', '.join(unchanged)}")
    for each in tried:
        if each.failed:
            console(err=True).print(f"failed: {each.failed}", style="red")
