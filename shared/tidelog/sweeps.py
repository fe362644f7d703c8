"""What the windows of a table have hidden since its last sweep, as its events tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import msgspec
from msgspec.structs import replace

from tidelog.events import Event, TimelineStarted
from tidelog.hidden import Hidden
from tidelog.plans import WINDOWS, Planned
from tidelog.readings import LeafReading, Reading, undelta
from tidelog.state import State

_Bound = tuple[tuple[str, ...], tuple[int, ...], str]
"""Timestamp columns and their numbers, and the bound on them."""


class _Sight(msgspec.Struct, frozen=True):
    """How a transaction's row versions were looked at first: past a bound or all, by which event."""

    bound: _Bound | None
    offset: int


class _Seen(msgspec.Struct):
    """How the row versions of some relations were looked at, by the ids of their transactions."""

    spans: list[tuple[int, int, _Sight]] = msgspec.field(default_factory=list)
    """From one id, up to another: in order, those that lie below the last horizon."""
    early: dict[int, _Sight] = msgspec.field(default_factory=dict)
    """Those at or above the last horizon."""

    def look(self, reading: Reading, leaf: LeafReading, offset: int) -> None:
        """Add a window. What was seen before stays as it was seen first."""
        bound = (reading.columns, reading.numbers, reading.bound) if leaf.bounded and reading.bound else None
        sight = _Sight(bound, offset)
        if not leaf.start:  # All below its horizon, and at or above it what it says.
            self.spans, read = [], set(undelta(reading.ahead))
            self.early = {xid: seen for xid, seen in self.early.items() if xid >= reading.horizon and xid not in read}
        for xid in undelta(reading.ahead_of(leaf)):
            self.early.setdefault(xid, _Sight(None, 0))  # From before the events that are looked at: nothing is hidden.
        at = leaf.start
        for xid in (*sorted(x for x in self.early if leaf.start <= x < reading.horizon), reading.horizon):
            self.spans.append((at, xid, sight))
            if xid in self.early:
                self.spans.append((xid, xid + 1, self.early.pop(xid)))
            at = xid + 1
        self.early = {xid: seen for xid, seen in self.early.items() if xid >= reading.horizon}
        for xid in undelta(reading.ahead):
            self.early.setdefault(xid, sight)

    def copy(self) -> _Seen:
        """Return another one that was looked at alike up to now."""
        return _Seen(list(self.spans), dict(self.early))

    def hidden(self, floor: int, ceiling: int) -> tuple[tuple[int, int, _Bound | None], ...]:
        """Return the ids from a floor up to a ceiling as ranges in order, each with what bound it has."""
        spans = sorted((*self.spans, *((xid, xid + 1, seen) for xid, seen in self.early.items())), key=itemgetter(0))
        cut = [(max(low, floor), min(high, ceiling), seen.bound) for low, high, seen in spans]
        cut = [(low, high, bound) for low, high, bound in cut if low < high]
        filled: list[tuple[int, int, _Bound | None]] = []
        for low, high, bound in cut:
            if filled and filled[-1][1] < low:
                filled.append((filled[-1][1], low, None))
            filled.append((low, high, bound))
        merged = []
        for bound, group in groupby(filled, key=lambda span: span[2]):
            alike = list(group)
            merged.append((alike[0][0], alike[-1][1], bound))
        bounded = [place for place, span in enumerate(merged) if span[2]]
        return tuple(merged[bounded[0] : bounded[-1] + 1]) if bounded else ()


class Unswept(msgspec.Struct, frozen=True):
    """What a sweep has to read.

    Attributes:
        hidden: the row versions, none of them at or above the table's horizon.
        then: offset of the first event that tells of some above it, which are the next sweep's; 0 where there are none.
    """

    hidden: tuple[Hidden, ...]
    then: int


def unswept(state: State, events: Iterable[Event]) -> Unswept:
    """Return what is hidden in a table.

    Args:
        state: its state.
        events: from `state.unswept` up to the state's own.
    """
    windows: list[tuple[int, Reading]] = []
    for event in events:
        if isinstance(event.what, TimelineStarted):  # What came after the state that it resumes from is void.
            resumed = event.what.resume.offset if event.what.resume else 0
            windows = [(offset, reading) for offset, reading in windows if offset <= resumed]
        elif reading := _window(event):
            windows.append((event.offset, reading))
    groups: list[tuple[_Seen, set[int]]] = []
    for offset, reading in windows:
        groups = list(_looked(groups, reading, offset))
    floor = state.swept.horizon if state.swept else 0
    late = [
        sight.offset for seen, _ in groups for xid, sight in seen.early.items() if sight.bound and xid >= state.horizon
    ]
    ranges = ((found, leaves) for seen, leaves in groups if (found := seen.hidden(floor, state.horizon)))
    return Unswept(tuple(each for found, leaves in ranges for each in _written(found, leaves)), min(late, default=0))


def _looked(
    groups: Iterable[tuple[_Seen, set[int]]], reading: Reading, offset: int
) -> Iterator[tuple[_Seen, set[int]]]:
    """Yield the relations, in groups of those that were looked at alike, after one more window."""
    windows: dict[LeafReading, set[int]] = {}
    for leaf in reading.leaves:
        windows.setdefault(replace(leaf, oid=0), set()).add(leaf.oid)
    unknown = {leaf.oid for leaf in reading.leaves}.difference(*(leaves for _, leaves in groups))
    for seen, leaves in (*groups, (_Seen(), unknown)):
        rest = set(leaves)
        for leaf, oids in windows.items():
            if both := rest & oids:
                rest -= both
                one = seen.copy() if rest else seen
                one.look(reading, leaf, offset)
                yield one, both
        if rest:
            yield seen, rest


def _window(event: Event) -> Reading | None:
    """Return the reading of a window, which a backfill's or a sweep's is not.

    That of a relation that was rewritten is one: it is all that windows have passed, hidden or not.
    """
    if isinstance(event.what, Planned):
        return event.what.reading if event.what.kind in WINDOWS else None
    return event.reading


def _written(ranges: tuple[tuple[int, int, _Bound | None], ...], leaves: Iterable[int]) -> Iterator[Hidden]:
    """Yield what is hidden in some relations, for each set of columns that bounds had."""
    for columns, numbers in dict.fromkeys(bound[:2] for _, _, bound in ranges if bound):
        places: dict[_Bound | None, int] = {None: 0}
        for _, _, bound in ranges:
            if bound and bound[:2] == (columns, numbers):
                places.setdefault(bound, len(places))
        yield Hidden(
            leaves=tuple(sorted(leaves)),
            columns=columns,
            numbers=numbers,
            bounds=tuple(bound[2] for bound in places if bound),
            ranges=(ranges[0][0], *(high - low for low, high, _ in ranges)),
            places=tuple(places.get(bound, 0) for _, _, bound in ranges),
        )
