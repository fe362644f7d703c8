"""The ledger as it is searched: the newest event by some time, without reading them all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from math import ceil, log2
from typing import BinaryIO

from hypothesis import given
from hypothesis import strategies as st

from tidelog.folding import event_after
from tidelog.history import History
from tidelog.lake import event_key
from tidelog.plans import Enqueued
from tidelog.records import encode, sealed
from tidelog.state import State
from tidelog.stores import Listed, NoSuchObjectError
from tidelog.tables import TableName

TABLE = TableName("public", "t")
BEGIN = datetime(2026, 11, 23, tzinfo=UTC)


class Shelf:
    """A store in memory that counts what is read."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.read_keys: list[str] = []

    def keys(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """List."""
        return (Listed(key, 0, BEGIN) for key in sorted(self.objects) if key.startswith(prefix) and key > after)

    def folders(self, prefix: str) -> Iterator[str]:
        """List."""
        return iter({key.removeprefix(prefix).split("/")[0] for key in self.objects if key.startswith(prefix)})

    def holds(self, key: str) -> bool:
        """Look."""
        return key in self.objects

    def read(self, key: str) -> bytes:
        """Read."""
        self.read_keys.append(key)
        if key not in self.objects:
            raise NoSuchObjectError(key)
        return self.objects[key]

    def open(self, key: str) -> BinaryIO:
        """Read."""
        return BytesIO(self.read(key))


def ledger(minutes: list[int]) -> Shelf:
    """Return a ledger of events that were written so many minutes after the begin."""
    state, objects = State(), {}
    for offset, minute in enumerate(minutes, 1):
        at = (BEGIN + timedelta(minutes=minute)).isoformat()
        event = sealed(event_after(state, Enqueued(1), table=str(TABLE), at=at, run="r", finished=0))
        state = event.state
        objects[event_key(TABLE, offset)] = encode(event)
    return Shelf(objects)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=40).map(sorted), st.integers(-1, 100))
def test_the_newest_event_by_a_moment_is_found_by_halving(minutes: list[int], minute: int) -> None:
    """That at the very moment counts; the head is not read again, and of the others only so many as halving takes."""
    shelf = ledger(minutes)
    history = History(shelf)
    head = history.head(TABLE)
    assert head
    assert head.offset == len(minutes)
    shelf.read_keys.clear()
    found = history.before(TABLE, head, BEGIN + timedelta(minutes=minute))
    assert (found.offset if found else 0) == sum(each <= minute for each in minutes)
    assert len(shelf.read_keys) <= ceil(log2(len(minutes) + 1))
