"""One run of one table: read the window, commit it, publish it, project the state.

The order is the protocol: a segment is **prepared** as an upload that nobody sees; an event at the next offset of the
ledger **commits** it, and of any number of workers exactly one gets that offset; then anybody can **publish** it, and
the state's summary is **projected** to Parameter Store. A run that finds the last one unfinished finishes it first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tidelog.continuity import find_break
from tidelog.errors import Conflict, DatabaseBusy
from tidelog.events import Advanced, Event, Ingested, SchemaChanged, Segment, Snapshotted, State, TimelineStarted, What
from tidelog.lake import Position, segment_key
from tidelog.ledger import Ledger, OffsetTakenError
from tidelog.parameters import Parameters
from tidelog.planning import Plan, plan_windows
from tidelog.publishing import Publisher
from tidelog.segment import Segments
from tidelog.source import OpenTable, Source
from tidelog.tables import TableName
from tidelog.windows import Snapshot

_ATTEMPTS = 5
_LAG = 2**30
"""Transactions after which the horizon of a table without new rows is moved up all the same."""


Outcome = Literal["snapshotted", "ingested", "unchanged", "covered"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did.

    Attributes:
        table: the table.
        outcome: "snapshotted" (the first rows), "ingested" (an increment), "unchanged" (no new row) or "covered"
            (another worker was faster).
        rows: lines written.
        bytes: their size in the lake, compressed.
        sequential_id: of the table's last increment.
        timestamp: the watermark.
        key: of the segment, None where there is none.
        strategy: how the rows were found, and why so.
    """

    table: str
    outcome: Outcome
    rows: int = 0
    bytes: int = 0
    sequential_id: int = 0
    timestamp: str | None = None
    key: str | None = None
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator may set. Durations are seconds, sizes bytes."""

    look_back: float
    time_bound_bytes: int
    failover_margin: float
    fresh: float
    """For how long it is not noted again that a table without new rows was read."""


class Ingestion:
    """Runs tables one after another.

    Args:
        source: the database.
        segments: the lake's data.
        ledger: the lake's events.
        parameters: the summaries of the states.
        limits: what an operator has set.
        now: the clock, with a zone.
    """

    def __init__(
        self,
        *,
        source: Source,
        segments: Segments,
        ledger: Ledger,
        parameters: Parameters,
        limits: Limits,
        now: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._segments = segments
        self._ledger = ledger
        self._parameters = parameters
        self._publisher = Publisher(source, segments, ledger, parameters, now)
        self._limits = limits
        self._now = now

    def ingest(self, table: TableName, *, seconds: float) -> Run:
        """Ingest what is new in a table.

        Args:
            table: the table.
            seconds: the time there is.

        Raises:
            TidelogError: why it could not be; nothing is visible of it, or all is.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._run(table, seconds)
            except OffsetTakenError:
                continue  # An event came in between that changes what is to be done: begin again from the ledger.
        raise Conflict("ingest", table, f"other workers took the offset {_ATTEMPTS} times", "It is tried again")

    def _run(self, table: TableName, seconds: float) -> Run:
        state, known = self._publisher.finish_last(table, seconds=seconds)
        with ExitStack() as uncommitted:
            with self._source.open(table, seconds=seconds) as opened:
                state = self._settle(opened, state)
                plan = plan_windows(opened, state, self._limits.look_back, self._limits.time_bound_bytes)
                snapshot = opened.snapshot
                segment = self._prepare(opened, state, plan) if plan.rows else None
                if segment:
                    uncommitted.callback(self._segments.abort, segment)
            if segment is None:
                state = self._advance(table, state, plan, snapshot)
                self._parameters.project(table, state, known, self._now(), fresh=self._limits.fresh)
                return _outcome(table, "unchanged", state, plan)
            self._source.wait_until_durable(snapshot)
            uncommitted.pop_all()  # From here on an event may need the upload, whatever is raised.
        event = self._commit(table, state, plan, segment)
        if event is None:
            self._segments.abort(segment)
            return _outcome(table, "covered", state, plan)
        after = self._publisher.publish(table, event, known, seconds=seconds)
        return _outcome(table, "ingested" if state.horizon else "snapshotted", after, plan, segment)

    def _settle(self, opened: OpenTable, state: State) -> State:
        """Record a break in the transaction ids, and changed columns, before anything is read."""
        table = opened.table.table_name
        if found := find_break(state, opened.snapshot, opened.table):
            resume = self._earlier(table, state, opened) if found.rewind else None
            started = TimelineStarted(state.timeline + 1, found.reason, opened.snapshot.database, resume)
            state = self._ledger.append(table, state, started).state
        document = opened.table.document()
        if state.schema != document.fingerprint:
            self._segments.describe(table, document)
            if state.schema is not None:
                difference = document.difference(self._segments.schema(table, state.schema))
                state = self._ledger.append(table, state, SchemaChanged(document.fingerprint, difference)).state
        return state

    def _earlier(self, table: TableName, state: State, opened: OpenTable) -> State | None:
        """Return the state after the newest event that is older than the margin, if its window is still good."""
        limit = self._now() - timedelta(seconds=self._limits.failover_margin)
        for offset in range(state.offset, 0, -1):
            event = self._ledger.read(table, offset)
            if event.state.timeline != state.timeline or not event.state.horizon:
                return None
            if datetime.fromisoformat(event.at) <= limit:
                return event.state if event.state.horizon <= opened.snapshot.horizon else None
        return None

    def _advance(self, table: TableName, state: State, plan: Plan, snapshot: Snapshot) -> State:
        """Move up the horizon of a table that had no new row for very long, before it is out of reach."""
        if state.horizon and snapshot.next - state.horizon > _LAG:
            self._source.wait_until_durable(snapshot)
            return self._ledger.append(table, state, Advanced(plan.reading)).state
        return state

    def _prepare(self, opened: OpenTable, state: State, plan: Plan) -> Segment:
        """Read the window into an upload that nobody sees."""
        table = opened.table.table_name
        position = Position(
            timeline=state.timeline,
            horizon=plan.reading.horizon,
            increment=state.horizon > 0,
            number=state.sequential_id + 1 if state.horizon else state.offset + 1,
        )
        key = segment_key(table, self._now().strftime("%Y-%m-%d"), position)
        with self._segments.prepare(key) as upload:
            for part in plan.parts:
                opened.copy(part.leaf, part.window, upload)
            if upload.rows != plan.rows:
                reason = f"{upload.rows} rows were read where {plan.rows} were counted"
                raise DatabaseBusy("read", table, reason, "It was rewritten meanwhile; it is tried again")
            return upload.finish(opened.table.document().fingerprint)

    def _commit(self, table: TableName, base: State, plan: Plan, segment: Segment) -> Event | None:
        """Append the event of a prepared segment, at a later offset if one that leaves its window alone came first.

        Returns:
            The event; None where another worker has read the window.
        """
        state = base
        while True:
            what: What = (
                Ingested(segment, plan.reading, state.sequential_id + 1)
                if base.horizon
                else Snapshotted(segment, plan.reading)
            )
            try:
                return self._ledger.append(table, state, what)
            except OffsetTakenError:
                head = self._ledger.head(table, state.offset)
                if head is None or _window_of(head.state) != _window_of(base):
                    return None
                state = head.state


def _window_of(state: State) -> tuple[object, ...]:
    return (state.timeline, state.sequential_id, state.horizon, state.ahead, state.leaves, state.bound)


def _outcome(table: TableName, outcome: Outcome, state: State, plan: Plan, segment: Segment | None = None) -> Run:
    return Run(
        table=str(table),
        outcome=outcome,
        rows=segment.rows if segment else 0,
        bytes=segment.bytes if segment else 0,
        sequential_id=state.sequential_id,
        timestamp=state.timestamp,
        key=segment.key if segment else None,
        strategy=plan.reading.strategy,
    )
