"""A new timeline, where transaction ids of now can't be compared with those of before: recorded before all else."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from msgspec.structs import replace

from tidelog.altering import Tell, reread
from tidelog.continuity import Break, find_break, went_back
from tidelog.errors import TidelogError
from tidelog.events import Supplied, TimelineStarted
from tidelog.opening import OpenTable
from tidelog.parts import Parts
from tidelog.plans import ChunksDropped, Enqueued
from tidelog.state import State
from tidelog.tables import TableName

_UNASKED = (Enqueued, ChunksDropped, Supplied)
"""Events that may be written without the database."""


class Timelines:
    """Records that timelines start.

    Args:
        parts: what it works with.
        tell: tells of what a run does not make good itself.
    """

    def __init__(self, parts: Parts, tell: Tell) -> None:
        self._ledger = parts.ledger
        self._limits = parts.limits
        self._now = parts.now
        self._tell = tell

    def record(self, opened: OpenTable, state: State, *, finished: int, seen: datetime | None) -> State:
        """Record a break in the transaction ids, where there is one; return the state after that.

        Args:
            opened: the table.
            state: its state.
            finished: up to which offset all is published.
            seen: when the database of before was last known to answer, as far as events don't tell.

        Raises:
            OffsetTakenError: another event came first.
        """
        table = opened.table.table_name
        found = find_break(state, opened.snapshot, opened.table)
        if found is None:
            return state
        started = self._started(opened, state, found, seen)
        if started.remedy:
            with suppress(TidelogError):  # The event says it too.
                self._tell(table, started)
        return self._ledger.append(table, state, started, finished=finished).state

    def _started(self, opened: OpenTable, state: State, found: Break, seen: datetime | None) -> TimelineStarted:
        """Return the event of a timeline.

        Where it goes on from an earlier state, lines written since may be of transactions that are lost. The rows that
        they have taken the place of are older than that state: no window reads them. Which those are nobody can tell.
        """
        table = opened.table.table_name
        started = TimelineStarted(state.timeline + 1, found.reason, opened.snapshot.database, None)
        resume = self._earlier(table, state, opened, seen) if found.rewind else None
        if resume is None or resume.rows == state.rows:
            return replace(started, resume=resume)
        lines = f"{state.rows - resume.rows:,} in number"
        outdated = f"lines written since event {resume.offset}, {lines}, may be of transactions that are lost"
        if opened.table.size <= self._limits.of(opened.settings).chunk_bytes:
            return replace(started, outdated=outdated)
        return replace(started, resume=resume, outdated=outdated, remedy=reread(table))

    def _earlier(self, table: TableName, state: State, opened: OpenTable, seen: datetime | None) -> State | None:
        """Return the state after the newest event that is older than the margin, if its window is still good.

        What a failover has lost is younger than the margin as of when it was, and that may be as long ago as the
        database of before was last seen: nobody may have come by since.
        """
        margin, now = timedelta(seconds=self._limits.failover_margin), self._now()
        for offset in range(state.offset, 0, -1):
            event = self._ledger.read(table, offset)
            if event.state.timeline != state.timeline or not event.state.horizon:
                return None
            at = datetime.fromisoformat(event.at)
            if not isinstance(event.what, _UNASKED):
                seen = max(at, seen or at)
            if seen and at <= min(seen, now) - margin:
                return event.state if not went_back(event.state, opened.snapshot) else None
        return None
