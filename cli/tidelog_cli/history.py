"""`tidelog history`: what happened to a table, and how many rows came when."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any

import typer
from rich.console import Console

from tidelog.errors import UnknownTable
from tidelog.events import Event, Ingested, Supplied
from tidelog.history import History
from tidelog.lake import read_segment_key
from tidelog.tables import TableName
from tidelog_cli.naming import table_name
from tidelog_cli.output import console, fitted, live_count, moment, size
from tidelog_cli.place import AnyLake, AnyStack, find_place
from tidelog_cli.plot import bars
from tidelog_cli.stack import AT_ONCE
from tidelog_cli.wording import in_words

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_HOURS = 72
"""Up to so many hours are shown hour by hour, more than that day by day."""
_WIDEST = 90


class _Remembering(History):
    """A history that reads no event twice."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._read: dict[tuple[TableName, int], Event] = {}

    def read(self, table: TableName, offset: int) -> Event:
        """Return one event."""
        if (table, offset) not in self._read:
            self._read[table, offset] = super().read(table, offset)
        return self._read[table, offset]


def history(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="schema.table")],
    stack: AnyStack = None,
    lake: AnyLake = None,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many events, the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what happened to a table, the newest first, and how many rows came when. Times are UTC."""
    name = table_name(table)
    past = _Remembering(find_place(stack, lake)[0])
    head = past.head(name)
    if head is None:
        hint = "tidelog status shows which tables there are"
        raise UnknownTable("show the history of", name, "it has no ledger, which begins with its first row", hint)
    with live_count("reading events") as seen, ThreadPoolExecutor(AT_ONCE) as pool:
        offsets = range(head.offset, max(0, head.offset - limit), -1)
        events = []
        for event in pool.map(lambda offset: past.read(name, offset), offsets):
            events.append(event)
            seen(len(events))
        starts, each, counts = _over_time(past, name, head, pool)
    if as_json:
        found = [{"since": start.isoformat(), "rows": count} for start, count in zip(starts, counts, strict=True)]
        typer.echo(json.dumps({"events": [_as_json(event) for event in events], "rows_over_time": found}, indent=1))
        return
    screen = console()
    headings = ("offset", "when", "increment", "rows", "bytes", "what happened")
    rows = [_row(event) for event in events]
    what, spare = headings[-1], ("increment", "bytes")
    screen.print(fitted(headings, rows, left=(what,), spare=spare, screen=screen, prose=what))
    _plot(screen, starts, each, counts)


def _over_time(
    past: History, table: TableName, head: Event, pool: ThreadPoolExecutor
) -> tuple[list[datetime], timedelta, list[int]]:
    """Return the begins of hours or days, how long each is, and how many rows came in each.

    Each event tells how many rows there were by then, so only those around the begins are read.
    """
    first, last = (datetime.fromisoformat(event.at).astimezone(UTC) for event in (past.read(table, 1), head))
    each = _HOUR if last - first <= _HOURS * _HOUR else _DAY
    begin, end = (at.replace(minute=0, second=0, microsecond=0) for at in (first, last))
    if each == _DAY:
        begin, end = begin.replace(hour=0), end.replace(hour=0)
    begin = max(begin, end - (_WIDEST - 1) * each)
    starts = [begin + number * each for number in range((end - begin) // each + 1)]

    def total(start: datetime) -> int:
        before = past.before(table, head, start - timedelta(microseconds=1))
        return before.state.rows if before else 0

    totals = [*pool.map(total, starts), head.state.rows]
    return starts, each, [max(0, after - before) for before, after in pairwise(totals)]


def _plot(screen: Console, starts: Sequence[datetime], each: timedelta, counts: Sequence[int]) -> None:
    room = screen.width - len(f"{max(counts):,}") - 1
    starts, counts = starts[-room:], counts[-room:]
    if not any(counts):
        return
    form, unit = ("%m-%d %H:%M", "hour") if each == _HOUR else ("%Y-%m-%d", "day")
    screen.print(f"rows by the {unit}")
    for line in bars(counts, f"{starts[0]:{form}}", f"{starts[-1]:{form}}"):
        screen.print(line)


def _row(event: Event) -> tuple[str, ...]:
    segment = event.segment
    return (
        f"{event.offset:,}",
        moment(event.at),
        f"{event.what.sequential_id:,}" if isinstance(event.what, Ingested | Supplied) else "",
        f"{segment.rows:,}" if segment else "",
        size(segment.bytes) if segment else "",
        in_words(event.what),
    )


def _as_json(event: Event) -> dict[str, Any]:
    segment = event.segment
    return {
        "offset": event.offset,
        "at": event.at,
        "kind": event.what.__struct_config__.tag,
        "what": in_words(event.what),
        "rows": segment.rows if segment else 0,
        "bytes": segment.bytes if segment else 0,
        "sequential_id": event.what.sequential_id if isinstance(event.what, Ingested | Supplied) else None,
        "position": str(read_segment_key(segment.key)[1]) if segment else None,
        "segment": segment.key if segment else None,
        "run": event.run,
    }
