"""Waiting until tables were tried: each run leaves a written summary, a dead letter, or a note of its failure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tidelog.deadletters import Letter, noted_failures
from tidelog.errors import InvalidMessage
from tidelog.letters import Failure
from tidelog.messages import Ingest, decode
from tidelog.parameters import Kept, Parameters
from tidelog.plans import WINDOWS, Planned
from tidelog.stores import Bucket
from tidelog.tables import TableName
from tidelog_cli.output import counted, live_bar
from tidelog_cli.queues import Queues
from tidelog_cli.stack import Stack

_POLL_SECONDS = 0.5
_NOTES_EVERY = 4
_LATELY = timedelta(hours=1)
_EMPTY_TURNS, _IDLE_TURNS = 6, 20
"""For so many looks in a row the work queue has to be empty before a new table counts as one without rows, and before
any other one that nothing was heard of is given up."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a table.

    Attributes:
        table: the table.
        events: how many were added to its ledger.
        rows: lines that they wrote.
        bytes: their size in the lake.
        sequential_id: of its last increment.
        note: what else there is to say.
        failed: why it could not be ingested; empty if it was.
    """

    table: str
    events: int = 0
    rows: int = 0
    bytes: int = 0
    sequential_id: int = 0
    note: str = ""
    failed: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "table": self.table,
            "events": self.events,
            "rows": self.rows,
            "bytes": self.bytes,
            "sequential_id": self.sequential_id,
            "note": self.note or None,
            "failed": self.failed or None,
        }


@dataclass(slots=True)
class _Noted:
    """The notes of failures that were there before."""

    seen: set[tuple[str, str, str]] = field(default_factory=set)

    def new(self, failures: Iterable[Failure]) -> list[Failure]:
        """Return those that were not seen yet."""
        found = [each for each in failures if (each.table, each.run, each.failed_at) not in self.seen]
        self.seen.update((each.table, each.run, each.failed_at) for each in found)
        return found


class Trying:
    """Follows the tables of a stack. Make it before anything is sent: what is there by then is not waited for.

    A run that is under way by then counts for its table, though it may have begun before the last rows came.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ledger = stack.ledger
        self._parameters = Parameters(stack.client("ssm"), stack.outputs["ParameterPrefix"])
        self._store = Bucket(stack.client("s3"), stack.outputs["LakeBucket"])
        self._dead_letters = stack.dead_letters
        self._queues = Queues(stack)
        self._before = self._kept()
        self._offsets = self._heads()
        self._noted, self._letters = _Noted(), self._dead_letters.count()
        self._noted.new(self._failures())

    def follow(self, tables: Iterable[str], request: str) -> list[Tried]:
        """Wait until each was tried once, with a bar on a terminal; return what became of them, by name."""
        waiting, tried, idle, total = set(tables), list[Tried](), 0, 0
        total = len(waiting)
        with live_bar("ingesting") as show:
            for turn in range(10**9):
                kept = self._kept()
                ended = {table: self._read(table) for table in waiting if _written(table, self._before, kept)}
                if turn % _NOTES_EVERY == _NOTES_EVERY - 1:
                    ended |= self._failed(waiting - ended.keys(), request)
                waiting -= ended.keys()
                tried += ended.values()
                idle = 0 if self._queues.depth("work").all else idle + 1
                if idle >= _EMPTY_TURNS:
                    left = {table for table in waiting if idle >= _IDLE_TURNS or _is_awaited(table, kept)}
                    tried += map(self._given_up, left)
                    waiting -= left
                if not waiting:
                    break
                rows = sum(each.rows for each in tried)
                show(len(tried), total, f"{len(tried)} of {counted(total, 'table')}, {counted(rows, 'row')}")
                time.sleep(_POLL_SECONDS)
        return sorted(tried, key=lambda each: each.table)

    def _kept(self) -> dict[str, Kept]:
        return {str(table): kept for table, kept in self._parameters.all_kept()}

    def _heads(self) -> dict[str, int]:
        """Return the offset of each table's newest event that is published, or the newest of all without a summary."""
        known = {str(table): kept.summary.offset for table, kept in self._before.items() if kept.summary}
        others = [table for table in self._ledger.tables() if str(table) not in known]
        return known | {str(table): head.offset for table in others if (head := self._ledger.head(table))}

    def _read(self, table: str) -> Tried:
        """Return what the ledger says that has happened since."""
        events = list(self._ledger.events(TableName.parse(table), after=self._offsets.get(table, 0)))
        segments = [event.segment for event in events if event.segment]
        plans = [event.what for event in events if isinstance(event.what, Planned)]
        return Tried(
            table,
            len(events),
            sum(segment.rows for segment in segments),
            sum(segment.bytes for segment in segments),
            events[-1].state.sequential_id if events else 0,
            note=f"planned in {counted(plans[-1].chunks, 'chunk')}" if plans else "",
        )

    def _failed(self, tables: set[str], request: str) -> dict[str, Tried]:
        """Return the tables that have failed since they were last looked for."""
        found = {}
        for failure in self._noted.new(self._failures()):
            if failure.table in tables:
                found[failure.table] = Tried(failure.table, failed=f"{_why(failure)} It is tried again")
        if (count := self._dead_letters.count()) != self._letters:
            self._letters = count
            with self._dead_letters.opened() as letters:
                for letter in letters:
                    if letter.table in tables and _asked(letter, request):
                        why = _why(letter.failure) if letter.failure else "a worker was killed each time."
                        show = f"tidelog dead-letters show {letter.id[:8]} --stack {self._stack.name}"
                        found[letter.table] = Tried(letter.table, failed=f"{why} It is a dead letter: {show}")
        return found

    def _given_up(self, table: str) -> Tried:
        head = self._ledger.head(TableName.parse(table))
        if head is None and _is_awaited(table, self._kept()):
            return Tried(table)  # It has no row yet, which is no event.
        if head and any(plan.kind in WINDOWS for plan in head.state.plans):
            return Tried(table, note="it waits for the large read under way")
        return Tried(table, failed=f"ingest {table}: nothing tells what became of it. See the worker's log")

    def _failures(self) -> list[Failure]:
        return noted_failures(self._store, datetime.now(UTC) - _LATELY)


def _written(table: str, before: Mapping[str, Kept], now: Mapping[str, Kept]) -> bool:
    """Say whether a table was read: each run that succeeds notes when, if somebody waits for it.

    A summary is also written for a chunk, or for what a run publishes first that then fails: those tell of no new time.
    """
    if table not in now or (summary := now[table].summary) is None:
        return False
    if table in before:
        known = before[table].summary
        return known is None or summary.checked_at != known.checked_at
    return not _is_awaited(table, now)  # A tick notes of a new table since when it is awaited.


def _is_awaited(table: str, kept: Mapping[str, Kept]) -> bool:
    """Say whether a table has a summary that tells of no run: there was none, or the table has no row yet."""
    summary = kept[table].summary if table in kept else None
    return summary is not None and summary.is_blank


def _asked(letter: Letter, request: str) -> bool:
    with suppress(InvalidMessage):
        message = decode(letter.body)
        return isinstance(message, Ingest) and message.request == request
    return False


def _why(failure: Failure) -> str:
    return f"{failure.reason}. {failure.hint}." if failure.hint else f"{failure.reason}."
