"""What an operator may set about the reading of tables."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from tidelog.tablesettings import TableSettings


class Limits(msgspec.Struct, frozen=True):
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

    def of(self, settings: TableSettings) -> Limits:
        """Return the limits of one table."""
        look_back = self.look_back if settings.look_back is None else settings.look_back
        return replace(self, look_back=look_back, chunk_bytes=settings.chunk_bytes or self.chunk_bytes)
