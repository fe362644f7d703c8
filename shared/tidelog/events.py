"""What happened to a table: immutable events, and the state they add up to.

Every event carries the state after it, so that the newest event alone is enough to go on from; `fold` says how that
state follows from the one before, and is what a reader of the ledger can check it against.
"""

from __future__ import annotations

import msgspec

from tidelog.plans import (
    ChunkRead,
    ChunksDropped,
    ChunkSplit,
    Enqueued,
    OpenPlan,
    PlanEvent,
    Planned,
    continued,
    opened,
)
from tidelog.readings import Reading, Segment
from tidelog.windows import Database, log_offset

VERSION = 1


class Past(msgspec.Struct, frozen=True):
    """Up to where a relation was read that the table has no more, in case it comes back."""

    horizon: int
    ahead: tuple[int, ...] = ()
    """Delta-coded (`deltas`)."""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the events of a table add up to."""

    offset: int = 0
    """Of the last event; 0 before the first."""
    timeline: int = 1
    sequential_id: int = 0
    """Of the last increment; 0 before the first."""
    horizon: int = 0
    """Where the next window starts; 0 where nothing was read on this timeline."""
    ahead: tuple[int, ...] = ()
    """Ids at or above the horizon that are emitted, delta-coded (`deltas`)."""
    timestamp: str | None = None
    """The watermark: the latest timestamp ingested."""
    bound: str | None = None
    """Lower bound in time of the next window."""
    read_at: str | None = None
    """Server's time of the last reading that found rows."""
    database: Database | None = None
    oid: int = 0
    leaves: tuple[int, ...] = ()
    """Relations read up to the horizon."""
    past: dict[int, Past] = {}
    """Relations that were read and are no longer part of the table."""
    schema: str | None = None
    """Fingerprint of the table's schema document."""
    plans: tuple[OpenPlan, ...] = ()
    """Large reads under way."""
    wal_position: str | None = None
    """All that was read on this timeline is before it in the write-ahead log."""
    standby: bool = False
    """A standby was read last."""

    def plan(self, number: int) -> OpenPlan | None:
        """Return a plan that is under way, None where it is over or never was."""
        return next((plan for plan in self.plans if plan.number == number), None)


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


class SchemaChanged(msgspec.Struct, frozen=True, tag="schema_changed"):
    """The columns, types, defaults or the key changed."""

    schema: str
    difference: str


class TimelineStarted(msgspec.Struct, frozen=True, tag="timeline_started"):
    """Transaction ids before and after can't be compared: the window starts again."""

    timeline: int
    reason: str
    database: Database
    resume: State | None
    """An earlier state whose window is still good; None where the table is read whole."""


class Remade(msgspec.Struct, frozen=True, tag="remade"):
    """A committed segment whose upload was gone before it was published was made by reading its window again."""

    of: int
    """Offset of the event that committed it."""
    segment: Segment


What = (
    Snapshotted
    | Ingested
    | Supplied
    | Advanced
    | SchemaChanged
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


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Return the event as it is stored."""
    return msgspec.json.format(_encoder.encode(event), indent=1) + b"\n"


def decode(data: bytes) -> Event:
    """Read an event.

    Raises:
        msgspec.DecodeError: the data is not an event of a version this code knows.
    """
    event = _decoder.decode(data)
    if event.version != VERSION:
        raise msgspec.ValidationError(f"version {event.version} is not {VERSION}")
    return event


def event_after(before: State, what: What, *, table: str, at: str, run: str, finished: int) -> Event:
    """Return the event that follows on a state."""
    return Event(VERSION, table, before.offset + 1, at, run, finished, what, fold(before, what))


def fold(before: State, what: What) -> State:
    """Return the state after something happened."""
    match what:
        case Snapshotted():
            after = _read(before, what.reading, schema=what.segment.schema, sequential_id=before.sequential_id)
        case Ingested():
            after = _read(before, what.reading, schema=what.segment.schema, sequential_id=what.sequential_id)
        case Advanced():
            after = _read(before, what.reading, schema=before.schema, sequential_id=before.sequential_id)
        case Supplied():
            after = msgspec.structs.replace(before, sequential_id=what.sequential_id, timestamp=what.timestamp)
        case SchemaChanged():
            after = msgspec.structs.replace(before, schema=what.schema)
        case TimelineStarted():
            after = _restarted(before, what)
        case Remade():
            after = before
        case Planned() | Enqueued() | ChunkRead() | ChunkSplit() | ChunksDropped():
            after = _carried_on(before, what)
    return msgspec.structs.replace(after, offset=before.offset + 1)


def _read(before: State, reading: Reading, *, schema: str | None, sequential_id: int) -> State:
    leaves = tuple(leaf.oid for leaf in reading.leaves)
    gone = {oid: Past(before.horizon, before.ahead) for oid in before.leaves if oid not in leaves}
    kept = {oid: past for oid, past in before.past.items() if oid not in leaves}
    return State(
        timeline=before.timeline,
        sequential_id=sequential_id,
        horizon=reading.horizon,
        ahead=reading.ahead,
        timestamp=reading.timestamp,
        bound=reading.next_bound,
        read_at=reading.read_at,
        database=reading.database,
        oid=reading.oid,
        leaves=leaves,
        past=kept | gone,
        schema=schema,
        plans=before.plans,
        wal_position=_later(before, reading),
        standby=reading.standby,
    )


def _later(before: State, reading: Reading) -> str | None:
    return max(before.wal_position, reading.wal_position, key=log_offset)


def _restarted(before: State, what: TimelineStarted) -> State:
    """Return the state of a new timeline.

    Where it resumes from an earlier state, what chunks have read since is read again: they may have left out a row for
    a newer version that is lost. Backfills go on, below the horizon that it resumes from. A relation that is forgotten
    since stays so.
    """
    resume = what.resume or State()
    known = {*before.leaves, *before.past}
    plans = [msgspec.structs.replace(plan, sent=False) for plan in resume.plans if plan.kind != "backfill"]
    plans += [plan for plan in before.plans if plan.kind == "backfill" and what.resume]
    return msgspec.structs.replace(
        resume,
        timeline=what.timeline,
        sequential_id=before.sequential_id,
        database=what.database,
        standby=False,
        schema=before.schema,
        leaves=tuple(oid for oid in resume.leaves if oid in known),
        past={oid: past for oid, past in resume.past.items() if oid in known},
        plans=tuple(msgspec.structs.replace(plan, horizon=min(plan.horizon, resume.horizon)) for plan in plans),
    )


def _carried_on(before: State, what: PlanEvent) -> State:
    """Return the state after something happened to a plan."""
    after, plans = before, continued(before.plans, what)
    match what:
        case Planned():
            if what.kind != "backfill" and not what.instead:
                after = _read(before, what.reading, schema=what.schema, sequential_id=before.sequential_id)
            else:
                after = msgspec.structs.replace(before, wal_position=_later(before, what.reading))
            begun = opened(what, before.offset + 1)
            plans = plans if begun.over else (*plans, begun)
        case ChunksDropped():
            after = msgspec.structs.replace(
                before,
                leaves=tuple(oid for oid in before.leaves if oid not in what.leaves),
                past={oid: past for oid, past in before.past.items() if oid not in what.leaves},
            )
    return msgspec.structs.replace(after, plans=plans)
