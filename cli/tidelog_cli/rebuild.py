"""`tidelog rebuild`: Parameter Store is made again from the ledger, where the two differ."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import msgspec
import typer

from tidelog.history import History
from tidelog.parameters import Parameters, Summary
from tidelog.rebuilding import Comparison, Rebuilding
from tidelog.segment import Segments
from tidelog.stores import Bucket
from tidelog.tables import TableName
from tidelog_cli.naming import table_name
from tidelog_cli.output import confirm, console, fitted, live_bar
from tidelog_cli.stack import AT_ONCE, Stack, StackName


def rebuild(
    stack: StackName,
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="schema.table; all tables where none is named.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the summaries in Parameter Store again from the ledgers: those that differ, after you were asked.

    No run needs that: each mends the summary of its own table. Workers may be at work meanwhile.
    """
    found = Stack.find(stack)
    s3, bucket = found.client("s3"), found.outputs["LakeBucket"]
    past, parameters = History(Bucket(s3, bucket)), Parameters(found.client("ssm"), found.outputs["ParameterPrefix"])
    rebuilding = Rebuilding(past, Segments(s3, bucket), parameters)
    names = [table_name(each) for each in tables] if tables else _all(past, parameters)
    with live_bar("comparing") as show, ThreadPoolExecutor(AT_ONCE) as pool:
        compared = []
        for comparison in pool.map(rebuilding.compare, dict.fromkeys(names)):
            compared.append(comparison)
            show(len(compared), len(names), str(comparison.table))
    if tables:
        _check(compared)
    differing = [each for each in compared if each.differs]
    if not as_json:
        _show(differing, len(compared))
    written: list[Comparison] = []
    if differing and not dry_run:
        if not yes:
            confirm(f"Write {len(differing)} of {len(compared)} summaries?")
        written = [rebuilding.write(each.table) for each in differing]
    if as_json:
        typer.echo(json.dumps([_as_json(each, written) for each in compared], indent=1))
    elif written:
        console().print(f"Written: {sum(each.differs for each in written)}")
    elif differing:
        console().print("A dry run: nothing was written.")


def _all(past: History, parameters: Parameters) -> list[TableName]:
    return sorted({*past.tables(), *(table for table, _ in parameters.all_kept())})


def _check(compared: Iterable[Comparison]) -> None:
    """Refuse a name that nothing is known of: it is a typing error."""
    for each in compared:
        if not each.head and each.kept is None:
            reason = f"{each.table} has neither a ledger nor a summary: see tidelog status"
            raise typer.BadParameter(reason, param_hint="TABLE")


def _show(differing: list[Comparison], count: int) -> None:
    screen = console()
    if not differing:
        screen.print(f"Parameter Store says of all {count} tables what their ledgers say.")
        return
    headings = ("table", "parameter says", "ledger says", "why")
    rows = [
        (
            str(each.table),
            _words(each.kept.summary if each.kept else None),
            _words(each.wanted) if each.wanted else "nothing: it is deleted",
            each.reason,
        )
        for each in differing
    ]
    screen.print(fitted(headings, rows, left=headings, screen=screen))


def _words(summary: Summary | None) -> str:
    if summary is None:
        return "nothing that can be read"
    if summary.is_blank:
        return "it is awaited"
    return f"event {summary.offset}, increment {summary.sequential_id}, {summary.timestamp or 'no timestamp'}"


def _as_json(each: Comparison, written: list[Comparison]) -> dict[str, Any]:
    known = each.kept.summary if each.kept else None
    return {
        "table": str(each.table),
        "differs": each.differs,
        "reason": each.reason or None,
        "parameter": msgspec.to_builtins(known),
        "ledger": msgspec.to_builtins(each.wanted),
        "written": any(one.table == each.table and one.differs for one in written),
    }
