"""From a table's state to the windows of its next run, and from an event back to the windows it has read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tidelog import timestamps
from tidelog.continuity import current_database
from tidelog.events import LeafReading, Past, Reading, State, deltas, undelta
from tidelog.tables import Leaf, Table
from tidelog.windows import AHEAD_CAP, REACH, Bound, Found, Snapshot, Strategy, Window, choose_strategy, next_bound


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


@dataclass(frozen=True, slots=True)
class Part:
    """A window of one leaf."""

    leaf: Leaf
    window: Window


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads.

    Attributes:
        parts: the windows that hold rows.
        rows: how many.
        reading: what the event will say of it.
    """

    parts: tuple[Part, ...]
    rows: int
    reading: Reading


def plan_windows(opened: Findable, state: State, look_back: float, time_bound_bytes: int) -> Plan:
    """Find what a table's next window holds.

    Args:
        opened: the table.
        state: its state.
        look_back: seconds before the watermark that a bound in time leaves open.
        time_bound_bytes: from this size on a table is read through its indexed timestamp columns.
    """
    table, snapshot = opened.table, opened.snapshot
    strategy = choose_strategy(table, time_bound_bytes=time_bound_bytes)
    windows = [(leaf, _window(leaf, state, strategy, snapshot.next)) for leaf in table.leaves]
    emitted = {xid for _, window in windows for xid in window.ahead} | set(undelta(state.ahead))
    emitted = {xid for xid in emitted if xid >= snapshot.horizon}
    found = [opened.find(leaf, window, table.timestamp_columns) for leaf, window in windows]
    above = {xid for one in found for xid in one.above}
    if below := len(emitted | above) > AHEAD_CAP:
        also = tuple(sorted(emitted))
        windows = [(leaf, replace(window, end=snapshot.horizon, also=also)) for leaf, window in windows]
        found = [opened.find(leaf, window, table.timestamp_columns) for leaf, window in windows]
        above = set()
    watermark = timestamps.latest([state.timestamp, *(text for one in found for text in one.timestamps)])
    reading = Reading(
        leaves=tuple(
            LeafReading(leaf.oid, window.start, deltas(window.ahead), window.bound is not None)
            for leaf, window in windows
        ),
        columns=strategy.columns,
        bound=state.bound if strategy.columns else None,
        below=below,
        strategy=f"{strategy.name}: {strategy.reason}",
        database=current_database(state, snapshot),
        oid=table.oid,
        horizon=snapshot.horizon,
        ahead=deltas(emitted | above),
        read_at=snapshot.read_at,
        timestamp=watermark,
        next_bound=next_bound(state.bound, watermark, snapshot.read_at, look_back),
    )
    parts = tuple(Part(leaf, window) for (leaf, window), one in zip(windows, found, strict=True) if one.rows)
    return Plan(parts, sum(one.rows for one in found), reading)


def _window(leaf: Leaf, state: State, strategy: Strategy, next_xid: int) -> Window:
    """Return the next window of a leaf: all of it where it was never read."""
    if state.horizon and leaf.oid in state.leaves:
        bound = Bound(strategy.columns, state.bound) if strategy.columns and state.bound else None
        return Window(state.horizon, undelta(state.ahead), bound)
    past = state.past.get(leaf.oid, Past(0))
    if past.horizon and next_xid - past.horizon <= REACH:
        return Window(past.horizon, undelta(past.ahead))
    return Window()


def again(opened: Findable, reading: Reading) -> Iterator[Part]:
    """Yield the windows that an event has read, as far as its relations and its transaction ids are still there."""
    snapshot, was = opened.snapshot, reading.database
    here = (opened.table.oid, snapshot.database.system, snapshot.database.oid)
    if here != (reading.oid, was.system, was.oid):
        return
    read = {leaf.oid: leaf for leaf in reading.leaves}
    for leaf in opened.table.leaves:
        before = read.get(leaf.oid)
        if before and snapshot.next - (before.start or reading.horizon) <= REACH:
            bound = Bound(reading.columns, reading.bound) if before.bounded and reading.bound else None
            ahead, emitted = undelta(before.ahead), undelta(reading.ahead)
            yield Part(leaf, Window(before.start, ahead, bound, reading.horizon, emitted))
