"""Plans: chunks that cover what is read, and states that add up, in whatever order they are done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.test_events import READINGS, SEGMENTS, TEXT
from tidelog.events import What
from tidelog.folding import fold
from tidelog.plans import (
    Chunk,
    ChunkRead,
    ChunksDropped,
    ChunkSplit,
    Dropped,
    Enqueued,
    Kind,
    OpenPlan,
    Planned,
    PlannedLeaf,
    joined,
)
from tidelog.ranges import length
from tidelog.readings import Reading
from tidelog.state import State

NUMBERS = st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda pair: (pair[0], sum(pair)))
RANGES = st.lists(NUMBERS, max_size=6)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
BYTES = st.integers(0, 2**50)


@st.composite
def leaves(draw: st.DrawFn) -> tuple[PlannedLeaf, ...]:
    """Draw relations, each cut into chunks of a page at least."""
    drawn = []
    for oid in range(1, draw(st.integers(1, 4)) + 1):
        pages = draw(st.integers(1, 200))
        size = pages * 8192 + draw(BYTES)
        drawn.append(PlannedLeaf(oid, f"public.t{oid}", oid, pages, draw(st.integers(1, min(pages, 12))), size))
    return tuple(drawn)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[str, ...]:
    """Draw ranges in time, one behind another."""
    steps = draw(st.lists(st.integers(1, 10**12), min_size=1, max_size=12))
    moments = [draw(MOMENTS)]
    for step in steps:
        moments.append(moments[-1] + timedelta(microseconds=step))
    return tuple(moment.isoformat() for moment in moments)


KINDS = st.sampled_from(["snapshot", "increment", "backfill"])
OF_PAGES = st.builds(Planned, KINDS, TEXT, READINGS, TEXT, leaves=leaves(), bytes=BYTES)
IN_TIME = st.builds(Planned, KINDS, TEXT, READINGS, TEXT, cuts=cuts(), bytes=BYTES)
PLANS = OF_PAGES | IN_TIME


@given(OF_PAGES)
def test_chunks_cover_each_page_of_each_leaf_once_and_in_order(plan: Planned) -> None:
    """Each holds a page at least, and the numbers of a leaf are those of its chunks."""
    chunks = [plan.chunk(number) for number in range(1, plan.chunks + 1)]
    pages = [(chunk.leaf, page) for chunk in chunks for page in range(chunk.first, chunk.end)]
    assert pages == [(leaf.oid, page) for leaf in plan.leaves for page in range(leaf.pages)]
    assert all(chunk.first < chunk.end for chunk in chunks)
    for leaf in plan.leaves:
        first, last = plan.numbers_of(leaf.oid)
        assert [chunk.number for chunk in chunks if chunk.leaf == leaf.oid] == list(range(first, last + 1))


@given(OF_PAGES)
def test_chunks_of_a_leaf_are_of_equal_length(plan: Planned) -> None:
    """To a page."""
    for leaf in plan.leaves:
        chunks = [plan.chunk(number) for number in range(1, plan.chunks + 1)]
        lengths = {chunk.end - chunk.first for chunk in chunks if chunk.leaf == leaf.oid}
        assert max(lengths) - min(lengths) <= 1


@given(IN_TIME)
def test_chunks_in_time_lie_between_the_cuts(plan: Planned) -> None:
    """One behind another, from the first cut to the last."""
    chunks = [plan.chunk(number) for number in range(1, plan.chunks + 1)]
    assert [chunk.number for chunk in chunks] == list(range(1, len(plan.cuts)))
    assert [(chunk.since, chunk.until) for chunk in chunks] == list(pairwise(plan.cuts))


@given(PLANS, st.data(), st.integers(1, 40))
def test_pieces_of_a_chunk_are_the_chunk(plan: Planned, data: st.DataObject, count: int) -> None:
    """Without gap or overlap, none of them empty, as many as asked for or as there can be; nothing else changes."""
    chunk = plan.chunk(data.draw(st.integers(1, plan.chunks)))
    pieces = chunk.pieces(count)
    assert (pieces[0].first, pieces[0].since) == (chunk.first, chunk.since)
    assert (pieces[-1].end, pieces[-1].until) == (chunk.end, chunk.until)
    assert all(
        (one.end if chunk.leaf else 0, one.until) == (other.first, other.since) for one, other in pairwise(pieces)
    )
    sizes = [piece.end - piece.first if piece.leaf else length(piece.since, piece.until) for piece in pieces]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == min(count, sum(sizes))
    assert {(piece.number, piece.leaf, piece.depth) for piece in pieces} == {(chunk.number, chunk.leaf, chunk.depth)}


@given(RANGES)
def test_joined_ranges_hold_the_same_numbers(ranges: list[tuple[int, int]]) -> None:
    """In order, and with a gap between each two: that is the shortest way to write them."""
    numbers = joined(ranges)
    assert numbers_in(numbers) == numbers_in(ranges)
    assert all(first <= last for first, last in numbers)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(numbers))
    assert joined(numbers) == numbers


def numbers_in(ranges: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> set[int]:
    """Return the numbers in some ranges."""
    return {number for first, last in ranges for number in range(first, last + 1)}


class Model:
    """A plan as a set of numbers and another of those that are done."""

    def __init__(self, number: int, plan: Planned) -> None:
        self.number = number
        self.plan = plan
        self.given = plan.chunks
        self.done: set[int] = set()
        self.pieces: dict[int, Chunk] = {}
        self.bytes = self.rows = 0
        self.sent = False

    @property
    def pending(self) -> list[int]:
        """The numbers that are not done."""
        return [number for number in range(1, self.given + 1) if number not in self.done]

    def finish(self, numbers: set[int], *more: Chunk) -> None:
        """Take numbers for done and give out others."""
        self.done |= numbers
        self.given += len(more)
        self.pieces |= {chunk.number: chunk for chunk in more}
        self.sent = self.sent and all(chunk.depth for chunk in more)

    def agrees(self, state: State) -> None:
        """Hold the model against the plan that a state has."""
        found = state.plan(self.number)
        assert (found is None) == (not self.pending)
        if found:
            self.agrees_with(found)

    def agrees_with(self, found: OpenPlan) -> None:
        """Hold the model against a plan."""
        assert list(found.pending) == self.pending
        assert (found.chunks, found.done_chunks) == (self.given, len(self.done))
        assert not found.over
        for number in range(self.given + 3):
            assert found.is_pending(number) == (number in self.pending)
            assert found.piece(number) == (self.pieces.get(number) if number in self.pending else None)
        assert (found.rows, found.done_bytes, found.sent) == (self.rows, self.bytes, self.sent)
        assert found.done == joined(found.done)


def step(data: st.DataObject, state: State, models: list[Model]) -> What:
    """Draw what may happen next to one of the plans, and have it happen to its model."""
    model = data.draw(st.sampled_from([model for model in models if model.pending]))
    number = data.draw(st.sampled_from(model.pending))
    chunk = model.pieces.get(number) or model.plan.chunk(number)
    depth, after = data.draw(st.integers(0, 2)), model.given + 1
    kind = data.draw(st.sampled_from(["read", "rest", "split", "drop", "sent", "instead"]))
    if kind in ("rest", "split"):
        first, *others = (
            replace(piece, number=after + place, depth=depth) for place, piece in enumerate(chunk.pieces(2))
        )
        if kind == "split" and others:
            model.finish({number}, first, others[0])
            return ChunkSplit(model.number, number, (first, others[0]))
    if kind in ("read", "rest", "split"):
        rest = replace(chunk, number=after, depth=depth)
        more = (rest,) if kind == "rest" else ()
        segment = data.draw(st.none() | SEGMENTS)
        read = data.draw(BYTES)
        model.finish({number}, *more)
        model.bytes += read
        model.rows += segment.rows if segment else 0
        return ChunkRead(model.number, chunk, read, segment, rest if more else None)
    if kind == "sent":
        model.sent = True
        return Enqueued(model.number)
    last = data.draw(st.integers(number, model.given))
    numbers = joined([(number, last), (1, data.draw(st.integers(1, number)))])
    model.finish(numbers_in(numbers))
    if kind == "drop":
        return ChunksDropped(model.number, numbers, "")
    planned = replace(data.draw(PLANS), instead=Dropped(model.number, numbers))
    models.append(Model(state.offset + 1, planned))
    return planned


@given(st.lists(PLANS, min_size=1, max_size=2), st.data(), st.integers(1, 25))
def test_a_plan_is_a_set_of_numbers_of_which_more_and_more_are_done(
    plans: list[Planned], data: st.DataObject, steps: int
) -> None:
    """Read with and without a rest, split, dropped, planned again, in any order; others' plans are left alone."""
    state = State()
    models: list[Model] = []
    for plan in plans:
        state = fold(state, plan)
        models.append(Model(state.offset, plan))
    for _ in range(steps):
        if not any(model.pending for model in models):
            break
        state = fold(state, step(data, state, models))
        for model in models:
            model.agrees(state)
    assert [plan.number for plan in state.plans] == [model.number for model in models if model.pending]


@given(PLANS, st.data())
def test_a_plan_that_was_read_has_all_of_its_bytes_done(plan: Planned, data: st.DataObject) -> None:
    """But for one byte a chunk that rounding may take; at no time more, rests and halves included."""
    state = fold(State(), plan)
    number, reads, done = state.offset, 0, 0
    while opened := state.plan(number):
        assert opened.done_bytes == done <= plan.bytes
        chosen = data.draw(st.sampled_from(list(opened.pending)))
        chunk = opened.piece(chosen) or plan.chunk(chosen)
        first, *others = chunk.pieces(2)
        way = data.draw(st.sampled_from(["read", "rest", "split"])) if others and opened.chunks < 60 else "read"
        what: What
        if way == "split":
            halves = (replace(first, number=opened.chunks + 1), replace(others[0], number=opened.chunks + 2))
            what = ChunkSplit(number, chosen, halves)
        else:
            read = first if way == "rest" else chunk
            rest = replace(others[0], number=opened.chunks + 1) if way == "rest" else None
            what = ChunkRead(number, read, plan.share(read), None, rest)
            reads, done = reads + 1, done + plan.share(read)
        state = fold(state, what)
    assert plan.bytes - reads < done <= plan.bytes or done == plan.bytes == 0


@given(PLANS, st.data())
def test_a_plan_that_is_over_leaves_the_state(plan: Planned, data: st.DataObject) -> None:
    """Whichever chunk is the last; what comes too late changes nothing but the offset."""
    state = fold(State(), plan)
    for number in data.draw(st.permutations(range(1, plan.chunks + 1))):
        assert [each.number for each in state.plans] == [1]
        state = fold(state, ChunkRead(1, plan.chunk(number), 0))
    assert state.plans == ()
    assert state.plan(1) is None
    late = fold(state, ChunksDropped(1, ((1, plan.chunks),), "the table was dropped"))
    assert (late.plans, late.offset) == ((), state.offset + 1)


@given(READINGS, KINDS)
def test_a_plan_without_chunks_never_opens(reading: Reading, kind: Kind) -> None:
    """There is nothing to wait for."""
    plan = Planned(kind, "", reading, "")
    assert plan.chunks == 0
    assert fold(State(), plan).plans == ()
