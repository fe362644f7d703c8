"""What happened to a table: immutable events, and how a state follows on the one before.

Every event carries the state after it, so that the newest event alone is enough to go on from; `fold` says how that
state follows from the one before, and is what a reader of the ledger can check it against.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from tidelog.plans import (
    WINDOWS,
    ChunkRead,
    ChunksDropped,
    ChunkSplit,
    Enqueued,
    PlanEvent,
    Planned,
    continued,
    opened,
)
from tidelog.readings import Reading, Segment
from tidelog.state import Past, State, Swept
from tidelog.windows import Database, log_offset

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


def event_after(before: State, what: What, *, table: str, at: str, run: str, finished: int) -> Event:
    """Return the event that follows on a state."""
    return Event(VERSION, table, before.offset + 1, at, run, finished, what, fold(before, what), before.digest)


def follows(before: State, event: Event) -> bool:
    """Say whether an event is the one after a state, and carries the state that it leads to."""
    bare = msgspec.structs.replace(event.state, digest="")
    return event.previous == before.digest and fold(before, event.what) == bare


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
            after = msgspec.structs.replace(_forgotten(before) if what.again else before, schema=what.schema)
        case PartitionsChanged():
            after = _without(msgspec.structs.replace(before, partitions=what.partitions), what.again)
        case TimelineStarted():
            after = _restarted(before, what)
        case Remade():
            after = before
        case Planned() | Enqueued() | ChunkRead() | ChunkSplit() | ChunksDropped():
            after = _carried_on(before, what)
    rows, size = _written(what)
    return msgspec.structs.replace(
        after, offset=before.offset + 1, rows=before.rows + rows, bytes=before.bytes + size, digest=""
    )


def _written(what: What) -> tuple[int, int]:
    """Return the lines that are new in the lake, and their bytes: a segment that is made again counts once."""
    match what:
        case Snapshotted() | Ingested() | Supplied() | ChunkRead(segment=Segment()):
            return (what.segment.rows, what.segment.bytes) if what.segment else (0, 0)
    return 0, 0


def _read(before: State, reading: Reading, *, schema: str | None, sequential_id: int) -> State:
    leaves = tuple(leaf.oid for leaf in reading.leaves)
    bounded = any(leaf.bounded for leaf in reading.leaves)
    gone = {oid: Past(before.horizon, before.ahead) for oid in before.leaves if oid not in leaves}
    kept = {oid: past for oid, past in before.past.items() if oid not in leaves}
    return State(
        timeline=before.timeline,
        sequential_id=sequential_id,
        horizon=reading.horizon,
        ahead=reading.ahead,
        timestamp=reading.timestamp,
        bound=reading.next_bound,
        began=reading.began,
        moment=reading.moment,
        times=reading.times,
        read_at=reading.began if reading.below else reading.read_at,
        below=reading.below,
        database=reading.database,
        oid=reading.oid,
        leaves=leaves,
        past=kept | gone,
        schema=schema,
        partitions=before.partitions or reading.partitions,
        plans=before.plans,
        swept=before.swept,
        unswept=before.unswept or (before.offset + 1 if bounded else 0),
        bounded=before.offset + 1 if bounded else before.bounded,
        rewritten=before.rewritten,
        hole=before.hole,
        strategy=reading.strategy,
        wal_position=_later(before, reading),
        standby=reading.standby,
    )


def _later(before: State, reading: Reading) -> str | None:
    return max(before.wal_position, reading.wal_position, key=log_offset)


def _forgotten(before: State) -> State:
    """Return the state in which every relation counts as never read. Only backfills go on."""
    plans = tuple(plan for plan in before.plans if plan.kind == "backfill")
    return msgspec.structs.replace(before, leaves=(), past={}, plans=plans, hole=0)


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
        partitions=before.partitions if what.resume else None,
        leaves=tuple(oid for oid in resume.leaves if oid in known),
        past={oid: past for oid, past in resume.past.items() if oid in known},
        plans=tuple(msgspec.structs.replace(plan, horizon=min(plan.horizon, resume.horizon)) for plan in plans),
    )


def _carried_on(before: State, what: PlanEvent) -> State:
    """Return the state after something happened to a plan."""
    after, plans = before, continued(before.plans, what)
    match what:
        case Planned():
            if what.kind in WINDOWS and not what.instead:
                after = _read(before, what.reading, schema=what.schema, sequential_id=before.sequential_id)
            else:
                rewritten = before.offset + 1 if what.instead else before.rewritten
                after = msgspec.structs.replace(before, wal_position=_later(before, what.reading), rewritten=rewritten)
            after, plans = _without(after, what.lost), (*plans, opened(what, before.offset + 1))
        case ChunksDropped():
            after, plan = _without(before, what.leaves), before.plan(what.plan)
            if plan and plan.kind in WINDOWS and what.unread and not what.leaves:
                after = msgspec.structs.replace(after, hole=before.offset + 1)
    return _ended(msgspec.structs.replace(after, plans=plans))


def _without(state: State, leaves: Collection[int]) -> State:
    """Return a state in which some relations count as never read."""
    return msgspec.structs.replace(
        state,
        leaves=tuple(oid for oid in state.leaves if oid not in leaves),
        past={oid: past for oid, past in state.past.items() if oid not in leaves},
    )


def _ended(state: State) -> State:
    """Return a state without plans that are over.

    The last of a sweep's makes the table complete if nothing is left; so does a backfill of all rows after a plan that
    was cancelled.
    """
    going = tuple(plan for plan in state.plans if not plan.over)
    if any(plan.over and plan.whole and not plan.unread and plan.number > state.hole for plan in state.plans):
        state = msgspec.structs.replace(state, hole=0)
    swept = [plan for plan in state.plans if plan.kind == "sweep"]
    unread = any(plan.unread for plan in swept)
    if unread:  # A sweep may be two plans, where a relation was rewritten meanwhile.
        going = tuple(msgspec.structs.replace(p, unread=True) if p.kind == "sweep" else p for p in going)
    elif swept and all(plan.over for plan in swept):
        last = swept[-1]
        return msgspec.structs.replace(
            state,
            plans=going,
            swept=Swept(last.horizon, last.complete_at),
            unswept=last.then if state.bounded >= last.then else 0,
        )
    return msgspec.structs.replace(state, plans=going)
