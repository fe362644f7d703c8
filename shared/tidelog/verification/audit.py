"""Whether the events of a ledger add up, one after another; and what objects they say there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal

import msgspec

from tidelog.events import (
    Event,
    Ingested,
    PartitionsChanged,
    Remade,
    SchemaChanged,
    Snapshotted,
    Supplied,
    TimelineStarted,
)
from tidelog.folding import follows
from tidelog.lake import Position, event_key, read_segment_key
from tidelog.plans import ChunkRead, ChunksDropped, ChunkSplit, Enqueued, Planned
from tidelog.readings import Segment
from tidelog.state import State
from tidelog.tables import TableName
from tidelog.verification.seams import chunk_seams, plan_seams, window_seams

Kind = Literal["event", "coverage", "segment", "document", "foreign", "summary"]


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be.

    What `coverage` is about are rows that were left out or come twice; a `foreign` object is one of which no event
    tells.
    """

    kind: Kind
    where: str
    """The key of the object, or the table whose parameter it is."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Kept(msgspec.Struct, frozen=True):
    """What the lake has to hold of a segment."""

    origin: int
    """Offset of the event that committed it first."""
    offset: int
    """Of the last event that did."""
    rows: int
    bytes: int
    text_bytes: int
    schema: str
    digest: str
    supplied: bool
    """Whether a program has written its rows, and not tidelog itself."""


class Alteration(msgspec.Struct, frozen=True):
    """An event by which the schema document became another."""

    offset: int
    schema: str
    outdated: str


class Audit:
    """A table's events, looked at in order.

    Args:
        table: the table.
        read: returns an event of before by its offset, None where it can't be read.
    """

    def __init__(self, table: TableName, read: Callable[[int], Event | None]) -> None:
        self._table = table
        self._read = read
        self._plans: dict[int, Planned] = {}
        self._last: Position | None = None
        self._torn = False
        self.state = State()
        """After the last event that could be read."""
        self.segments: dict[str, Kept] = {}
        """By key, in the order in which they were committed first."""
        self.documents: set[str] = set()
        """Fingerprints of the documents that the events name."""
        self.alterations: list[Alteration] = []
        self.finished = 0
        """Up to this offset all was published, as the events say."""

    def miss(self) -> None:
        """Go on behind an event that is not there or can't be read: what comes next can't be held against it."""
        self._torn = True

    def add(self, event: Event, offset: int) -> list[Finding]:
        """Take the next event, which was found at an offset; return what does not add up."""
        key = event_key(self._table, offset)
        if (event.table, event.offset, event.state.offset) != (str(self._table), offset, offset):
            self._torn = True
            return [Finding("event", key, f"it is event {event.offset} of {event.table}")]
        found = [Finding("event", key, what) for what in self._chain(event)]
        if not self._torn:
            found += [Finding("coverage", key, what) for what in self._seams(event)]
        found += [Finding("event", key, what) for what in self._names(event)]
        self._note(event)
        self.state, self._torn = event.state, False
        return found

    def _chain(self, event: Event) -> Iterator[str]:
        """Yield how an event does not follow on the one before."""
        before, what = self.state, event.what
        try:
            datetime.fromisoformat(event.at)
        except ValueError:
            yield f"{event.at!r} is no time"
        if event.finished >= event.offset:
            yield f"it says that event {event.finished} was published, which came later"
        if self._torn:
            return
        if event.previous != before.digest:
            yield "it does not follow on the event before it, one of the two was replaced"
        elif not follows(before, event):
            yield "its state is not what the one before and itself lead to"
        if isinstance(what, Ingested | Supplied) and what.sequential_id != before.sequential_id + 1:
            yield f"sequential id {what.sequential_id} follows on {before.sequential_id}"
        if isinstance(what, TimelineStarted):
            if what.timeline != before.timeline + 1:
                yield f"timeline {what.timeline} follows on {before.timeline}"
            if what.resume and not self._is_earlier(what.resume):
                yield f"the state that it resumes from is not that of event {what.resume.offset}"

    def _is_earlier(self, resumed: State) -> bool:
        if not 0 < resumed.offset <= self.state.offset or resumed.timeline != self.state.timeline:
            return False
        found = self._read(resumed.offset)
        return found is None or found.state == msgspec.structs.replace(resumed, digest=found.digest)

    def plan(self, number: int) -> Planned | None:
        """Return a plan that is under way, None where its event can't be read."""
        if number not in self._plans and (event := self._read(number)) and isinstance(event.what, Planned):
            self._plans[number] = event.what  # It is under way again, by a timeline that resumes from before its end.
        return self._plans.get(number)

    def _seams(self, event: Event) -> Iterator[str]:
        """Yield what was left out, or read twice."""
        before, what = self.state, event.what
        if isinstance(what, Planned):
            yield from plan_seams(before, what)
        elif isinstance(what, ChunkRead | ChunkSplit | ChunksDropped):
            yield from chunk_seams(before, self.plan(what.plan) if before.plan(what.plan) else None, what)
        elif isinstance(what, Enqueued) and before.plan(what.plan) is None:
            yield f"plan {what.plan} is not under way"
        elif event.reading:
            yield from window_seams(before, event.reading)
            if isinstance(what, Snapshotted) == bool(before.horizon):
                yield "it is a snapshot of a table that was read" if before.horizon else "nothing was read before it"

    def _names(self, event: Event) -> Iterator[str]:
        """Yield how an event names its segment otherwise than it should."""
        segment, what = event.segment, event.what
        if segment is None:
            return
        known = self.segments.get(segment.key)
        if isinstance(what, Remade):
            if not self._torn and (known is None or known.origin != what.of):
                yield f"event {what.of} has not committed {segment.key}"
            return
        if known:
            yield f"event {known.origin} has committed {segment.key} already"
        try:
            table, position = read_segment_key(segment.key)
        except ValueError as error:
            yield str(error)
            return
        if table != self._table or (not self._torn and not self._stands_for(event, position)):
            yield f"{segment.key} is not where its segment belongs"
        if not isinstance(what, ChunkRead):
            if self._last and position <= self._last:
                yield f"{segment.key} sorts before the segment that came before it"
            self._last = position

    def _stands_for(self, event: Event, position: Position) -> bool:
        """Say whether a position is the one of an event's segment."""
        before, what = self.state, event.what
        match what:
            case Ingested():
                expected = Position(before.timeline, what.reading.horizon, increment=True, number=what.sequential_id)
            case Snapshotted():
                number = min(position.number, event.offset)  # Other events may have come in between.
                expected = Position(before.timeline, what.reading.horizon, increment=False, number=number)
            case ChunkRead():
                plan = before.plan(what.plan)
                horizon = plan.horizon if plan else position.horizon
                expected = Position(
                    before.timeline, horizon, increment=False, number=what.plan, chunk=what.chunk.number
                )
            case _:
                number = what.sequential_id if isinstance(what, Supplied) else position.number
                return position.increment and position.number == number and position.horizon <= before.horizon
        return position == expected

    def _note(self, event: Event) -> None:
        """Keep what later events and the objects are held against."""
        self.finished = max(self.finished, event.finished)
        what = event.what
        if segment := event.segment:
            self._keep(event, segment)
        for reading in (event.reading, what.reading if isinstance(what, Planned) else None):
            if reading and reading.partitions:
                self.documents.add(reading.partitions)
        match what:
            case Planned():
                self.documents.add(what.schema)
                self._plans[event.offset] = what
            case SchemaChanged():
                self.documents.add(what.schema)
                self.alterations.append(Alteration(event.offset, what.schema, what.outdated))
            case PartitionsChanged():
                self.documents.add(what.partitions)
        under_way = {plan.number for plan in event.state.plans}
        self._plans = {number: plan for number, plan in self._plans.items() if number in under_way}

    def _keep(self, event: Event, segment: Segment) -> None:
        self.documents.add(segment.schema)
        known = self.segments.get(segment.key)
        self.segments[segment.key] = Kept(
            origin=known.origin if known else event.offset,
            offset=event.offset,
            rows=segment.rows,
            bytes=segment.bytes,
            text_bytes=segment.text_bytes,
            schema=segment.schema,
            digest=segment.digest,
            supplied=isinstance(event.what, Supplied),
        )
