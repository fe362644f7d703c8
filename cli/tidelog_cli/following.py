"""Waiting for backfills and sweeps: each is followed through its ledger until it is over or a part of it has failed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tidelog.deadletters import Letter
from tidelog.errors import InvalidMessage
from tidelog.events import SchemaChanged, TimelineStarted
from tidelog.ledger import Ledger
from tidelog.messages import Backfill, ReadChunk, Sweep, decode
from tidelog.plans import ChunkRead, ChunksDropped, OpenPlan, Planned
from tidelog.tables import TableName
from tidelog_cli.output import console, counted, live_bar, size
from tidelog_cli.stack import Stack

_POLL_SECONDS = 1.0
_LETTERS_EVERY = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """A backfill that is waited for, or a sweep.

    Attributes:
        table: the table.
        offset: of its newest event before it was sent, or before it began.
        request: id of the request; None where any sweep will do.
    """

    table: str
    offset: int
    request: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of it.

    Attributes:
        table: the table.
        plan: its plan's number; 0 where none was made.
        rows: lines written.
        bytes: their size in the lake, compressed.
        reason: why not all was read; empty if all was.
    """

    table: str
    plan: int
    rows: int
    bytes: int
    reason: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether all was read."""
        return not self.reason

    def __str__(self) -> str:
        read = f"{self.table}: {counted(self.rows, 'row')}, {size(self.bytes)} in the lake"
        return read if self.succeeded else f"{read}, and then: {self.reason}"

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "table": self.table,
            "plan": self.plan,
            "rows": self.rows,
            "bytes": self.bytes,
            "reason": self.reason or None,
        }


class _Followed:
    """One of them, as far as its ledger was read."""

    def __init__(self, wanted: Wanted) -> None:
        self.table = wanted.table
        self.request = wanted.request
        self._name = TableName.parse(wanted.table)
        self._offset = wanted.offset
        self.numbers: list[int] = []
        self.rows = self.bytes = 0
        self.plans: list[OpenPlan] = []
        self.dropped = ""
        self.over = False

    def look(self, ledger: Ledger) -> None:
        """Read what has happened since."""
        for event in ledger.events(self._name, after=self._offset):
            self._offset = event.offset
            match event.what:
                case Planned(request=request, kind=kind) if request == self.request or (
                    self.request is None and kind == "sweep"
                ):
                    self.numbers.append(event.offset)
                case Planned(instead=instead) if instead and instead.plan in self.numbers:
                    self.numbers.append(event.offset)
                case ChunkRead(plan=number, segment=segment) if segment and number in self.numbers:
                    self.rows, self.bytes = self.rows + segment.rows, self.bytes + segment.bytes
                case ChunksDropped(plan=number, reason=reason) if number in self.numbers:
                    self.dropped = reason
                case TimelineStarted(reason=reason) if not all(event.state.plan(plan.number) for plan in self.plans):
                    self.dropped = reason
                case SchemaChanged(difference=reason, again=True) if self.plans:
                    self.dropped = reason
            self.plans = [plan for plan in event.state.plans if plan.number in self.numbers]
        self.over = bool(self.numbers) and not self.plans

    def is_about(self, letter: Letter) -> bool:
        """Say whether a dead letter is a part of it."""
        try:
            message = decode(letter.body)
        except InvalidMessage:
            return False
        if message.table_name != self._name:
            return False
        match message:
            case ReadChunk(plan=plan):
                return plan in self.numbers
            case Backfill(request=request):
                return request == self.request
            case Sweep(request=request):
                return self.request in (None, request)
        return False

    def ended(self, reason: str = "") -> Ended:
        """Return what became of it."""
        return Ended(self.table, self.numbers[0] if self.numbers else 0, self.rows, self.bytes, reason or self.dropped)


def follow(stack: Stack, wanted: Iterable[Wanted]) -> list[Ended]:
    """Wait until backfills or sweeps are over, with a bar on a terminal."""
    ledger, ended = stack.ledger, list[Ended]()
    under_way = [_Followed(each) for each in wanted]
    with live_bar("reading") as show:
        for turn in range(10**9):
            for each in under_way:
                each.look(ledger)
            ended += [each.ended() for each in under_way if each.over]
            under_way = [each for each in under_way if not each.over]
            if turn % _LETTERS_EVERY == _LETTERS_EVERY - 1 and stack.dead_letters.count():
                ended += (failed := _failed(stack, under_way)).values()
                under_way = [each for each in under_way if each.table not in failed]
            if not under_way:
                break
            show(*_progress(under_way))
            time.sleep(_POLL_SECONDS)
    return ended


def show_ended(screen: Console, ended: Iterable[Ended]) -> None:
    """Print what became of each; what has failed goes to stderr."""
    for each in ended:
        (screen if each.succeeded else console(err=True)).print(str(each), style=None if each.succeeded else "red")


def _failed(stack: Stack, under_way: list[_Followed]) -> dict[str, Ended]:
    failed = {}
    with stack.dead_letters.opened() as letters:
        for letter in letters:
            for each in under_way:
                if each.is_about(letter):
                    why = letter.failure.reason if letter.failure else "a worker was killed each time"
                    reason = f"{why} (tidelog dead-letters show {letter.id[:8]} --stack {stack.name})"
                    failed[each.table] = each.ended(reason)
    return failed


def _progress(under_way: list[_Followed]) -> tuple[int, int, str]:
    plans = [plan for each in under_way for plan in each.plans]
    if not plans:
        return 0, 1, "waiting to be planned"
    done, chunks = sum(plan.done_chunks for plan in plans), sum(plan.chunks for plan in plans)
    done_bytes, total = sum(plan.done_bytes for plan in plans), sum(plan.bytes for plan in plans)
    rows = sum(each.rows for each in under_way)
    return (
        done,
        chunks,
        f"{done:,} of {counted(chunks, 'chunk')}, {size(done_bytes)} of {size(total)}, {counted(rows, 'row')}",
    )
