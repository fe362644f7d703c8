"""A backfill that somebody has asked for: from its message to the plan of its chunks."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from tidelog.backfills import Division, divide
from tidelog.continuity import find_break
from tidelog.errors import DatabaseChanged, NotIngestible
from tidelog.events import Event, What
from tidelog.letters import Received
from tidelog.messages import Backfill
from tidelog.parts import Parts
from tidelog.planning import whole_reading
from tidelog.plans import OpenPlan, Planned
from tidelog.runs import Run
from tidelog.state import State
from tidelog.tables import TableName

_SKEW = timedelta(minutes=5)
"""By how much the clocks of SQS and of a worker may differ."""


class Backfilling:
    """Plans backfills.

    Args:
        parts: what it works with.
    """

    def __init__(self, parts: Parts) -> None:
        self._source = parts.source
        self._segments = parts.segments
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._dispatch = parts.dispatch
        self._limits = parts.limits

    def plan(self, wanted: Backfill, message: Received, *, seconds: float) -> Run:
        """Plan a backfill and send its chunks. A message that comes again finds the plan that it has led to.

        Raises:
            UnknownTable: there is no such table.
            NotIngestible: nothing was ingested of the table yet.
            UnknownColumn: the table has no such column, or none that is a timestamp.
            TidelogError: why it could not be; nothing is planned, or all is.
        """
        deadline = time.monotonic() + seconds
        table, request = wanted.table_name, wanted.request or message.id
        state, _ = self._publisher.finish_last(table, seconds=seconds)
        if not state.horizon:
            with self._source.open(table, seconds=seconds):
                pass  # It is there, at least.
            reason = "nothing was ingested of it yet"
            raise NotIngestible("backfill", table, reason, "Wait for its first tick, which takes all of it")
        if message.tries > 1 and self._was_planned(table, state, request, message.first_seen):
            self._dispatch.send_unsent(table, state, finished=state.offset)
            return Run(str(table), "covered")
        planned = self._divided(wanted, table, state, request, deadline)
        if not planned.chunks:
            return Run(str(table), "unchanged", strategy="it is empty")

        def decide(now: State) -> What | None:
            if now.timeline != state.timeline:
                raise DatabaseChanged("backfill", table, "its timeline has changed meanwhile", "It is tried again")
            return planned

        state, event = self._ledger.append_if(table, state, decide, finished=state.offset)
        return self._sent(table, state, event, planned)

    def _divided(self, wanted: Backfill, table: TableName, state: State, request: str, deadline: float) -> Planned:
        with self._source.open(table, seconds=deadline - time.monotonic(), after=state) as opened:
            if found := find_break(state, opened.snapshot, opened.table):
                hint = "The table's next run begins a new timeline; this is tried again"
                raise DatabaseChanged("backfill", table, found.reason, hint)
            division: Division = divide(opened, wanted, self._limits.of(opened.settings).chunk_bytes)
            document = opened.table.document()
            reading, snapshot = whole_reading(opened, state), opened.snapshot
        self._segments.describe(table, document)
        self._source.wait_until_durable(snapshot)
        return Planned(
            kind="backfill",
            reason=division.reason,
            reading=reading,
            schema=document.fingerprint,
            leaves=division.leaves,
            cuts=division.cuts,
            span=division.span,
            bytes=division.bytes,
            request=request,
        )

    def _was_planned(self, table: TableName, state: State, request: str, since: str) -> bool:
        """Say whether a message that came before has led to its plan, which may be over."""
        oldest = datetime.fromisoformat(since) - _SKEW
        for offset in range(state.offset, 0, -1):
            event = self._ledger.read(table, offset)
            if isinstance(event.what, Planned) and event.what.request == request:
                return True
            if datetime.fromisoformat(event.at) < oldest:
                break
        return False

    def _sent(self, table: TableName, state: State, event: Event | None, planned: Planned) -> Run:
        plan: OpenPlan | None = state.plan(event.offset) if event else None
        if plan:
            state = self._dispatch.send_plan(table, state, plan, finished=0)
        return Run(
            table=str(table),
            outcome="planned",
            sequential_id=state.sequential_id,
            timestamp=state.timestamp,
            strategy=planned.reason,
            plan=event.offset if event else 0,
            chunks=planned.chunks,
        )
