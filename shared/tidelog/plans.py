"""Plans: large reads in chunks, each committed once, in any order, by whoever takes it.

A plan reads row versions that were there below its horizon. Its chunks are numbered from 1: page ranges of the
relations that hold rows, or ranges in time. A chunk that turns out too large leaves a rest, or is split; the pieces get
the next numbers. A number is done when it was read, split or dropped; a plan is open until all of its numbers are done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal

import msgspec

from tidelog.hidden import Hidden
from tidelog.ranges import even, length
from tidelog.readings import Reading, Segment

Kind = Literal["snapshot", "increment", "backfill", "sweep"]
WINDOWS: tuple[Kind, ...] = ("snapshot", "increment")
"""The kinds that read a table's window, which then goes on behind them."""
Numbers = tuple[tuple[int, int], ...]
"""Numbers as ranges, both ends included, in order."""

DEEPEST = 5
"""How often a piece may be cut off a piece before the next tick sends it: messages that lead to messages may not go on
for ever (Lambda stops such a chain after about 16 functions)."""


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a plan: pages of one relation, or all rows of some time."""

    number: int
    leaf: int = 0
    """Oid of the relation; 0 where the chunk is a range in time, of every relation."""
    first: int = 0
    """Its first page."""
    end: int = 0
    """The page behind its last one."""
    since: str = ""
    until: str = ""
    depth: int = 0
    """How many messages have led to its own, since a tick or a person sent one."""

    def pieces(self, count: int) -> tuple[Chunk, ...]:
        """Return the chunk cut into so many pieces, or as many as it has pages, or microseconds."""
        if self.since:
            cuts = even(self.since, self.until, count)
            return tuple(msgspec.structs.replace(self, since=a, until=b) for a, b in pairwise(cuts))
        count = max(1, min(count, self.end - self.first))
        pages = [self.first + (self.end - self.first) * number // count for number in range(count + 1)]
        return tuple(msgspec.structs.replace(self, first=a, end=b) for a, b in pairwise(pages))


class PlannedLeaf(msgspec.Struct, frozen=True):
    """A relation that holds rows, as far as a plan reads it."""

    oid: int
    name: str
    filenode: int
    """Of its file: another one has other rows on the same pages."""
    pages: int
    chunks: int
    """How many of equal length."""
    bytes: int
    """On disk, values kept apart included."""


class Dropped(msgspec.Struct, frozen=True):
    """Chunks of another plan that this one takes the place of."""

    plan: int
    chunks: Numbers


class Span(msgspec.Struct, frozen=True):
    """The range in time that a backfill was asked for: rows with any of the columns in it."""

    columns: tuple[str, ...]
    since: str
    """Inclusive."""
    until: str
    """Exclusive."""


class Planned(msgspec.Struct, frozen=True, tag="planned", omit_defaults=True):
    """A large read was cut into chunks."""

    kind: Kind
    reason: str
    reading: Reading
    """What the chunks read together, all below the reading's horizon."""
    schema: str
    leaves: tuple[PlannedLeaf, ...] = ()
    """Chunks are numbered through these."""
    cuts: tuple[str, ...] = ()
    """Or through the ranges in time between these, one less than there are."""
    span: Span | None = None
    bytes: int = 0
    """To be looked through."""
    request: str = ""
    """Id of the request or message that asked for it: one that comes again finds its plan."""
    instead: Dropped | None = None
    hidden: tuple[Hidden, ...] = ()
    """What a sweep reads."""
    complete_at: str | None = None
    """Up to when a sweep makes the table complete, by the server's clock."""
    then: int = 0
    """Offset of the first event that may tell of what it leaves to the next sweep."""
    lost: tuple[int, ...] = ()
    """Relations that are no longer part of the table, and in which something is hidden: should they come back, they are
    read whole."""

    @property
    def chunks(self) -> int:
        """How many numbers it gives out."""
        return sum(leaf.chunks for leaf in self.leaves) or max(0, len(self.cuts) - 1)

    def chunk(self, number: int) -> Chunk:
        """Return one of the chunks that it was cut into at first."""
        if self.cuts:
            return Chunk(number, since=self.cuts[number - 1], until=self.cuts[number])
        before = 0
        for leaf in self.leaves:
            place = number - before
            if place <= leaf.chunks:
                first, end = (leaf.pages * part // leaf.chunks for part in (place - 1, place))
                return Chunk(number, leaf.oid, first, end)
            before += leaf.chunks
        raise IndexError(number)

    def leaf(self, oid: int) -> PlannedLeaf:
        """Return one of its leaves."""
        return next(leaf for leaf in self.leaves if leaf.oid == oid)

    def share(self, chunk: Chunk) -> int:
        """Return the part of the plan's bytes that a chunk is."""
        if chunk.leaf:
            leaf, whole = self.leaf(chunk.leaf), sum(leaf.bytes for leaf in self.leaves)
            return self.bytes * leaf.bytes * (chunk.end - chunk.first) // max(1, whole * leaf.pages)
        return self.bytes * length(chunk.since, chunk.until) // length(self.cuts[0], self.cuts[-1])

    def numbers_of(self, oid: int) -> tuple[int, int]:
        """Return the first and the last number of a leaf's chunks."""
        before = 0
        for leaf in self.leaves:
            if leaf.oid == oid:
                return before + 1, before + leaf.chunks
            before += leaf.chunks
        raise KeyError(oid)


class Enqueued(msgspec.Struct, frozen=True, tag="enqueued"):
    """The messages of all of a plan's chunks were sent."""

    plan: int


class ChunkRead(msgspec.Struct, frozen=True, tag="chunk_read", omit_defaults=True):
    """A chunk was read, as far as its time went."""

    plan: int
    chunk: Chunk
    """What was read: less than the chunk that was planned where there is a rest."""
    bytes: int
    """The part of the plan's bytes that it was."""
    segment: Segment | None = None
    """None where it held no row."""
    rest: Chunk | None = None


class ChunkSplit(msgspec.Struct, frozen=True, tag="chunk_split"):
    """A chunk was too large for the time there was, and gave way to two halves."""

    plan: int
    chunk: int
    halves: tuple[Chunk, Chunk]


class ChunksDropped(msgspec.Struct, frozen=True, tag="chunks_dropped", omit_defaults=True):
    """Chunks will not be read."""

    plan: int
    chunks: Numbers
    reason: str
    leaves: tuple[int, ...] = ()
    """Relations that count as never read from now on: should they come back, they are read whole."""
    unread: bool = False
    """Whether there are rows that they would have read."""


PlanEvent = Planned | Enqueued | ChunkRead | ChunkSplit | ChunksDropped


class OpenPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """A plan under way, as its events add up."""

    number: int
    """Offset of the event that planned it."""
    kind: Kind
    horizon: int
    """Row versions below it are read."""
    chunks: int
    """Numbers given out."""
    bytes: int
    done: Numbers = ()
    done_bytes: int = 0
    rows: int = 0
    pieces: tuple[Chunk, ...] = ()
    """Chunks that were cut off others and are not done."""
    sent: bool = False
    """Whether all messages are on the queue, or were."""
    request: str = ""
    complete_at: str | None = None
    """Up to when a sweep makes the table complete, by the server's clock."""
    then: int = 0
    """Offset of the first event that may tell of what a sweep leaves to the next."""
    unread: bool = False
    """Whether chunks were dropped that would have read rows."""
    whole_of: int = 0
    """Number of the backfill of all rows that it is, or that it takes the place of chunks of; 0 where it is neither."""

    @property
    def left(self) -> Numbers:
        """The numbers that are not done, in order, as ranges."""
        ends = [0, *(last for _, last in self.done)]
        begins = [*(first for first, _ in self.done), self.chunks + 1]
        return tuple((end + 1, begin - 1) for end, begin in zip(ends, begins, strict=True) if end + 1 < begin)

    @property
    def pending(self) -> Iterator[int]:
        """The numbers that are not done, in order."""
        for first, last in self.left:
            yield from range(first, last + 1)

    @property
    def done_chunks(self) -> int:
        """How many numbers are done."""
        return sum(last - first + 1 for first, last in self.done)

    @property
    def over(self) -> bool:
        """Whether all are done."""
        return self.done_chunks == self.chunks

    def is_pending(self, number: int) -> bool:
        """Say whether a number was given out and is not done."""
        return 1 <= number <= self.chunks and not any(first <= number <= last for first, last in self.done)

    def piece(self, number: int) -> Chunk | None:
        """Return a pending chunk that was cut off another one."""
        return next((chunk for chunk in self.pieces if chunk.number == number), None)


def opened(what: Planned, offset: int, plans: Iterable[OpenPlan]) -> OpenPlan:
    """Return the plan that begins with an event at an offset, beside those that are under way."""
    plan = OpenPlan(offset, what.kind, what.reading.horizon, what.chunks, what.bytes, request=what.request)
    if what.instead:
        was = next((each for each in plans if each.number == what.instead.plan), None)
        plan = msgspec.structs.replace(plan, whole_of=was.whole_of if was else 0)
    elif what.kind == "backfill" and not what.span:
        plan = msgspec.structs.replace(plan, whole_of=offset)
    if what.kind == "sweep":
        plan = msgspec.structs.replace(plan, complete_at=what.complete_at, then=what.then)
    return plan


def continued(plans: Iterable[OpenPlan], what: PlanEvent) -> tuple[OpenPlan, ...]:
    """Return the plans after an event on one of them, that one too if it is over."""
    number = what.instead.plan if isinstance(what, Planned) and what.instead else getattr(what, "plan", 0)
    return tuple(_after(plan, what) if plan.number == number else plan for plan in plans)


def _after(plan: OpenPlan, what: PlanEvent) -> OpenPlan:
    match what:
        case Planned(instead=Dropped(chunks=chunks)):
            return _done(plan, chunks)
        case ChunksDropped(chunks=chunks):
            plan = _done(plan, chunks)
            plan = msgspec.structs.replace(plan, unread=plan.unread or what.unread)
        case ChunkRead():
            plan = _done(plan, ((what.chunk.number, what.chunk.number),), (what.rest,) if what.rest else ())
            rows = what.segment.rows if what.segment else 0
            plan = msgspec.structs.replace(plan, done_bytes=plan.done_bytes + what.bytes, rows=plan.rows + rows)
        case ChunkSplit():
            plan = _done(plan, ((what.chunk, what.chunk),), what.halves)
        case Enqueued():
            plan = msgspec.structs.replace(plan, sent=True)
    return plan


def _done(plan: OpenPlan, chunks: Numbers, more: tuple[Chunk, ...] = ()) -> OpenPlan:
    done = joined((*plan.done, *chunks))
    pieces = tuple(
        piece for piece in (*plan.pieces, *more) if not any(first <= piece.number <= last for first, last in chunks)
    )
    return msgspec.structs.replace(
        plan,
        chunks=plan.chunks + len(more),
        done=done,
        pieces=pieces,
        sent=plan.sent and all(chunk.depth for chunk in more),
    )


def joined(ranges: Iterable[tuple[int, int]]) -> Numbers:
    """Return ranges of numbers in order, those that touch or overlap made one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
