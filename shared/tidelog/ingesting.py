"""One run of one table: read the window, commit it, publish it, project the state.

The order is the protocol: a segment is **prepared** as an upload that nobody sees; an event at the next offset of the
ledger **commits** it, and of any number of workers exactly one gets that offset; then anybody can **publish** it, and
the state's summary is **projected** to Parameter Store. A run that finds the last one unfinished finishes it first.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack
from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from tidelog.altering import Altering, Tell
from tidelog.errors import Conflict, DatabaseBusy
from tidelog.events import Advanced, Event, Ingested, Snapshotted, What
from tidelog.glancing import LAG
from tidelog.lake import Position, segment_key
from tidelog.ledger import OffsetTakenError
from tidelog.opening import OpenTable
from tidelog.parameters import Summary
from tidelog.parts import Parts
from tidelog.planning import Plan, plan_windows
from tidelog.plans import Kind, Planned
from tidelog.readings import Moment, Segment
from tidelog.runs import Outcome, Run
from tidelog.state import State
from tidelog.tables import TableName
from tidelog.timelines import Timelines

_ATTEMPTS = 5
_SPARE_SECONDS = 60
_QUIET_SECONDS = 5
"""For how long transactions under way are waited for before a large read is planned."""
Noted = Literal["always", "in time", "never"]
"""Whether the summary says when a run was that has found nothing new: somebody waits for that; often enough for who
watches for stale tables; or who watches knows it already."""


class _NotQuietError(Exception):
    """A large read is to be planned, and transactions are under way."""

    def __init__(self, since: Moment) -> None:
        super().__init__(since)
        self.since = since


class _UnprovenError(Exception):
    """Rows have ids of transactions of which it is not known whether they have committed."""

    def __init__(self, xids: Collection[int]) -> None:
        super().__init__(xids)
        self.xids = xids


class _Base(msgspec.Struct, frozen=True):
    """What a run stands on: the state, the summary as it was found, and up to which offset all is published."""

    state: State
    known: Summary | None
    finished: int


class Ingestion:
    """Runs tables one after another.

    Args:
        parts: what it works with.
        tell: tells of outdated tables that are too large to be read again at once.
    """

    def __init__(self, parts: Parts, tell: Tell = lambda *_: None) -> None:
        self._source = parts.source
        self._segments = parts.segments
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._dispatch = parts.dispatch
        self._parameters = parts.parameters
        self._limits = parts.limits
        self._glances = parts.glances
        self._now = parts.now
        self._timelines = Timelines(parts, tell)
        self._altering = Altering(parts, tell)

    def ingest(
        self,
        table: TableName,
        *,
        seconds: float,
        for_sweep: bool = False,
        noted: Noted = "in time",
        tally: str = "",
        calm: datetime | None = None,
    ) -> Run:
        """Ingest what is new in a table, or plan that it be read in chunks.

        Args:
            table: the table.
            seconds: the time there is.
            for_sweep: whether a sweep follows: a bounded window that has found nothing may have hidden something, so
                that is an event too.
            noted: whether the summary says when this run was, if nothing is new.
            tally: of the table before the run was asked for; noted if all of that is read.
            calm: when the last tick was that found nothing new in it, where that is known.

        Raises:
            TidelogError: why it could not be; nothing is visible of it, or all is.
        """
        deadline = time.monotonic() + seconds
        told = noted == "never" or (noted == "in time" and not tally)  # Otherwise there is something to be noted.
        if told and not for_sweep and (idle := self._glance(table, deadline, noted)):
            return idle
        quiet: Moment | None = None
        committed: frozenset[int] | None = None
        for _ in range(_ATTEMPTS):
            try:
                return self._run(
                    table, deadline, quiet, committed, for_sweep=for_sweep, noted=noted, tally=tally, calm=calm
                )
            except _NotQuietError as found:
                quiet = found.since
                self._source.pass_horizon(quiet.next, _QUIET_SECONDS)
            except _UnprovenError as unproven:
                committed = self._source.committed(unproven.xids)
            except OffsetTakenError:
                continue  # An event came in between that changes what is to be done: begin again from the ledger.
        raise Conflict("ingest", table, f"other workers took the offset {_ATTEMPTS} times", "It is tried again")

    def _glance(self, table: TableName, deadline: float, noted: Noted) -> Run | None:
        """Tell at a glance that nothing is new, and nothing has to be noted; None where that can't be told."""
        glance = self._glances.of(table)
        if glance is None or glance.settings != self._source.settings(table):
            return None
        if (self._now() - glance.noted_at).total_seconds() > self._fresh(noted):
            return None
        if self._ledger.is_newest(table, glance.state.offset):
            answer = self._source.ask(table, glance.question, deadline=deadline)
            if answer is not None and glance.is_idle(answer):
                return _idle(table, glance.state, glance.strategy)
        self._glances.forget(table)
        return None

    def _fresh(self, noted: Noted) -> float:
        """Return the seconds for which a summary's time is good where nothing is new."""
        return {"always": float("-inf"), "in time": self._limits.fresh, "never": float("inf")}[noted]

    def _run(
        self,
        table: TableName,
        deadline: float,
        quiet: Moment | None,
        committed: frozenset[int] | None,
        *,
        for_sweep: bool,
        noted: Noted,
        tally: str,
        calm: datetime | None,
    ) -> Run:
        state, known = self._publisher.finish_last(table, seconds=deadline - time.monotonic())
        if self._dispatch.send_unsent(table, state, finished=state.offset) is not state:
            # Chunks may have been committed in between, and not be published.
            state, known = self._publisher.finish_last(table, seconds=deadline - time.monotonic())
        base = _Base(state, known, state.offset)
        with ExitStack() as uncommitted:
            with self._source.open(table, seconds=deadline - time.monotonic(), after=base.state) as opened:
                base = replace(base, state=self._settle(opened, base, calm))
                plan = plan_windows(opened, base.state, self._limits, quiet, committed)
                schema = opened.table.document().fingerprint
                segment = self._prepare(opened, base.state, plan, schema) if plan.rows else None
                if segment:
                    uncommitted.callback(self._segments.abort, segment)
                opened.confirm()
            if plan.unproven:
                raise _UnprovenError(plan.unproven)
            if not plan.whole or plan.snapshot.standby:  # A standby may not have what its primary has counted.
                tally = ""
            if plan.leaves:
                return self._plan(table, base, plan, schema)
            if segment is None:
                state = self._advance(table, base, plan, for_sweep=for_sweep)
                fresh, now = self._fresh(noted), self._now()
                noted_at = self._parameters.project(table, state, base.known, now, fresh=fresh, tally=tally)
                if state is base.state and plan.whole:
                    self._glances.keep(opened, state, self._limits, noted_at)
                return _outcome(table, "unchanged", state, plan)
            self._source.wait_until_durable(plan.snapshot)
            uncommitted.pop_all()  # From here on an event may need the upload, whatever is raised.
        event = self._commit(table, base, plan, segment)
        if event is None:
            self._segments.abort(segment)
            return _outcome(table, "covered", base.state, plan)
        left = deadline - time.monotonic()
        self._publisher.publish(table, event, base.known, after=base.state, seconds=left, tally=tally)
        if plan.whole:
            self._glances.keep(opened, event.state, self._limits, self._now())
        return _outcome(table, "ingested" if base.state.horizon else "snapshotted", event.state, plan, segment)

    def _plan(self, table: TableName, base: _Base, plan: Plan, schema: str) -> Run:
        """Record that a window is read in chunks, and send them."""
        state = base.state
        kind: Kind = "increment" if state.horizon else "snapshot"
        if kind == "increment" and any(each.kind == kind for each in state.plans):
            return _outcome(table, "waiting", state, plan)
        if plan.restless:
            raise _NotQuietError(Moment(plan.snapshot.seen_at or "", plan.snapshot.next))
        self._source.wait_until_durable(plan.snapshot)
        planned = Planned(
            kind=kind,
            reason=plan.reading.strategy,
            reading=plan.reading,
            schema=schema,
            leaves=plan.leaves,
            bytes=sum(leaf.bytes for leaf in plan.leaves),
        )

        def begun(now: State) -> What | None:
            return planned if _window_of(now) == _window_of(base.state) else None

        after, event = self._ledger.append_if(table, state, begun, finished=base.finished)
        if event is None:
            return _outcome(table, "covered", after, plan)
        self._publisher.publish(table, event, base.known, after=state, seconds=_SPARE_SECONDS)
        after = self._dispatch.send_unsent(table, after, finished=base.finished)
        return replace(_outcome(table, "planned", after, plan), plan=event.offset, chunks=planned.chunks)

    def _settle(self, opened: OpenTable, base: _Base, calm: datetime | None) -> State:
        """Record a break in the transaction ids, and what was altered, before anything is read."""
        read = base.known.checked_at if base.known and base.known.offset else None
        seen = max((at for at in (calm, datetime.fromisoformat(read) if read else None) if at), default=None)
        state = self._timelines.record(opened, base.state, finished=base.finished, seen=seen)
        return self._altering.record(opened, state, finished=base.finished)

    def _advance(self, table: TableName, base: _Base, plan: Plan, *, for_sweep: bool) -> State:
        """Move up the horizon of a table that had no new row, before it is out of reach or where a sweep follows."""
        state = base.state
        moved = plan.snapshot.horizon > state.horizon
        wanted = for_sweep and moved and any(leaf.bounded for leaf in plan.reading.leaves)
        if state.horizon and (wanted or plan.snapshot.next - state.horizon > LAG):
            self._source.wait_until_durable(plan.snapshot)
            return self._ledger.append(table, state, Advanced(plan.reading), finished=base.finished).state
        return state

    def _prepare(self, opened: OpenTable, state: State, plan: Plan, schema: str) -> Segment:
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
            rows = sum(opened.copy(part.leaf, part.window, upload) for part in plan.parts)
            if rows != plan.rows:
                reason = f"{rows} rows were read where {plan.rows} were counted"
                raise DatabaseBusy("read", table, reason, "It was rewritten meanwhile; it is tried again")
            return upload.finish(schema, rows)

    def _commit(self, table: TableName, base: _Base, plan: Plan, segment: Segment) -> Event | None:
        """Append the event of a prepared segment, at a later offset if one that leaves its window alone came first.

        Returns:
            The event; None where another worker has read the window.
        """

        def read(now: State) -> What | None:
            if _window_of(now) != _window_of(base.state):
                return None
            if base.state.horizon:
                return Ingested(segment, plan.reading, now.sequential_id + 1)
            return Snapshotted(segment, plan.reading)

        return self._ledger.append_if(table, base.state, read, finished=base.finished)[1]


def _window_of(state: State) -> tuple[object, ...]:
    read = (state.timeline, state.sequential_id, state.horizon, state.ahead, state.leaves, state.past, state.bound)
    return (*read, state.rewritten)


def _idle(table: TableName, state: State, strategy: str) -> Run:
    return Run(
        table=str(table),
        outcome="unchanged",
        rows=0,
        bytes=0,
        sequential_id=state.sequential_id,
        timestamp=state.timestamp,
        key=None,
        strategy=strategy,
    )


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
