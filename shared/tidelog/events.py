"""What happened to a table: immutable events.

Every event carries the state after it, so that the newest event alone is enough to go on from.
"""

from __future__ import annotations

import msgspec

from tidelog.plans import (
    ChunkRead,
    ChunksDropped,
    ChunkSplit,
    Enqueued,
    Planned,
)
from tidelog.readings import Reading, Segment
from tidelog.state import State
from tidelog.windows import Database

VERSION = 1


class Snapshotted(msgspec.Struct, frozen=True, tag="snapshotted"):
    """The whole table was read: its first segment on a timeline."""

    segment: Segment
    reading: Reading


class Ingested(msgspec.Struct, frozen=True, tag="ingested"):
    """A window was read: an increment."""

    segment: Segment
    reading: Reading
    sequential_id: int


class Supplied(msgspec.Struct, frozen=True, tag="supplied"):
    """Rows that tidelog did not read itself were written as an increment; the window stays where it is."""

    segment: Segment
    sequential_id: int
    timestamp: str | None


class Advanced(msgspec.Struct, frozen=True, tag="advanced"):
    """A window held no row, but the horizon had fallen far behind and was moved up."""

    reading: Reading


class SchemaChanged(msgspec.Struct, frozen=True, tag="schema_changed", omit_defaults=True):
    """The columns, types, defaults, the key or what the table inherits from changed."""

    schema: str
    difference: str
    outdated: str = ""
    """What of it makes lines written before say something else than the table, though no row has a new version."""
    again: bool = False
    """Whether the table therefore counts as never read: the next increment is all of it, and its plans end."""
    remedy: str = ""
    """Where it is too large for that: the command that has it read again."""


class PartitionsChanged(msgspec.Struct, frozen=True, tag="partitions_changed", omit_defaults=True):
    """Partitions were attached, detached, dropped or renamed. What was read of the others is not touched by that."""

    partitions: str
    difference: str
    again: tuple[int, ...] = ()
    """Those that came back and may have been altered meanwhile: they count as never read."""


class TimelineStarted(msgspec.Struct, frozen=True, tag="timeline_started"):
    """Transaction ids before and after can't be compared: the window starts again."""

    timeline: int
    reason: str
    database: Database
    resume: State | None
    """An earlier state whose window is still good; None where the table is read whole."""
    outdated: str = ""
    """What makes lines written before say something else than the table, whose rows are older than they."""
    remedy: str = ""
    """Where it is too large to be read whole for that: the command that has it read again."""


class Remade(msgspec.Struct, frozen=True, tag="remade", omit_defaults=True):
    """A committed segment whose upload was gone before it was published was made by reading its window again."""

    of: int
    """Offset of the event that committed it."""
    segment: Segment
    lost: tuple[int, ...] = ()
    """Relations of which it may lack rows, as they have left or were rewritten: they count as never read."""


What = (
    Snapshotted
    | Ingested
    | Supplied
    | Advanced
    | SchemaChanged
    | PartitionsChanged
    | TimelineStarted
    | Remade
    | Planned
    | Enqueued
    | ChunkRead
    | ChunkSplit
    | ChunksDropped
)


class Event(msgspec.Struct, frozen=True):
    """One record of the ledger."""

    version: int
    table: str
    offset: int
    at: str
    """When it was written, by the worker's clock (ISO 8601, UTC)."""
    run: str
    """Id of the try that wrote it: no two tries share one."""
    finished: int
    """Every segment up to this offset was published when it was written."""
    what: What
    state: State
    """After this event."""
    previous: str = ""
    """Digest of the event before it; empty for the first."""
    digest: str = ""
    """Of this event as it is stored (`records`)."""

    @property
    def segment(self) -> Segment | None:
        """The segment that it commits, None where it commits none."""
        match self.what:
            case (
                Snapshotted(segment=segment)
                | Ingested(segment=segment)
                | Supplied(segment=segment)
                | Remade(segment=segment)
                | ChunkRead(segment=segment)
            ):
                return segment
        return None

    @property
    def reading(self) -> Reading | None:
        """What was read for it, None where nothing was."""
        match self.what:
            case Snapshotted(reading=reading) | Ingested(reading=reading) | Advanced(reading=reading):
                return reading
        return None
