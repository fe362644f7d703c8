"""`tidelog backfill`: rows are read again by date or all of them, and large reads under way are looked after."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from tidelog import ranges
from tidelog.messages import VERSION
from tidelog.plans import WINDOWS, ChunksDropped
from tidelog.state import State
from tidelog.tables import TableName
from tidelog_cli import prices
from tidelog_cli.following import Wanted, follow, show_ended
from tidelog_cli.naming import table_name
from tidelog_cli.output import confirm, console, counted, duration, fitted, live_count, live_spinner, size
from tidelog_cli.progress import Progress, plans_under_way
from tidelog_cli.stack import Stack, StackName


class _Backfills(TyperGroup):
    """A group whose first argument may be a table."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take anything that is no command of the group for the begin of a backfill."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Backfills,
    help="Read rows of a table again: tidelog backfill TABLE --from 2024-01-01 --to 2024-02-01. "
    "And look after large reads under way, first snapshots among them.",
    epilog="The options of a backfill itself: tidelog backfill TABLE --help",
    no_args_is_help=True,
)

Tables = Annotated[list[str], typer.Argument(metavar="TABLE", help="schema.table; several may be named.")]
PlanName = Annotated[str, typer.Argument(metavar="PLAN", help="As `list` shows it, such as public.orders/12.")]
Table = Annotated[str | None, typer.Option("--table", metavar="TABLE", help="Only those of one table: schema.table.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_MEMORY, _CONCURRENCY = 512, 2


@app.command("run", hidden=True)
def run(
    tables: Tables,
    stack: StackName,
    *,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Begin of the range. Without a zone it is UTC.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Its end, which does not belong to it.")
    ] = None,
    column: Annotated[
        str, typer.Option(metavar="NAME", help="The timestamp column that the range is about; both: each of them.")
    ] = "both",
    chunk: Annotated[str | None, typer.Option(metavar="LENGTH", help="Read it in pieces of 6h, 1d, 1w, 1mo …")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Read all rows.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is done; status 1 if a part of it fails.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read rows of a table again, those created or updated in a range of dates, or all of them.

    What is written never hides a newer version, and the live table goes on as if nothing was. Everything is checked
    before anything is sent.
    """
    request = _request(tables, since, until, column, chunk, everything=everything)
    found = Stack.find(stack)
    before = offsets(found, request["tables"]) if wait else {}
    rows = ask(found, request, dry_run=dry_run)
    screen = console()
    if not as_json:
        show(screen, rows)
        if dry_run:
            screen.print("A dry run: nothing was sent.")
        elif not wait:
            screen.print(f"Sent. How far it is: tidelog backfill list --stack {found.name}")
    sent = [Wanted(each["table"], before[each["table"]], each["request"]) for each in rows if wait and each["chunks"]]
    done = [] if dry_run else follow(found, sent)
    if as_json:
        typer.echo(json.dumps({"backfills": rows, "done": [each.as_json() for each in done]}, indent=1))
    else:
        show_ended(screen, done)
    if not all(each.succeeded for each in done):
        raise typer.Exit(1)


@app.command("list")
def list_plans(
    stack: StackName, table: Annotated[str | None, typer.Option(metavar="TABLE")] = None, *, as_json: AsJson = False
) -> None:
    """List large reads under way: first snapshots, large increments, backfills, sweeps."""
    found = _under_way(Stack.find(stack), table)
    now = datetime.now(UTC)
    if as_json:
        typer.echo(json.dumps([_as_json(each, now) for each in found], indent=1))
    elif not found:
        console().print("No large read is under way.")
    else:
        headings = ("plan", "reads", "chunks", "bytes", "rows", "left")
        screen, rows, left = console(), [_row(each, now) for each in found], headings[:2]
        screen.print(fitted(headings, rows, left=left, spare=("rows", "bytes"), screen=screen, prose="reads"))


@app.command()
def cancel(
    plan: PlanName,
    stack: StackName,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop the chunks of a plan that are not read yet. What was read stays."""
    found = Stack.find(stack)
    progress = _named(found, plan)
    left = progress.plan.chunks - progress.plan.done_chunks
    if progress.plan.kind in WINDOWS and not yes:
        confirm(
            f"{plan} reads {progress.what} of {progress.table}: the rows of its {counted(left, 'chunk')} will be "
            f"missing in the lake until tidelog backfill {progress.table} --all. Cancel it?"
        )

    def drop(now: State) -> ChunksDropped | None:
        open_plan = now.plan(progress.plan.number)
        if not open_plan:
            return None
        return ChunksDropped(open_plan.number, open_plan.left, "it was cancelled", unread=True)

    _, event = found.ledger.append_if(progress.table, progress.state, drop, finished=0)
    if as_json:
        dropped = left if event else 0
        typer.echo(json.dumps({"plan": progress.name, "cancelled": event is not None, "dropped": dropped}, indent=1))
    else:
        console().print(f"cancelled {plan}: {counted(left, 'chunk')} dropped" if event else f"{plan} is over")


@app.command()
def resume(
    stack: StackName, plan: Annotated[str | None, typer.Argument(metavar="[PLAN]")] = None, *, as_json: AsJson = False
) -> None:
    """Send the messages of unread chunks again, should they be lost: a queue was purged, dead letters were dropped."""
    found = Stack.find(stack)
    sent = {}
    for progress in [_named(found, plan)] if plan else _under_way(found, None):
        sent[progress.name] = send_again(found, progress)
        if not as_json:
            console().print(f"{progress.name}: sent {counted(sent[progress.name], 'chunk')}")
    if as_json:
        typer.echo(json.dumps([{"plan": name, "sent": chunks} for name, chunks in sent.items()], indent=1))
    elif not sent:
        console().print("No large read is under way.")


def send_again(stack: Stack, progress: Progress) -> int:
    """Send the messages of a plan's unread chunks again; return how many. One that is there twice is read once."""
    numbers = list(progress.plan.pending)
    stack.dispatch.send(progress.table, progress.plan.number, numbers, again=uuid.uuid4().hex)
    return len(numbers)


def _request(
    tables: list[str], since: str | None, until: str | None, column: str, chunk: str | None, *, everything: bool
) -> dict[str, Any]:
    """Return what the scheduler is asked.

    Raises:
        typer.BadParameter: an option makes no sense.
    """
    names = list(dict.fromkeys(str(table_name(table)) for table in tables))
    request: dict[str, Any] = {"version": VERSION, "type": "backfill", "tables": names}
    if everything:
        if since or until or chunk or column != "both":
            raise typer.BadParameter("--all leaves no place for a range or a column", param_hint="--all")
        return {**request, "all": True}
    ends = {}
    for option, text in (("--from", since), ("--to", until)):
        if text is None:
            raise typer.BadParameter("name --from and --to, or --all", param_hint=option)
        try:
            ends[option] = ranges.moment(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} {error}", param_hint=option) from error
    try:
        ranges.check_order(ends["--from"], ends["--to"])
    except ValueError as error:
        raise typer.BadParameter(f"{until!r} {error}", param_hint="--to") from error
    if chunk is not None:
        try:
            ranges.steps(ends["--from"], ends["--to"], chunk)
        except ValueError as error:
            raise typer.BadParameter(f"{chunk!r} {error}", param_hint="--chunk") from error
        request["step"] = chunk
    return {**request, "from": ends["--from"], "to": ends["--to"], "column": column}


def ask(stack: Stack, request: Mapping[str, Any], *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Have backfills sent, or only checked; return what each takes."""
    with live_spinner("asking the scheduler what it takes"):
        answer = stack.ask({**request, "dry_run": dry_run})["backfills"]
    return [{**each, **_cost(stack, each)} for each in answer]


def offsets(stack: Stack, tables: Iterable[str]) -> dict[str, int]:
    """Return the offset of the newest event of tables."""
    heads = {table: stack.ledger.head(TableName.parse(table)) for table in tables}
    return {table: head.offset if head else 0 for table, head in heads.items()}


def _cost(stack: Stack, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds and dollars that a backfill takes, roughly."""
    memory = int(stack.parameters.get("WorkerMemory", _MEMORY))
    workers = max(1, min(int(stack.parameters.get("BackfillConcurrency", _CONCURRENCY)), answer["chunks"]))
    work = prices.seconds_of_work(answer["bytes"], answer["chunks"], memory)
    return {
        "seconds": round(work / workers, 1),
        "dollars": round(prices.dollars(answer["bytes"], answer["chunks"], memory), 6),
    }


def show(screen: Console, rows: Iterable[Mapping[str, Any]]) -> None:
    """Print what backfills take."""
    lines = [
        (
            each["table"],
            f"{each['rows']:,}",
            size(each["bytes"]),
            f"{each['chunks']:,}",
            duration(each["seconds"]),
            f"${each['dollars']:.2f}" if each["dollars"] >= 0.01 else "< $0.01",
        )
        for each in rows
    ]
    headings = ("table", "rows, about", "bytes read", "chunks", "takes about", "costs about")
    screen.print(fitted(headings, lines, left=("table",), spare=("chunks", "bytes read"), screen=screen))
    for each in rows:
        screen.print(f"{each['table']}: {each['reason']}")


def _under_way(stack: Stack, table: str | None) -> list[Progress]:
    name = None if table is None else table_name(table, "--table")
    with live_count("looking through the ledgers"):
        return plans_under_way(stack.ledger, name)


def _named(stack: Stack, plan: str) -> Progress:
    """Return the plan of that name."""
    table, _, number = plan.rpartition("/")
    for progress in plans_under_way(stack.ledger, table_name(table, "PLAN")) if number.isdecimal() else ():
        if progress.plan.number == int(number):
            return progress
    raise typer.BadParameter(f"{plan!r} is not under way: see tidelog backfill list", param_hint="PLAN")


def _row(progress: Progress, now: datetime) -> tuple[str, ...]:
    plan, left = progress.plan, progress.seconds_left(now)
    return (
        progress.name,
        progress.what,
        f"{plan.done_chunks:,} of {plan.chunks:,}",
        f"{size(plan.done_bytes)} of {size(plan.bytes)}",
        f"{plan.rows:,}",
        "?" if left is None else duration(left),
    )


def _as_json(progress: Progress, now: datetime) -> dict[str, Any]:
    plan = progress.plan
    return {
        "plan": progress.name,
        "table": str(progress.table),
        "kind": plan.kind,
        "reads": progress.what,
        "why": progress.planned.reason,
        "begun": progress.begun.isoformat(),
        "chunks": plan.chunks,
        "done_chunks": plan.done_chunks,
        "bytes": plan.bytes,
        "done_bytes": plan.done_bytes,
        "rows": plan.rows,
        "sent": plan.sent,
        "request": plan.request or None,
        "seconds_left": progress.seconds_left(now),
    }
