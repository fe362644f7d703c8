"""Events: what is written reads back, and states add up."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tidelog import folding, records
from tidelog.events import (
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
    Chunk,
    ChunkRead,
    ChunksDropped,
    ChunkSplit,
    Dropped,
    Enqueued,
    OpenPlan,
    PlanEvent,
    Planned,
    PlannedLeaf,
    Span,
    joined,
)
from tidelog.readings import LeafReading, Moment, Reading, Segment, deltas, undelta
from tidelog.state import Past, State, Swept
from tidelog.windows import Database

TEXT = st.text(max_size=8)
OIDS = st.integers(1, 2**32 - 1)
XIDS = st.integers(3, 2**63 - 1)
AHEAD = st.sets(XIDS, max_size=4).map(deltas)
MAYBE = st.none() | TEXT
DATABASES = st.builds(Database, system=TEXT, oid=OIDS, name=TEXT, wal_timeline=st.none() | st.integers(1, 2**32))
SEGMENTS = st.builds(
    Segment,
    key=TEXT,
    upload=TEXT,
    etags=st.lists(TEXT, max_size=2).map(tuple),
    rows=XIDS,
    bytes=XIDS,
    text_bytes=XIDS,
    schema=TEXT,
    digest=TEXT,
)
LEAVES = st.builds(LeafReading, oid=st.integers(1, 9), start=XIDS, ahead=AHEAD, bounded=st.booleans())
MOMENTS = st.none() | st.builds(Moment, at=TEXT, next=XIDS)
READINGS = st.builds(
    Reading,
    leaves=st.lists(LEAVES, max_size=4, unique_by=lambda leaf: leaf.oid).map(tuple),
    columns=st.lists(TEXT, max_size=2).map(tuple),
    bound=MAYBE,
    below=st.booleans(),
    strategy=TEXT,
    database=DATABASES,
    oid=OIDS,
    horizon=XIDS,
    ahead=AHEAD,
    read_at=TEXT,
    timestamp=MAYBE,
    next_bound=MAYBE,
    numbers=st.lists(st.integers(1, 99), max_size=2).map(tuple),
    began=MAYBE,
    moment=MOMENTS,
    partitions=MAYBE,
)
NUMBERS = st.integers(1, 30)
CHUNKS = st.builds(
    Chunk,
    number=NUMBERS,
    leaf=OIDS,
    first=st.integers(0, 2**32),
    end=st.integers(0, 2**32),
    depth=st.integers(0, 5),
) | st.builds(Chunk, number=NUMBERS, since=TEXT, until=TEXT, depth=st.integers(0, 5))
RANGES = st.lists(st.tuples(NUMBERS, st.integers(0, 5)), max_size=3).map(
    lambda pairs: joined((first, first + more) for first, more in pairs)
)
PLANNED_LEAVES = st.builds(
    PlannedLeaf, oid=OIDS, name=TEXT, filenode=OIDS, pages=XIDS, chunks=st.integers(1, 9), bytes=XIDS
)
SPANS = st.builds(Span, columns=st.lists(TEXT, max_size=2).map(tuple), since=TEXT, until=TEXT)
KINDS = st.sampled_from(["snapshot", "increment", "backfill"])
PLANS = st.integers(1, 3)
"""Numbers of plans: few, so that events meet the plans that are open."""


def planned(
    kinds: st.SearchStrategy[str] = KINDS, instead: st.SearchStrategy[Dropped | None] | None = None
) -> st.SearchStrategy[Planned]:
    """Draw plans."""
    return st.builds(
        Planned,
        kind=kinds,
        reason=TEXT,
        reading=READINGS,
        schema=TEXT,
        leaves=st.lists(PLANNED_LEAVES, max_size=3).map(tuple),
        cuts=st.lists(TEXT, max_size=3).map(tuple),
        span=st.none() | SPANS,
        bytes=XIDS,
        request=TEXT,
        instead=st.none() | DROPPED if instead is None else instead,
    )


DROPPED = st.builds(Dropped, plan=PLANS, chunks=RANGES)
OPEN_PLANS = st.builds(
    OpenPlan,
    number=PLANS,
    kind=KINDS,
    horizon=XIDS,
    chunks=st.integers(40, 50),
    bytes=XIDS,
    done=RANGES,
    done_bytes=XIDS,
    rows=XIDS,
    pieces=st.lists(CHUNKS, max_size=3).map(tuple),
    sent=st.booleans(),
    request=TEXT,
)
PASTS = st.dictionaries(OIDS, st.builds(Past, horizon=XIDS, ahead=AHEAD), max_size=3)
STATES = st.builds(
    State,
    offset=st.integers(0, 10**6),
    timeline=st.integers(1, 9),
    sequential_id=st.integers(0, 10**6),
    horizon=st.just(0) | XIDS,
    ahead=AHEAD,
    timestamp=MAYBE,
    bound=MAYBE,
    began=MAYBE,
    moment=MOMENTS,
    read_at=MAYBE,
    database=st.none() | DATABASES,
    oid=OIDS,
    leaves=st.lists(st.integers(1, 9), max_size=4, unique=True).map(tuple),
    past=PASTS,
    schema=MAYBE,
    partitions=MAYBE,
    bounded=st.integers(0, 10**6),
    swept=st.none() | st.builds(Swept, horizon=XIDS, at=MAYBE),
    unswept=st.integers(0, 10**6),
    strategy=TEXT,
    plans=st.lists(OPEN_PLANS, max_size=3, unique_by=lambda plan: plan.number).map(tuple),
)
PLAN_EVENTS: st.SearchStrategy[PlanEvent] = st.one_of(
    planned(),
    st.builds(Enqueued, plan=PLANS),
    st.builds(ChunkRead, plan=PLANS, chunk=CHUNKS, bytes=XIDS, segment=st.none() | SEGMENTS, rest=st.none() | CHUNKS),
    st.builds(ChunkSplit, plan=PLANS, chunk=NUMBERS, halves=st.tuples(CHUNKS, CHUNKS)),
    st.builds(
        ChunksDropped, plan=PLANS, chunks=RANGES, reason=TEXT, leaves=st.lists(st.integers(0, 9), max_size=2).map(tuple)
    ),
)
WHATS: st.SearchStrategy[What] = st.one_of(
    st.builds(Snapshotted, segment=SEGMENTS, reading=READINGS),
    st.builds(Ingested, segment=SEGMENTS, reading=READINGS, sequential_id=st.integers(1, 10**6)),
    st.builds(Supplied, segment=SEGMENTS, sequential_id=st.integers(1, 10**6), timestamp=MAYBE),
    st.builds(Advanced, reading=READINGS),
    st.builds(SchemaChanged, schema=TEXT, difference=TEXT, outdated=TEXT, again=st.booleans(), remedy=TEXT),
    st.builds(PartitionsChanged, partitions=TEXT, difference=TEXT, again=st.lists(st.integers(0, 9)).map(tuple)),
    st.builds(
        TimelineStarted,
        timeline=st.integers(2, 9),
        reason=TEXT,
        database=DATABASES,
        resume=st.none() | STATES,
        outdated=TEXT,
        remedy=TEXT,
    ),
    st.builds(Remade, of=st.integers(1, 10**6), segment=SEGMENTS),
    PLAN_EVENTS,
)


def after(before: State, what: What) -> Event:
    """Return the event that follows on a state."""
    return folding.event_after(before, what, table="public.t", at="2026-11-23T12:00:00+00:00", run="r", finished=0)


@given(STATES, WHATS)
def test_an_event_reads_back_as_it_was_written(before: State, what: What) -> None:
    """Equal to the last part: that is how a worker knows its own event again."""
    event = records.sealed(after(before, what))
    assert records.decode(records.encode(event)) == event
    assert records.encode(event).endswith(b"}\n")


@given(STATES, WHATS)
def test_an_event_is_never_of_an_unknown_version(before: State, what: What) -> None:
    """An older tidelog does not guess what a newer one meant."""
    newer = records.sealed(msgspec.structs.replace(after(before, what), version=2))
    with pytest.raises(msgspec.ValidationError, match="version 2 is not 1"):
        records.decode(records.encode(newer))


@given(STATES, WHATS, st.data())
def test_an_edited_event_is_refused(before: State, what: What, data: st.DataObject) -> None:
    """Wherever a byte of it is another one."""
    stored = bytearray(records.encode(records.sealed(after(before, what))))
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != stored[place]))
    with pytest.raises(msgspec.DecodeError):
        records.decode(bytes(stored))


@given(STATES, WHATS, WHATS)
def test_an_event_names_the_one_before_it(before: State, first: What, then: What) -> None:
    """One that was taken out, or put in the place of another, shows."""
    one = records.sealed(after(before, first))
    other = records.sealed(msgspec.structs.replace(one, at="another time"))
    two = records.sealed(after(one.state, then))
    assert two.previous == one.digest
    assert folding.follows(one.state, two)
    assert not folding.follows(other.state, two)
    assert not folding.follows(before, two)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version":1}', b"\xff"])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    """With an error of the decoder."""
    with pytest.raises(msgspec.DecodeError):
        records.decode(data)


@given(STATES, st.lists(WHATS, max_size=8))
def test_every_event_takes_the_next_offset_and_carries_the_state_after_it(before: State, whats: list[What]) -> None:
    """So that the newest event alone is enough to go on from."""
    state = before
    for number, what in enumerate(whats, 1):
        event = after(state, what)
        assert event.offset == event.state.offset == before.offset + number
        assert folding.follows(state, event)
        state = event.state


@given(STATES, READINGS, SEGMENTS)
def test_a_reading_moves_the_window(before: State, reading: Reading, segment: Segment) -> None:
    """To the reading's horizon; the timeline stays, and a sequential id is taken by an increment only."""
    cases: list[tuple[What, int, str | None]] = [
        (Snapshotted(segment, reading), before.sequential_id, segment.schema),
        (Ingested(segment, reading, before.sequential_id + 1), before.sequential_id + 1, segment.schema),
        (Advanced(reading), before.sequential_id, before.schema),
    ]
    for what, sequential_id, schema in cases:
        state = folding.fold(before, what)
        assert (state.timeline, state.sequential_id, state.schema) == (before.timeline, sequential_id, schema)
        assert (state.horizon, state.ahead, state.timestamp) == (reading.horizon, reading.ahead, reading.timestamp)
        assert (state.bound, state.read_at) == (reading.next_bound, reading.began if reading.below else reading.read_at)
        assert (state.database, state.oid) == (reading.database, reading.oid)
        assert state.leaves == tuple(leaf.oid for leaf in reading.leaves)
        assert state.plans == before.plans
        assert state.partitions == (before.partitions or reading.partitions)


@given(STATES, TEXT, READINGS)
def test_a_table_that_is_read_again_counts_as_never_read(before: State, schema: str, reading: Reading) -> None:
    """Its window stays where it is in order; what the next reading leaves out is no longer remembered of it."""
    state = folding.fold(before, SchemaChanged(schema, "what", "why", again=True))
    assert (state.leaves, state.past, state.schema) == ((), {}, schema)
    assert all(plan.kind == "backfill" for plan in state.plans)
    kept = msgspec.structs.replace(before, offset=before.offset + 1, leaves=(), past={}, schema=schema)
    assert msgspec.structs.replace(state, plans=before.plans) == kept
    assert folding.fold(state, Advanced(reading)).past == {}


@given(STATES, READINGS)
def test_a_relation_that_goes_is_remembered_until_it_comes_back(before: State, reading: Reading) -> None:
    """With the horizon up to which it was read, not the one at which it was missed."""
    state = folding.fold(before, Advanced(reading))
    now = {leaf.oid for leaf in reading.leaves}
    assert set(state.past) == (set(before.past) | set(before.leaves)) - now
    for oid, past in state.past.items():
        assert past == (Past(before.horizon, before.ahead) if oid in before.leaves else before.past[oid])


@given(STATES, planned(st.sampled_from(["snapshot", "increment"]), st.none()))
def test_a_large_reading_moves_the_window_at_once(before: State, what: Planned) -> None:
    """As the same reading in one piece does, though its chunks are still to be read: increments go on meanwhile.

    But for relations whose windows don't leave out all ids that are emitted: chunks can't read those, which lie above.
    """
    state, moved = folding.fold(before, what), folding.fold(before, Advanced(what.reading))
    emitted, apart = set(undelta(what.reading.ahead)), dict[int, Past]()
    for leaf in what.reading.leaves:
        if not emitted <= set(undelta(what.reading.ahead_of(leaf))):
            above = [xid for xid in undelta(what.reading.ahead_of(leaf)) if xid >= what.reading.horizon]
            apart[leaf.oid] = Past(what.reading.horizon, deltas(above), here=True)
    leaves = tuple(oid for oid in moved.leaves if oid not in apart)
    expected = msgspec.structs.replace(moved, schema=what.schema, leaves=leaves, past=moved.past | apart)
    assert msgspec.structs.replace(state, plans=before.plans) == expected
    assert [plan.number for plan in state.plans[len(before.plans) :]] == [before.offset + 1] * (what.chunks > 0)


def is_reading(what: PlanEvent) -> bool:
    """Say whether an event plans a snapshot or an increment: the window moves at once, its chunks follow."""
    return isinstance(what, Planned) and what.kind != "backfill" and what.instead is None


def written_by(before: State, segment: Segment) -> dict[str, Any]:
    """Return what changes in a state with a segment whose lines have other columns than a run has noted."""
    known = (before.schema, *before.others)
    return {} if segment.schema in known else {"others": (*before.others, segment.schema)}


@given(STATES, PLAN_EVENTS)
def test_a_backfill_never_moves_the_watermark_or_the_sequential_id(before: State, what: PlanEvent) -> None:
    """Nor does any other event on a plan: where the next window starts is left alone, by one planned again, too.

    That one is remembered: a window that was read before it may have seen the relation's old file.
    """
    assume(not is_reading(what))
    state = folding.fold(before, what)
    moved: dict[str, Any] = {"offset": before.offset + 1, "plans": state.plans}
    if isinstance(what, Planned) and what.instead:
        moved["rewritten"] = before.offset + 1
    if isinstance(what, ChunkRead) and what.segment:
        moved |= {"rows": before.rows + what.segment.rows, "bytes": before.bytes + what.segment.bytes}
        moved |= written_by(before, what.segment)
    if isinstance(what, ChunksDropped):
        moved["leaves"] = tuple(oid for oid in before.leaves if oid not in what.leaves)
        moved["past"] = {oid: past for oid, past in before.past.items() if oid not in what.leaves}
    assert state == msgspec.structs.replace(before, **moved)


@given(STATES, PLAN_EVENTS)
def test_an_event_on_a_plan_leaves_the_other_plans_alone(before: State, what: PlanEvent) -> None:
    """Each is found by its number, as long as it is open."""
    state = folding.fold(before, what)
    of = what.plan if not isinstance(what, Planned) else what.instead.plan if what.instead else 0
    assert [plan for plan in state.plans if plan.number not in (of, before.offset + 1)] == [
        plan for plan in before.plans if plan.number not in (of, before.offset + 1)
    ]
    assert all(state.plan(plan.number) is not None and not plan.over for plan in state.plans)


@given(STATES, st.integers(2, 9), DATABASES)
def test_a_timeline_from_nothing_drops_the_plans(before: State, timeline: int, database: Database) -> None:
    """Everything is read again anyhow."""
    assert folding.fold(before, TimelineStarted(timeline, "why", database, None)).plans == ()


@given(STATES, st.integers(2, 9), DATABASES, STATES)
def test_a_timeline_that_resumes_reads_plans_on_below_the_earlier_horizon(
    before: State, timeline: int, database: Database, resume: State
) -> None:
    """As they stood then, what was read since included; backfills as they stand now."""
    state = folding.fold(before, TimelineStarted(timeline, "why", database, resume))
    plans = [msgspec.structs.replace(plan, sent=False) for plan in resume.plans if plan.kind != "backfill"]
    plans += [plan for plan in before.plans if plan.kind == "backfill"]
    for plan, was in zip(state.plans, plans, strict=True):
        assert plan == msgspec.structs.replace(was, horizon=min(was.horizon, resume.horizon))


@given(STATES, st.integers(2, 9), DATABASES, st.none() | STATES)
def test_a_timeline_starts_from_nothing_or_from_an_earlier_state(
    before: State, timeline: int, database: Database, resume: State | None
) -> None:
    """Sequential ids go on counting, and the schema document is still the last one."""
    state = folding.fold(before, TimelineStarted(timeline, "why", database, resume))
    start = resume or State()
    assert (state.timeline, state.database) == (timeline, database)
    assert (state.sequential_id, state.schema) == (before.sequential_id, before.schema)
    assert state.partitions == (before.partitions if resume else None)
    known = {*before.leaves, *before.past}  # a relation that was forgotten since stays so
    assert (state.horizon, state.ahead, state.leaves, state.past) == (
        start.horizon,
        start.ahead,
        tuple(oid for oid in start.leaves if oid in known),
        {oid: past for oid, past in start.past.items() if oid in known},
    )
    assert (state.timestamp, state.bound) == (start.timestamp, start.bound)


@given(STATES, SEGMENTS, TEXT)
def test_other_events_leave_the_window_where_it_is(before: State, segment: Segment, text: str) -> None:
    """A remade segment, changed columns, and rows that tidelog did not read itself."""
    here = {oid: past for oid, past in before.past.items() if past.here}
    moved: dict[str, Any] = {"offset": before.offset + 1}
    others: list[tuple[What, dict[str, Any]]] = [
        (Remade(before.offset, segment), written_by(before, segment)),
        (SchemaChanged(text, "what"), {"schema": text, "others": ()}),
        (SchemaChanged(text, "what", "why", remedy="do"), {"schema": text, "others": (), "past": here}),
        (PartitionsChanged(text, "what"), {"partitions": text}),
        (
            Supplied(segment, before.sequential_id + 1, text),
            {
                "sequential_id": before.sequential_id + 1,
                "timestamp": text,
                "rows": before.rows + segment.rows,
                "bytes": before.bytes + segment.bytes,
            },
        ),
    ]
    for what, changes in others:
        assert folding.fold(before, what) == msgspec.structs.replace(before, **moved, **changes)


@given(STATES, st.lists(st.integers(0, 9), max_size=3).map(tuple))
def test_a_partition_that_may_have_been_altered_counts_as_never_read(before: State, again: tuple[int, ...]) -> None:
    """Where the others are read from is left alone."""
    state = folding.fold(before, PartitionsChanged("these", "what", again))
    assert state.leaves == tuple(oid for oid in before.leaves if oid not in again)
    assert state.past == {oid: past for oid, past in before.past.items() if oid not in again}
    kept = msgspec.structs.replace(state, leaves=before.leaves, past=before.past, partitions=before.partitions)
    assert kept == msgspec.structs.replace(before, offset=before.offset + 1)


@given(STATES, WHATS)
def test_an_event_gives_out_its_segment_and_its_reading(before: State, what: What) -> None:
    """None where it has none, and where what it speaks of is still to be read."""
    event = after(before, what)
    assert event.segment == getattr(what, "segment", None)
    assert event.reading == (None if isinstance(what, Planned) else getattr(what, "reading", None))


@given(st.lists(XIDS))
def test_transaction_ids_survive_their_coding(xids: list[int]) -> None:
    """As a set: sorted, each once."""
    assert list(undelta(deltas(xids))) == sorted(set(xids))


def test_neighbouring_ids_are_coded_in_a_digit_each() -> None:
    """A hundred thousand of them fit into an event."""
    assert deltas([10**15 + 3, 10**15, 10**15 + 1]) == (10**15, 1, 2)
