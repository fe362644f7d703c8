"""From events back to windows: what a chunk of a plan reads, and what an event has read."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tidelog.hidden import Unseen
from tidelog.planning import Findable, Part
from tidelog.plans import Chunk, Planned, Span
from tidelog.readings import LeafReading, Reading, undelta
from tidelog.tables import Table
from tidelog.windows import REACH, Bound, Times, Window


def chunk_parts(table: Table, plan: Planned, chunk: Chunk, horizon: int) -> Iterator[Part]:
    """Yield the windows of a chunk, of those leaves that the table still has.

    Args:
        table: the table.
        plan: its plan.
        chunk: the chunk.
        horizon: row versions below it are read.
    """
    read = {leaf.oid: leaf for leaf in plan.reading.leaves}
    pages = (chunk.first, chunk.end) if chunk.leaf else None
    for leaf in table.leaves:
        if leaf.oid in read and chunk.leaf in (0, leaf.oid):
            before = read[leaf.oid]
            ahead = undelta(plan.reading.ahead_of(before))
            times = _times(table, plan.span, chunk) if plan.span else None
            hidden = tuple(each for each in plan.hidden if leaf.oid in each.leaves)
            gone = any(table.gone(each.columns, each.numbers) for each in hidden)  # Nobody can tell: all is read.
            unseen = Unseen(hidden, table.times) if hidden and not gone else None
            yield Part(leaf, Window(before.start, ahead, None, horizon, (), pages, times, unseen))


def _times(table: Table, span: Span, chunk: Chunk) -> Times:
    columns = tuple((column, table.times[column] == "date") for column in span.columns)
    return Times(columns, span.since, chunk.since or span.since, chunk.until or span.until)


def of_rewritten(plan: Planned, leaf: int, horizon: int, now: int) -> Reading:
    """Return what is to be read of a leaf that was rewritten while a plan was under way.

    VACUUM FULL and CLUSTER keep the rows' transaction ids. pg_repack and its like copy rows under an id of their own,
    and windows of the old file may have passed that when the files are exchanged; so all that they have passed is read.
    A sweep goes on as it was: what it looks for, bounded windows have not read by another id either.

    Args:
        plan: the plan.
        leaf: its oid.
        horizon: the plan's.
        now: the state's, from which on windows read the new file.
    """
    if plan.kind == "sweep":
        leaves = tuple(each for each in plan.reading.leaves if each.oid == leaf)
        return msgspec.structs.replace(plan.reading, horizon=horizon, leaves=leaves)
    leaves = (LeafReading(leaf),)
    return msgspec.structs.replace(plan.reading, horizon=max(horizon, now), ahead=(), before=(), leaves=leaves)


def again(opened: Findable, reading: Reading) -> Iterator[Part]:
    """Yield the windows that an event has read, as far as its relations and its transaction ids are still there."""
    snapshot = opened.snapshot
    if not is_same(opened, reading):
        return
    read = {leaf.oid: leaf for leaf in reading.leaves}
    for leaf in opened.table.leaves:
        before = read.get(leaf.oid)
        if before and snapshot.next - (before.start or reading.horizon) <= REACH:
            bounded = before.bounded and not opened.table.gone(reading.columns, reading.numbers)
            bound = Bound(reading.columns, reading.bound) if bounded and reading.bound else None
            ahead, emitted = undelta(reading.ahead_of(before)), undelta(reading.ahead)
            yield Part(leaf, Window(before.start, ahead, bound, reading.horizon, emitted))


def is_same(opened: Findable, reading: Reading) -> bool:
    """Say whether this is the table that was read."""
    snapshot, was = opened.snapshot, reading.database
    here = (opened.table.oid, snapshot.database.system, snapshot.database.oid)
    return here == (reading.oid, was.system, was.oid)
