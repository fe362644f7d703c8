"""`tidelog tables`: each table of a stack, how it is read, and up to when it is complete; or a database, looked at."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from tidelog.errors import TidelogError
from tidelog.parameters import Parameters, Summary
from tidelog.selection import Selection
from tidelog.state import Lack
from tidelog.tables import TableName
from tidelog_cli.address import AnyDatabase, ChunkMegabytes, ConfigFile, Exclude, Tables, TimeBoundMegabytes
from tidelog_cli.output import console, duration, fitted, live_spinner, moment
from tidelog_cli.place import AnyStack
from tidelog_cli.stack import Stack

_NOT_YET: dict[Lack | None, str] = {
    None: "",
    "cancelled": "a plan was cancelled: backfill --all",
    "under way": "a large read is under way",
    "hidden": "the next sweep is done",
    "above": "the next run",
}


def tables(
    context: typer.Context,
    stack: AnyStack = None,
    database: AnyDatabase = None,
    include: Tables = None,
    exclude: Exclude = None,
    *,
    config: ConfigFile = None,
    time_bound_megabytes: TimeBoundMegabytes = 64,
    chunk_megabytes: ChunkMegabytes = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the tables: of a stack, how each is read and why so, and up to when it is complete; who holds the horizon.

    Of a database, what would be ingested and how, what not and why: before anything is deployed. Only its catalog is
    read. Exit status 1 if a table that is to be ingested can't be. Times are UTC.
    """
    given = {name for name in ("stack", "database") if _is_given(context, name)}
    if given == {"stack", "database"}:
        raise typer.BadParameter("name a stack or a database, not both", param_hint="--stack, --database")
    if database and "stack" not in given:
        from tidelog_cli.preview import preview  # noqa: PLC0415 - it takes a database's driver

        wanted = Selection(tuple(include or ["*"]), tuple(exclude or []))
        if not preview(
            database, wanted, config, as_json=as_json, time_bound=time_bound_megabytes, chunk=chunk_megabytes
        ):
            raise typer.Exit(1)
    elif stack:
        options = {"include": "--tables", "exclude": "--exclude", "config": "--config"}
        options |= {"time_bound_megabytes": "--time-bound-megabytes", "chunk_megabytes": "--chunk-megabytes"}
        if wrong := [option for name, option in options.items() if _is_given(context, name)]:
            raise typer.BadParameter("it goes with --database: a stack has its own", param_hint=", ".join(wrong))
        _of_stack(stack, as_json=as_json)
    else:
        said = "name a stack with --stack, or a database with --database to see what would be ingested"
        raise typer.BadParameter(said, param_hint="--stack")


def _is_given(context: typer.Context, name: str) -> bool:
    """Say whether an option stands on the command line itself: it counts before the variables of the other one."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _of_stack(stack: str, *, as_json: bool) -> None:
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
        screen = console()
        screen.print(fitted(headings, rows, left=headings, screen=screen, prose="how it is read"))
    if horizon and horizon["seconds"] and not as_json:  # A busy database always has some that has just begun.
        console().print(
            f"A transaction holds the horizon, for {duration(horizon['seconds'])} as ticks have seen it: "
            f"{horizon['holder']}. Rows of others come in all the same. {horizon['remedy']}",
        )
    if unknown:
        console(err=True).print(f"Who holds the horizon is not known: {unknown}", style="yellow")


def _horizon(stack: Stack) -> tuple[dict[str, Any] | None, str]:
    """Return who holds the horizon, and why that is not known; what is known of the tables is shown all the same."""
    try:
        with live_spinner("asking who holds the horizon"):
            return stack.horizon(), ""
    except TidelogError as error:
        return None, str(error)


def _row(table: TableName, summary: Summary) -> tuple[str, ...]:
    if not _read_at(summary):
        return (str(table), "", "not read yet")
    how = summary.strategy or "it has no rows yet"
    return (str(table), moment(_complete(summary)) or _NOT_YET[summary.lacks], how)


def _complete(summary: Summary) -> str | None:
    return summary.complete_at if summary.lacks else _read_at(summary)


def _read_at(summary: Summary) -> str | None:
    return summary.checked_at if summary.offset or summary.is_empty else None  # Since then it is awaited.


def _as_json(table: TableName, summary: Summary) -> dict[str, Any]:
    return {
        "table": str(table),
        "sequential_id": summary.sequential_id,
        "timestamp": summary.timestamp,
        "timeline": summary.timeline,
        "checked_at": _read_at(summary),
        "complete_at": _complete(summary),
        "lacks": summary.lacks,
        "strategy": summary.strategy,
    }
