"""How a table's state follows on the one before: an event makes the next one of it.

It is what a reader of the ledger can check the states against that events carry.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from tidelog.events import (
    VERSION,
    Advanced,
    Event,
    Ingested,
    PartitionsChanged,
    Remade,
    SchemaChanged,
    Snapshotted,
    Supplied,
    TimelineStarted,
    What,
)
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
from tidelog.readings import Reading, Segment, deltas, undelta
from tidelog.state import Past, State, Swept
from tidelog.windows import log_offset


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
            after = _altered(before, what)
        case PartitionsChanged():
            after = _without(msgspec.structs.replace(before, partitions=what.partitions), what.again)
        case TimelineStarted():
            after = _restarted(before, what)
        case Remade():
            after = _without(_by(before, what.segment), what.lost)
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
        others=before.others,
        files=reading.files,
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


def _apart(state: State, reading: Reading) -> State:
    """Return a state in which those relations go on by themselves of which a plan does not read all that it emits.

    They are new to the table, and it has emitted ids of others at or above the horizon up to which its chunks read.
    """
    emitted, common, apart = set(undelta(reading.ahead)), set(undelta(reading.before)), dict[int, Past]()
    for leaf in reading.leaves:
        ahead = common if leaf.ahead is None else set(undelta(leaf.ahead))
        if not emitted <= ahead:
            above = deltas(xid for xid in ahead if xid >= reading.horizon)
            apart[leaf.oid] = Past(reading.horizon, above, here=True)
    leaves = tuple(oid for oid in state.leaves if oid not in apart)
    return msgspec.structs.replace(state, leaves=leaves, past=state.past | apart)


def _later(before: State, reading: Reading) -> str | None:
    return max(before.wal_position, reading.wal_position, key=log_offset)


def _altered(before: State, what: SchemaChanged) -> State:
    """Return the state in which every relation counts as never read, and only backfills go on.

    Or, where lines are outdated and somebody else sees to that, those that are away: whole is how they come back.
    """
    if not what.again:
        past = {oid: past for oid, past in before.past.items() if past.here or not what.outdated}
        return msgspec.structs.replace(before, schema=what.schema, others=(), past=past)
    plans = tuple(plan for plan in before.plans if plan.kind == "backfill")
    return msgspec.structs.replace(before, schema=what.schema, others=(), leaves=(), past={}, plans=plans, hole=0)


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
        others=before.others,
        partitions=before.partitions if what.resume else None,
        leaves=tuple(oid for oid in resume.leaves if oid in known),
        past={oid: past for oid, past in resume.past.items() if oid in known and not what.remedy},
        plans=tuple(msgspec.structs.replace(plan, horizon=min(plan.horizon, resume.horizon)) for plan in plans),
    )


def _carried_on(before: State, what: PlanEvent) -> State:
    """Return the state after something happened to a plan."""
    after, plans = before, continued(before.plans, what)
    match what:
        case Planned():
            if what.kind in WINDOWS and not what.instead:
                after = _read(before, what.reading, schema=what.schema, sequential_id=before.sequential_id)
                after = _apart(after, what.reading)
            else:
                rewritten = before.offset + 1 if what.instead else before.rewritten
                after = msgspec.structs.replace(before, wal_position=_later(before, what.reading), rewritten=rewritten)
            begun, lost = opened(what, before.offset + 1, before.plans), set(what.lost)
            if begun.whole_of == begun.number and before.hole:  # What is away may lack rows, and this does not read it.
                lost |= {*before.leaves, *before.past} - {leaf.oid for leaf in what.reading.leaves}
            after, plans = _without(after, lost), (*plans, begun)
        case ChunkRead(segment=Segment() as segment):
            after = _by(before, segment)
        case ChunksDropped():
            after, plan = _without(before, what.leaves), before.plan(what.plan)
            if plan and plan.kind in WINDOWS and what.unread and not what.leaves:
                after = msgspec.structs.replace(after, hole=before.offset + 1)
    return _ended(msgspec.structs.replace(after, plans=plans))


def _by(state: State, segment: Segment) -> State:
    """Return the state after lines were written by the columns as they were then, which no run may have noted yet."""
    if segment.schema in (state.schema, *state.others):
        return state
    return msgspec.structs.replace(state, others=(*state.others, segment.schema))


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
    for whole in {plan.whole_of for plan in state.plans if plan.whole_of > state.hole}:
        parts = [plan for plan in state.plans if plan.whole_of == whole]
        if any(plan.unread for plan in parts):  # Not all of it will be read.
            going = tuple(msgspec.structs.replace(p, unread=True) if p.whole_of == whole else p for p in going)
        elif all(plan.over for plan in parts):
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
