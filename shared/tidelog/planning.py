"""From a table's state to the windows of its next run, in one piece or in chunks, and from events back to windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from msgspec.structs import replace as changed

from tidelog import timestamps
from tidelog.continuity import current_database
from tidelog.events import Past, State
from tidelog.plans import Chunk, Planned, PlannedLeaf, Span
from tidelog.readings import LeafReading, Reading, deltas, undelta
from tidelog.tables import Leaf, Table
from tidelog.windows import (
    AHEAD_CAP,
    REACH,
    Bound,
    Found,
    Snapshot,
    Strategy,
    Times,
    Window,
    choose_strategy,
    next_bound,
)

LOOKING = 64
"""A byte that is looked at and not taken costs this part of one that is read."""
_UNSURE_SECONDS = 86400.0


class Findable(Protocol):
    """A table whose windows can be looked into, all as of one snapshot."""

    @property
    def table(self) -> Table:
        """The table."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot."""

    def find(self, leaf: Leaf, window: Window, timestamp_columns: Sequence[str]) -> Found:
        """Say what a window of a leaf holds."""

    def estimate(self, leaf: Leaf, window: Window) -> int:
        """Return how many row versions a window of a leaf holds, roughly."""

    def latest(self, columns: Sequence[str]) -> str | None:
        """Return the latest value in some columns, each of which leads an index of every leaf."""


@dataclass(frozen=True, slots=True)
class Part:
    """A window of one leaf."""

    leaf: Leaf
    window: Window


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator may set. Durations are seconds, sizes bytes."""

    look_back: float
    """Before the watermark, that a bound in time leaves open."""
    time_bound_bytes: int
    """From this size on a table is read through its indexed timestamp columns."""
    chunk_bytes: int
    """More than this is not read at a time."""
    failover_margin: float
    fresh: float
    """For how long it is not noted again that a table without new rows was read."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """A moment, and the first transaction id that was not given out then."""

    read_at: str
    next: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads.

    Attributes:
        parts: the windows that hold rows.
        rows: how many.
        reading: what the event will say of it.
        snapshot: under which it was found.
        leaves: where it is too much for one run, the relations that chunks are cut of.
        restless: whether its bound in time would be better for a moment in which no transaction is under way.
    """

    parts: tuple[Part, ...]
    rows: int
    reading: Reading
    snapshot: Snapshot
    leaves: tuple[PlannedLeaf, ...] = ()
    restless: bool = False


def plan_windows(opened: Findable, state: State, limits: Limits, quiet: Quiet | None = None) -> Plan:
    """Find what a table's next window holds, or that it is too much for one run.

    Args:
        opened: the table.
        state: its state.
        limits: what an operator has set.
        quiet: where transactions were running when it was found to be too much: a moment after which all that are
            running now began.
    """
    table, snapshot = opened.table, opened.snapshot
    strategy = choose_strategy(table, time_bound_bytes=limits.time_bound_bytes)
    windows = [(leaf, _window(leaf, state, strategy, snapshot.next)) for leaf in table.leaves]
    emitted = {xid for _, window in windows for xid in window.ahead} | set(undelta(state.ahead))
    emitted = {xid for xid in emitted if xid >= snapshot.horizon}
    work = {leaf.oid: _work(opened, leaf, window, limits.chunk_bytes) for leaf, window in windows}
    some = any(window.start < snapshot.horizon for _, window in windows)  # that chunks, which read below it, would find
    if some and sum(work.values()) > limits.chunk_bytes:
        return _in_chunks(opened, state, windows, emitted, _Work(work, strategy.columns, limits, quiet))
    found = [opened.find(leaf, window, table.timestamp_columns) for leaf, window in windows]
    below = {
        leaf.oid: min(leaf.size, (one.rows - one.rows_above) * leaf.width)
        for (leaf, _), one in zip(windows, found, strict=True)
    }
    if state.horizon and sum(below.values()) > limits.chunk_bytes:
        work = {oid: max(work[oid], taken) if taken else 0 for oid, taken in below.items()}
        return _in_chunks(opened, state, windows, emitted, _Work(work, strategy.columns, limits, quiet))
    above = {xid for one in found for xid in one.above}
    if capped := len(emitted | above) > AHEAD_CAP:
        also = tuple(sorted(emitted))
        windows = [(leaf, replace(window, end=snapshot.horizon, also=also)) for leaf, window in windows]
        found = [opened.find(leaf, window, table.timestamp_columns) for leaf, window in windows]
        above = set()
    watermark = timestamps.latest([state.timestamp, *(text for one in found for text in one.timestamps)])
    reading = _reading(opened, state, windows, strategy, below=capped, emitted=emitted | above, watermark=watermark)
    if not capped:  # What waits may be dated before the watermark, for as long as it waits.
        reading = changed(reading, next_bound=next_bound(state.bound, watermark, snapshot.read_at, limits.look_back))
    parts = tuple(Part(leaf, window) for (leaf, window), one in zip(windows, found, strict=True) if one.rows)
    return Plan(parts, sum(one.rows for one in found), reading, snapshot)


def _work(opened: Findable, leaf: Leaf, window: Window, chunk_bytes: int) -> float:
    """Return what a window costs at least, in bytes that are read."""
    if not window.start:
        return leaf.size
    looked_at = leaf.bytes
    if window.bound and opened.table.bytes > chunk_bytes * LOOKING:
        looked_at = min(looked_at, int(opened.estimate(leaf, Window(bound=window.bound)) * leaf.width))
    return looked_at / LOOKING


@dataclass(frozen=True, slots=True)
class _Work:
    """What it takes to read windows: bytes by the oid of each leaf; 0 where a look has found nothing."""

    bytes: Mapping[int, float]
    columns: tuple[str, ...]
    limits: Limits
    quiet: Quiet | None


def _in_chunks(
    opened: Findable, state: State, windows: Sequence[tuple[Leaf, Window]], emitted: set[int], work: _Work
) -> Plan:
    """Cut windows into chunks, all below the horizon. Their pages are gone through anyway: a bound would save nothing.

    Rows at or above the horizon that are there already are the next window's, so its bound in time must not lie behind
    them: they are of transactions that got their ids after the oldest running one got its own. Where nobody can tell
    when that was, a day has to do.
    """
    table, snapshot, limits = opened.table, opened.snapshot, work.limits
    size = sum(work.bytes.values()) / 2**20
    strategy = Strategy("chunks", work.columns, f"it is too much for one run ({size:,.0f} MiB to read)")
    windows = [(leaf, replace(window, bound=None) if work.bytes[leaf.oid] else window) for leaf, window in windows]
    watermark = state.timestamp or opened.latest(_indexed_times(table))
    reading = _reading(opened, state, windows, strategy, below=True, emitted=emitted, watermark=watermark)
    since, seconds, still = snapshot.read_at, limits.look_back, snapshot.horizon == snapshot.next
    if not still and work.quiet and work.quiet.next <= snapshot.horizon:
        since = work.quiet.read_at
    elif not still:
        seconds = max(seconds, _UNSURE_SECONDS)
    bound = timestamps.latest([state.bound, timestamps.before(since, seconds)])
    leaves = tuple(planned(leaf, work.bytes[leaf.oid], limits.chunk_bytes) for leaf, _ in windows)
    return Plan(
        (),
        0,
        changed(reading, next_bound=bound if table.timestamp_columns else None),
        snapshot,
        tuple(leaf for leaf in leaves if leaf.chunks),
        restless=bool(table.timestamp_columns) and not still and work.quiet is None,
    )


def _indexed_times(table: Table) -> tuple[str, ...]:
    return tuple(column for column in table.timestamp_columns if all(column in leaf.indexed for leaf in table.leaves))


def planned(leaf: Leaf, work: float, chunk_bytes: int) -> PlannedLeaf:
    """Return a leaf, divided so that no chunk is more work than it may be, as far as it is spread evenly."""
    chunks = min(leaf.pages, ceil(work / chunk_bytes))
    return PlannedLeaf(leaf.oid, str(leaf.table_name), leaf.filenode, leaf.pages, chunks, leaf.size)


def whole_reading(opened: Findable, state: State) -> Reading:
    """Return a reading of all rows of a table that are there below the horizon."""
    windows = [(leaf, Window()) for leaf in opened.table.leaves]
    strategy = Strategy("chunks", (), "it was asked for")
    return _reading(opened, state, windows, strategy, below=True, emitted=set(), watermark=state.timestamp)


def _reading(
    opened: Findable,
    state: State,
    windows: Sequence[tuple[Leaf, Window]],
    strategy: Strategy,
    *,
    below: bool,
    emitted: set[int],
    watermark: str | None,
) -> Reading:
    snapshot = opened.snapshot
    return Reading(
        leaves=tuple(
            LeafReading(leaf.oid, window.start, deltas(window.ahead), window.bound is not None)
            for leaf, window in windows
        ),
        columns=strategy.columns,
        bound=state.bound if strategy.columns else None,
        below=below,
        strategy=f"{strategy.name}: {strategy.reason}",
        database=current_database(state, snapshot),
        oid=opened.table.oid,
        horizon=snapshot.horizon,
        ahead=deltas(emitted),
        read_at=snapshot.read_at,
        timestamp=watermark,
        next_bound=state.bound,
        wal_position=snapshot.wal_position,
        standby=snapshot.standby,
    )


def _window(leaf: Leaf, state: State, strategy: Strategy, next_xid: int) -> Window:
    """Return the next window of a leaf: all of it where it was never read."""
    if state.horizon and leaf.oid in state.leaves:
        bound = Bound(strategy.columns, state.bound) if strategy.columns and state.bound else None
        return Window(state.horizon, undelta(state.ahead), bound)
    past = state.past.get(leaf.oid, Past(0))
    if past.horizon and next_xid - past.horizon <= REACH:
        return Window(past.horizon, undelta(past.ahead))
    return Window()


def chunk_parts(table: Table, plan: Planned, chunk: Chunk, horizon: int) -> Iterator[Part]:
    """Yield the windows of a chunk, of those leaves that the table still has.

    Args:
        table: the table.
        plan: its plan.
        chunk: the chunk.
        horizon: row versions below it are read; and those above it that the table's next window leaves out since they
            were emitted, though not of this leaf.
    """
    read = {leaf.oid: leaf for leaf in plan.reading.leaves}
    pages = (chunk.first, chunk.end) if chunk.leaf else None
    for leaf in table.leaves:
        if leaf.oid in read and chunk.leaf in (0, leaf.oid):
            before = read[leaf.oid]
            times = _times(table, plan.span, chunk) if plan.span else None
            ahead, emitted = undelta(before.ahead), undelta(plan.reading.ahead)
            window = Window(before.start, ahead, end=horizon, also=emitted, pages=pages, times=times)
            yield Part(leaf, window)


def _times(table: Table, span: Span, chunk: Chunk) -> Times:
    columns = tuple((column, table.is_date(column)) for column in span.columns)
    return Times(columns, span.since, chunk.since or span.since, chunk.until or span.until)


def again(opened: Findable, reading: Reading) -> Iterator[Part]:
    """Yield the windows that an event has read, as far as its relations and its transaction ids are still there."""
    snapshot = opened.snapshot
    if not is_same(opened, reading):
        return
    read = {leaf.oid: leaf for leaf in reading.leaves}
    for leaf in opened.table.leaves:
        before = read.get(leaf.oid)
        if before and snapshot.next - (before.start or reading.horizon) <= REACH:
            bound = Bound(reading.columns, reading.bound) if before.bounded and reading.bound else None
            ahead, emitted = undelta(before.ahead), undelta(reading.ahead)
            yield Part(leaf, Window(before.start, ahead, bound, reading.horizon, emitted))


def is_same(opened: Findable, reading: Reading) -> bool:
    """Say whether this is the table that was read."""
    snapshot, was = opened.snapshot, reading.database
    here = (opened.table.oid, snapshot.database.system, snapshot.database.oid)
    return here == (reading.oid, was.system, was.oid)
