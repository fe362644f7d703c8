"""How a lake grows, from its ledgers: each event has the totals up to it, so two of them say what came in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidelog.events import Event
from tidelog.history import History
from tidelog.tables import TableName

WINDOW = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Growth:
    """What has come into a lake.

    Attributes:
        tables: how many have a ledger.
        stored: bytes of all segments.
        all_events: of all ledgers.
        bytes: of the segments of the last days.
        events: of the last days.
        seconds: how long those are.
    """

    tables: int
    stored: int
    all_events: int
    bytes: int
    events: int
    seconds: float

    def a_month(self, count: float, hours: float) -> float:
        """Return a count of the last days, by the month; 0 where there were none."""
        return count / self.seconds * hours * 3600 if self.seconds else 0.0


def growth_of(history: History, now: datetime, progress: Callable[[int], object] = lambda _: None) -> Growth:
    """Read how a lake has grown; some twenty objects of each table are read.

    Args:
        history: its events.
        now: the time.
        progress: is told how many tables are read.

    Raises:
        UnreadableData, StoreUnreachable, AccessDenied: as they say.
    """
    stored = all_events = size = events = tables = 0
    longest = timedelta()
    for tables, table in enumerate(history.tables(), 1):
        progress(tables)
        head = history.head(table)
        if head is None:
            continue
        base = _base(history, table, head, now - WINDOW)
        stored, all_events = stored + head.state.bytes, all_events + head.offset
        size, events = size + head.state.bytes - base.state.bytes, events + head.offset - base.offset
        longest = max(longest, now - max(datetime.fromisoformat(base.at), now - WINDOW))
    return Growth(tables, stored, all_events, size, events, longest.total_seconds())


def _base(history: History, table: TableName, head: Event, since: datetime) -> Event:
    """Return the last event before a moment, or the first of all: what that brought came once."""
    low, high = 1, head.offset  # the one that is looked for is in [low, high]
    base = history.read(table, low)
    while low < high:
        middle = (low + high + 1) // 2
        event = history.read(table, middle)
        if datetime.fromisoformat(event.at) < since:
            low, base = middle, event
        else:
            high = middle - 1
    return base
