"""From a table's state to the windows of its next run, in one piece or in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import ceil
from typing import Protocol

import msgspec
from msgspec.structs import replace

from tidelog import timestamps
from tidelog.continuity import current_database
from tidelog.limits import Limits
from tidelog.plans import PlannedLeaf
from tidelog.readings import LeafReading, Moment, Reading, deltas, undelta
from tidelog.state import Past, State
from tidelog.tables import Leaf, Table
from tidelog.tablesettings import TableSettings
from tidelog.windows import (
    AHEAD_CAP,
    EPOCH,
    REACH,
    Bound,
    Found,
    Snapshot,
    Strategy,
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
    def settings(self) -> TableSettings:
        """What its configuration says."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot."""

    def find(self, leaf: Leaf, window: Window, timestamp_columns: Sequence[str]) -> Found:
        """Say what a window of a leaf holds."""

    def estimate(self, leaf: Leaf, window: Window) -> int:
        """Return how many row versions a window of a leaf holds, roughly."""

    def latest(self, columns: Sequence[str]) -> str | None:
        """Return the latest value in some columns, each of which leads an index of every leaf."""


class Part(msgspec.Struct, frozen=True):
    """A window of one leaf."""

    leaf: Leaf
    window: Window


class Plan(msgspec.Struct, frozen=True):
    """What a run reads.

    Attributes:
        parts: the windows that hold rows.
        rows: how many.
        reading: what the event will say of it.
        snapshot: under which it was found.
        leaves: where it is too much for one run, the relations that chunks are cut of.
        restless: whether it is better planned once the transactions under way have ended: since when they are is not
            known, and so no bound in time for the rows that they leave.
        whole: whether nothing that the snapshot sees is left to the next run, but for what bounds in time hide.
        unproven: transactions that are to be asked about: it is to be planned anew, under a later snapshot.
    """

    parts: tuple[Part, ...]
    rows: int
    reading: Reading
    snapshot: Snapshot
    leaves: tuple[PlannedLeaf, ...] = ()
    restless: bool = False
    whole: bool = False
    unproven: frozenset[int] = frozenset()


def plan_windows(
    opened: Findable,
    state: State,
    limits: Limits,
    quiet: Moment | None = None,
    committed: Collection[int] | None = None,
) -> Plan:
    """Find what a table's next window holds, or that it is too much for one run.

    Args:
        opened: the table.
        state: its state.
        limits: what an operator has set for all tables.
        quiet: a moment at which it was found to be too much, and since when it was waited for transactions to end.
        committed: those of the transactions asked about that had committed before the snapshot; None if nobody asked.

    Raises:
        InvalidSetting: the table's configuration does not fit it.
    """
    table, snapshot = opened.table, opened.snapshot
    state, limits = _of_columns(state, table), limits.of(opened.settings)
    strategy, windows = next_windows(opened, state, limits)
    known = {id(window.ahead): window.ahead for _, window in windows}.values()  # Mostly one, of thousands of windows.
    emitted = {xid for xids in (undelta(state.ahead), *known) for xid in xids if xid >= snapshot.horizon}
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
    seen = above = {xid for one in found for xid in one.above}
    if snapshot.limit >= EPOCH and not above <= emitted:  # They may be those of rows that were frozen an epoch ago.
        if committed is None:
            reading = _reading(opened, state, windows, strategy, below=True, emitted=emitted, watermark=state.timestamp)
            return Plan((), 0, reading, snapshot, unproven=frozenset(above - emitted))
        above = above & (emitted | set(committed))
    if capped := len(emitted | above) > AHEAD_CAP:
        above = set()
    if above != seen:
        also = tuple(sorted(emitted | above))
        windows = [(leaf, replace(window, end=snapshot.horizon, also=also)) for leaf, window in windows]
        found = [opened.find(leaf, window, table.timestamp_columns) for leaf, window in windows]
    watermark = timestamps.latest([state.timestamp, *(text for one in found for text in one.timestamps)])
    whole = not capped and above == seen
    emitted |= above
    reading = _reading(opened, state, windows, strategy, below=not whole, emitted=emitted, watermark=watermark)
    if not capped:  # What waits may be dated before the watermark, for as long as it waits.
        reading = replace(reading, next_bound=next_bound(state.bound, watermark, reading.began, limits.look_back))
    parts = tuple(Part(leaf, window) for (leaf, window), one in zip(windows, found, strict=True) if one.rows)
    whole = whole and len(windows) == len(table.leaves)
    return Plan(parts, sum(one.rows for one in found), reading, snapshot, whole=whole)


def next_windows(opened: Findable, state: State, limits: Limits) -> tuple[Strategy, list[tuple[Leaf, Window]]]:
    """Return how a table's next windows are found, and those; it raises what `plan_windows` does."""
    state, limits = _of_columns(state, opened.table), limits.of(opened.settings)
    strategy = choose_strategy(opened.table, time_bound_bytes=limits.time_bound_bytes, settings=opened.settings)
    known, leaves = undelta(state.ahead), opened.table.leaves
    return strategy, [(leaf, _window(leaf, state, strategy, known, opened.snapshot.next)) for leaf in leaves]


def _of_columns(state: State, table: Table) -> State:
    """Return a state without watermark and bound where a column that they tell of is a timestamp column no more.

    What the others say may lie far behind that: a bound left standing would hide all their rows until they catch up.
    """
    if set(state.times) <= set(table.timestamp_columns):
        return state
    return replace(state, timestamp=None, bound=None)


def _work(opened: Findable, leaf: Leaf, window: Window, chunk_bytes: int) -> float:
    """Return what a window costs at least, in bytes that are read."""
    if not window.start:
        return leaf.size
    looked_at = leaf.bytes
    indexed = window.bound and all(column in leaf.indexed for column in window.bound.columns)
    if indexed and opened.table.bytes > chunk_bytes * LOOKING:
        looked_at = min(looked_at, int(opened.estimate(leaf, Window(bound=window.bound)) * leaf.width))
    return looked_at / LOOKING


class _Work(msgspec.Struct, frozen=True):
    """What it takes to read windows: bytes by the oid of each leaf; 0 where a look has found nothing."""

    bytes: Mapping[int, float]
    columns: tuple[str, ...]
    limits: Limits
    quiet: Moment | None


def _in_chunks(
    opened: Findable, state: State, windows: Sequence[tuple[Leaf, Window]], emitted: set[int], work: _Work
) -> Plan:
    """Cut windows into chunks, all below the horizon. Their pages are gone through anyway: a bound would save nothing.

    Rows at or above the horizon that are there already are the next window's; of a relation that is new to the table so
    are those of ids that were emitted of others. Its bound in time must not lie behind them. Where nobody can tell when
    their transactions got their ids, a day has to do.
    """
    table, snapshot, limits = opened.table, opened.snapshot, work.limits
    size = sum(work.bytes.values()) / 2**20
    strategy = Strategy("chunks", work.columns, f"it is too much for one run ({size:,.0f} MiB to read)")
    windows = [(leaf, replace(window, bound=None) if work.bytes[leaf.oid] else window) for leaf, window in windows]
    watermark = state.timestamp or opened.latest(_indexed_times(table))
    reading = _reading(opened, state, windows, strategy, below=True, emitted=emitted, watermark=watermark)
    if reading.began is None and work.quiet and work.quiet.next <= snapshot.horizon:
        reading = replace(reading, began=work.quiet.at)
    seconds = limits.look_back if reading.began else max(limits.look_back, _UNSURE_SECONDS)
    began = reading.began or snapshot.read_at
    bound = next_bound(state.bound, watermark or began, began, seconds)
    leaves = tuple(planned(leaf, work.bytes[leaf.oid], limits.chunk_bytes) for leaf, _ in windows)
    return Plan(
        (),
        0,
        replace(reading, next_bound=bound if table.timestamp_columns else None),
        snapshot,
        tuple(leaf for leaf in leaves if leaf.chunks),
        restless=bool(table.timestamp_columns and snapshot.seen_at) and reading.began is None and work.quiet is None,
    )


def _indexed_times(table: Table) -> tuple[str, ...]:
    return tuple(column for column in table.timestamp_columns if table.is_indexed(column))


def planned(leaf: Leaf, work: float, chunk_bytes: int) -> PlannedLeaf:
    """Return a leaf, divided so that no chunk is more work than it may be, as far as it is spread evenly."""
    chunks = min(leaf.pages, ceil(work / chunk_bytes))
    return PlannedLeaf(leaf.oid, str(leaf.table_name), leaf.filenode, leaf.pages, chunks, leaf.size)


def first_chunks(table: Table, chunk_bytes: int) -> int:
    """Return in how many chunks a table is read that was never read; 0 where one run does it."""
    if table.size <= chunk_bytes:
        return 0
    return sum(planned(leaf, leaf.size, chunk_bytes).chunks for leaf in table.leaves)


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
    began, moment = _moments(state, snapshot)
    often = Counter(id(window.ahead) for _, window in windows if window.ahead)
    known = next((window.ahead for _, window in windows if 1 < often[id(window.ahead)] == max(often.values())), ())
    return Reading(
        leaves=tuple(
            LeafReading(
                leaf.oid,
                window.start,
                None if known and window.ahead is known else deltas(window.ahead),
                window.bound is not None,
            )
            for leaf, window in windows
        ),
        columns=strategy.columns,
        numbers=opened.table.numbers_of(strategy.columns),
        bound=state.bound if strategy.columns else None,
        below=below,
        strategy=f"{strategy.name}: {strategy.reason}",
        database=current_database(state, snapshot),
        oid=opened.table.oid,
        horizon=snapshot.horizon,
        ahead=deltas(emitted),
        read_at=snapshot.seen_at or snapshot.read_at,
        timestamp=watermark,
        next_bound=state.bound,
        began=began,
        moment=moment,
        partitions=opened.table.partitions.fingerprint if opened.table.partitions else None,
        times=opened.table.timestamp_columns,
        wal_position=snapshot.wal_position,
        standby=snapshot.standby,
        files=opened.table.files,
        before=deltas(known),
    )


def _moments(state: State, snapshot: Snapshot) -> tuple[str | None, Moment | None]:
    """Return since when at most transactions at or above the horizon have their ids, and the moment to look at next.

    Ids are given out in order, those from `next` on after the snapshot. So once the horizon has passed the `next` of an
    earlier snapshot, all that are running or to come got theirs after that one.
    """
    now = Moment(snapshot.seen_at, snapshot.next) if snapshot.seen_at else None
    if now and snapshot.horizon == snapshot.next:
        return now.at, now
    if state.moment and state.moment.next <= snapshot.horizon:
        return state.moment.at, now
    return state.began, state.moment or now


def _window(leaf: Leaf, state: State, strategy: Strategy, known: tuple[int, ...], next_xid: int) -> Window:
    """Return the next window of a leaf: all of it where it was never read. What is known to be emitted is one tuple."""
    if state.horizon and leaf.oid in state.leaves:
        bound = Bound(strategy.columns, state.bound) if strategy.columns and state.bound else None
        return Window(state.horizon, known, bound)
    past = state.past.get(leaf.oid, Past(0))
    if past.horizon and next_xid - past.horizon <= REACH:
        return Window(past.horizon, undelta(past.ahead))
    return Window()
