"""The last tick, as the scheduler has noted it: one small parameter, written once per tick."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from tidelog.marks import Mark, Marks

_MARK = "tick"
_ANY = Mark("", 0)
"""Whatever was there: the last one counts."""


class LastTick(msgspec.Struct, frozen=True):
    """A tick whose messages were sent."""

    due: str
    """ISO 8601."""
    at: str
    """When its messages were sent (ISO 8601, UTC)."""
    tables: int
    """How many are ingested."""
    refused: int
    """How many were asked for by name and can't be ingested."""
    unchanged: int = 0
    """To how many of the tables nothing was sent, as nothing has changed in them."""


class Ticks:
    """Notes ticks, and says which was the last.

    Args:
        marks: where it is noted.
        now: the clock, with a zone.
    """

    def __init__(self, marks: Marks, now: Callable[[], datetime]) -> None:
        self._marks = marks
        self._now = now

    def note(self, due: str, tables: int, refused: int, unchanged: int = 0) -> None:
        """Note that the messages of a tick were sent."""
        tick = LastTick(due, self._now().isoformat(timespec="seconds"), tables, refused, unchanged)
        self._marks.write(_MARK, msgspec.json.encode(tick).decode(), _ANY)

    def last(self) -> LastTick | None:
        """Return the last tick, None where none was noted yet."""
        mark = self._marks.read(_MARK)
        try:
            tick = msgspec.json.decode(mark.value, type=LastTick) if mark else None
            return tick if tick and datetime.fromisoformat(tick.at).tzinfo else None
        except (msgspec.DecodeError, ValueError):
            return None
