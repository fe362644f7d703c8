"""`tidelog tables`: each table of a stack, how it is read, and up to when it is complete."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tidelog.errors import TidelogError
from tidelog.parameters import Parameters, Summary
from tidelog.state import Lack
from tidelog.tables import TableName
from tidelog_cli.output import aligned, console, duration, moment
from tidelog_cli.stack import Stack, StackName

_NOT_YET: dict[Lack | None, str] = {
    None: "",
    "cancelled": "a plan was cancelled: backfill --all",
    "under way": "a large read is under way",
    "hidden": "the next sweep is done",
    "above": "the next run",
}


def tables(stack: StackName, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the tables: how each is read and why so, and up to when it is complete. Times are UTC.

    Below them stands who holds the horizon, if a transaction is open. tidelog status has the numbers.
    """
    found = Stack.find(stack)
    parameters = Parameters(found.client("ssm"), found.outputs["ParameterPrefix"])
    known = sorted(parameters.read_all())
    horizon, unknown = _horizon(found)
    if as_json:
        listed = [_as_json(table, summary) for table, summary in known]
        typer.echo(json.dumps({"tables": listed, "horizon": horizon}, indent=1))
    elif not known:
        console().print("No table was ingested yet: the first tick does that.")
    else:
        headings = ("table", "complete up to", "how it is read")
        rows = [_row(table, summary) for table, summary in known]
        console().print(aligned(headings, rows, left=3, prose="how it is read"))
    if horizon and horizon["seconds"] and not as_json:  # A busy database always has some that has just begun.
        console().print(
            f"A transaction holds the horizon, for {duration(horizon['seconds'])} as ticks have seen it: "
            f"{horizon['holder']}. Rows of others come in all the same. {horizon['remedy']}",
            markup=False,
        )
    if unknown:
        console(err=True).print(f"Who holds the horizon is not known: {unknown}", style="yellow", markup=False)


def _horizon(stack: Stack) -> tuple[dict[str, Any] | None, str]:
    """Return who holds the horizon, and why that is not known; what is known of the tables is shown all the same."""
    try:
        return stack.horizon(), ""
    except TidelogError as error:
        return None, str(error)


def _row(table: TableName, summary: Summary) -> tuple[str, ...]:
    if not summary.offset:
        return (str(table), "", "not read yet")
    return (str(table), moment(_complete(summary)) or _NOT_YET[summary.lacks], summary.strategy)


def _complete(summary: Summary) -> str | None:
    return summary.complete_at if summary.lacks else summary.checked_at


def _as_json(table: TableName, summary: Summary) -> dict[str, Any]:
    return {
        "table": str(table),
        "sequential_id": summary.sequential_id,
        "timestamp": summary.timestamp,
        "timeline": summary.timeline,
        "checked_at": summary.checked_at,
        "complete_at": _complete(summary),
        "lacks": summary.lacks,
        "strategy": summary.strategy,
    }
