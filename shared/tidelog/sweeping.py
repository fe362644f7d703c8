"""A sweep: what bounds in time have hidden from a table's windows is read in chunks, like any large read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import takewhile

import msgspec
from msgspec.structs import replace

from tidelog.continuity import find_break
from tidelog.errors import DatabaseChanged
from tidelog.events import What
from tidelog.hidden import Hidden
from tidelog.ingesting import Ingestion
from tidelog.messages import Sweep
from tidelog.opening import OpenTable
from tidelog.parts import Parts
from tidelog.planning import LOOKING, planned
from tidelog.plans import Planned
from tidelog.readings import LeafReading, Reading
from tidelog.runs import Outcome, Run
from tidelog.state import State
from tidelog.sweeps import Unswept, unswept
from tidelog.tables import Table, TableName
from tidelog.windows import REACH


class Sweeping:
    """Plans sweeps.

    Args:
        parts: what it works with.
        ingestion: runs a table before its sweep.
    """

    def __init__(self, parts: Parts, ingestion: Ingestion) -> None:
        self._ingestion = ingestion
        self._source = parts.source
        self._segments = parts.segments
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._dispatch = parts.dispatch
        self._limits = parts.limits

    def sweep(self, wanted: Sweep, *, seconds: float) -> Run:
        """Plan that what is hidden in a table is read, and send the chunks; do nothing where nothing can be.

        A plan without chunks is one too: after it the table is known to be complete. One that a person has asked for is
        made in any case, so that its end can be seen.

        Raises:
            TidelogError: why it could not be; nothing is planned, or all is.
        """
        deadline, table = time.monotonic() + seconds, wanted.table_name
        state, _ = self._publisher.finish_last(table, seconds=seconds)
        if not state.horizon:
            return _run(table, state, "unchanged", "it is to be read whole")
        run = self._ingestion.ingest(table, seconds=deadline - time.monotonic(), for_sweep=True)
        swept = self._sweep(wanted, deadline)
        if swept.outcome == "unchanged":
            return run
        return replace(swept, rows=run.rows, bytes=run.bytes, key=run.key)

    def _sweep(self, wanted: Sweep, deadline: float) -> Run:
        table = wanted.table_name
        state, _ = self._publisher.finish_last(table, seconds=deadline - time.monotonic())
        if self._dispatch.send_unsent(table, state, finished=state.offset) is not state:
            # Chunks may have been committed in between, and not be published.
            state, _ = self._publisher.finish_last(table, seconds=deadline - time.monotonic())
        if any(plan.kind == "sweep" for plan in state.plans):
            return _run(table, state, "waiting", "a sweep is under way")
        if state.is_swept and not wanted.request:
            return _run(table, state, "unchanged", "no bound in time can have hidden anything since the last sweep")
        events = self._ledger.events(table, after=state.unswept - 1) if state.unswept else ()
        found = unswept(state, takewhile(lambda event: event.offset <= state.offset, events))
        with self._source.open(table, seconds=deadline - time.monotonic(), after=state) as opened:
            plan = msgspec.structs.replace(self._planned(opened, state, found), request=wanted.request)
            document = opened.table.document()
        self._segments.describe(table, document)

        def decide(now: State) -> What | None:
            if now.timeline != state.timeline:
                raise _changed(table, "its timeline has changed meanwhile")
            return None if now.swept != state.swept or any(each.kind == "sweep" for each in now.plans) else plan

        after, event = self._ledger.append_if(table, state, decide, finished=state.offset)
        if event is None:
            return _run(table, after, "waiting", "a sweep is under way")
        if not plan.chunks:  # None will tell Parameter Store of it.
            self._publisher.finish_last(table, seconds=deadline - time.monotonic())
        if begun := after.plan(event.offset):
            after = self._dispatch.send_plan(table, after, begun, finished=state.offset)
        run = _run(table, after, "planned", plan.reason)
        return replace(run, plan=event.offset, chunks=plan.chunks)

    def _planned(self, opened: OpenTable, state: State, found: Unswept) -> Planned:
        if broken := find_break(state, opened.snapshot, opened.table):
            raise _changed(opened.table.table_name, broken.reason)
        hidden, gone = _readable(opened.table, found.hidden)
        far = {oid for each in hidden if opened.snapshot.next - each.first > REACH for oid in each.leaves}
        near = tuple(each for each in hidden if not far & set(each.leaves))
        limits = self._limits.of(opened.settings)
        reading = _windows(opened.table, state, near)
        read, here = {leaf.oid for leaf in reading.leaves}, {leaf.oid for leaf in opened.table.leaves}
        # Each page is looked at, for rows of which nobody knows how many there are: few, as a rule.
        leaves = [
            planned(leaf, max(1.0, leaf.size / LOOKING), limits.chunk_bytes)
            for leaf in opened.table.leaves
            if leaf.oid in read
        ]
        reason = "a sweep: what bounds in time have hidden"
        if far & here:
            reason += ". Some of it is too many transactions ago: the next run reads those relations whole"
        if gone:
            reason += f". There is no timestamp column {' or '.join(gone)} any more: rows of that time come twice"
        return Planned(
            kind="sweep",
            reason=reason,
            reading=reading,
            schema=opened.table.document().fingerprint,
            leaves=tuple(leaf for leaf in leaves if leaf.chunks),
            bytes=sum(leaf.bytes for leaf in leaves),
            hidden=near,
            complete_at=state.began,
            then=found.then or state.offset + 1,
            lost=tuple(sorted({oid for each in hidden for oid in each.leaves} - here | far)),
        )


def _windows(table: Table, state: State, hidden: Sequence[Hidden]) -> Reading:
    """Return a reading of what was hidden in the relations that a table has, all below the state's horizon.

    Args:
        table: the table.
        state: its state, which has read it.
        hidden: what is hidden.
    """
    assert state.database  # noqa: S101 - for the type: it was read
    first = {oid: min(each.first for each in hidden if oid in each.leaves) for each in hidden for oid in each.leaves}
    return Reading(
        leaves=tuple(LeafReading(leaf.oid, first[leaf.oid]) for leaf in table.leaves if leaf.oid in first),
        columns=(),
        bound=None,
        below=True,
        strategy="sweep: it was hidden by bounds in time",
        database=state.database,
        oid=state.oid,
        horizon=state.horizon,
        ahead=(),
        read_at=state.read_at or "",
        timestamp=state.timestamp,
        next_bound=state.bound,
    )


def _readable(table: Table, hidden: Iterable[Hidden]) -> tuple[tuple[Hidden, ...], list[str]]:
    """Return what is hidden, by columns that the table has; where one is gone, nobody can tell, so all is read."""
    readable, gone = list[Hidden](), set[str]()
    for each in hidden:
        missing = table.gone(each.columns, each.numbers)
        gone.update(missing)
        readable.append(msgspec.structs.replace(each, columns=(), numbers=()) if missing else each)
    return tuple(readable), sorted(gone)


def _changed(table: TableName, reason: str) -> DatabaseChanged:
    return DatabaseChanged("sweep", table, reason, "The table's next run begins a new timeline; this is tried again")


def _run(table: TableName, state: State, outcome: Outcome, reason: str) -> Run:
    return Run(
        table=str(table),
        outcome=outcome,
        sequential_id=state.sequential_id,
        timestamp=state.timestamp,
        strategy=reason,
    )
