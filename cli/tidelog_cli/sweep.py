"""`tidelog sweep`: what timestamps do not tell is looked for now, and not at the next time of the schedule."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tidelog.events import Event
from tidelog.ledger import Ledger
from tidelog.messages import VERSION
from tidelog.tables import TableName
from tidelog_cli.following import Wanted, follow, show_ended
from tidelog_cli.naming import table_name
from tidelog_cli.output import console, counted, live_spinner
from tidelog_cli.stack import Stack, StackName


def sweep(
    stack: StackName,
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="schema.table; all tables where none is named.")
    ] = None,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is done; status 1 if a part of it fails.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read what the timestamps of large tables have hidden: back-dated rows, updates that left them alone, NULLs.

    Nothing that was written is written again. The stack does it by itself on SweepSchedule.
    """
    found = Stack.find(stack)
    request: dict[str, Any] = {"version": VERSION, "type": "sweep"}
    if tables:
        request["tables"] = [str(table_name(table)) for table in tables]
    ledger = found.ledger
    with live_spinner("asking the scheduler"):
        before = {str(table): ledger.head(table) for table in _known(ledger, tables)} if wait else {}
        answers = found.ask(request)["sweeps"]
    sent = [each["table"] for each in answers]
    wanted = [_wanted(each["table"], head, each["request"]) for each in answers if (head := before.get(each["table"]))]
    done = follow(found, wanted)
    if as_json:
        typer.echo(json.dumps({"sweeps": sent, "done": [each.as_json() for each in done]}, indent=1))
    elif wait:
        show_ended(console(), [each for each in done if each.rows or not each.succeeded])
        nothing = sum(each.succeeded and not each.rows for each in done)
        empty = f"; of {len(sent) - len(wanted)} nothing is in the lake yet" if len(wanted) < len(sent) else ""
        if nothing or empty:
            console().print(f"{nothing} of {counted(len(sent), 'table')} had nothing hidden{empty}")
    else:
        console().print(
            f"Sent for {counted(len(sent), 'table')}. How far it is: tidelog backfill list --stack {found.name}; "
            f"up to when a table is complete: tidelog tables --stack {found.name}",
        )
    if not all(each.succeeded for each in done):
        raise typer.Exit(1)


def _known(ledger: Ledger, tables: list[str] | None) -> list[TableName]:
    return [table_name(table) for table in tables] if tables else list(ledger.tables())


def _wanted(table: str, head: Event, request: str) -> Wanted:
    """Return which sweep of a table is followed: the one that is under way, or the one that was asked for."""
    under_way = [plan.number - 1 for plan in head.state.plans if plan.kind == "sweep"]
    return Wanted(table, under_way[0]) if under_way else Wanted(table, head.offset, request)
