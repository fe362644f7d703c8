"""Publishing committed segments, and finishing what an earlier run has left unfinished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from msgspec.structs import replace

from tidelog.errors import Conflict, UnreadableData
from tidelog.events import Event, Remade
from tidelog.lake import read_segment_key
from tidelog.ledger import Ledger, OffsetTakenError
from tidelog.opening import OpenTable
from tidelog.parameters import Parameters, Summary
from tidelog.planning import Part
from tidelog.plans import ChunkRead, Planned
from tidelog.readings import Segment
from tidelog.retracing import again, chunk_parts, is_same
from tidelog.segment import Segments, UploadGoneError
from tidelog.source import Source
from tidelog.state import State
from tidelog.tables import TableName

_ATTEMPTS = 5


class Publisher:
    """Makes committed segments visible and projects the states that they lead to."""

    def __init__(
        self,
        source: Source,
        segments: Segments,
        ledger: Ledger,
        parameters: Parameters,
        now: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._segments = segments
        self._ledger = ledger
        self._parameters = parameters
        self._now = now

    def finish_last(
        self, table: TableName, *, seconds: float, read_at: datetime | None = None, tally: str = ""
    ) -> tuple[State, Summary | None]:
        """Publish what is committed but may not be published yet.

        A summary is written after publishing, so all up to its offset is published. Where it was lost, or says nothing
        yet, the events say themselves up to where all was published when they were written.

        Args:
            table: the table.
            seconds: the time there is.
            read_at: when the table's window was read, where it just was.
            tally: up to which all is read then.

        Returns:
            The state to go on from, up to whose offset all is published; and the summary as it was found.

        Raises:
            Conflict: other workers make the same segment again, and were faster each time.
            TidelogError: as it says.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._finish(table, seconds, read_at, tally)
            except OffsetTakenError:
                continue  # Somebody else has made a lost segment again, or there are newer events: look once more.
        raise Conflict("publish", table, f"other workers took the offset {_ATTEMPTS} times", "It is tried again")

    def _finish(
        self, table: TableName, seconds: float, read_at: datetime | None, tally: str
    ) -> tuple[State, Summary | None]:
        known = self._summary(table)
        head = self._ledger.head(table, known.offset if known else 0)
        if known and known.offset > (head.offset if head else 0):
            known = None  # It is not of this ledger: nothing that it says is published need be.
        if head is None:
            return State(), known
        state, event, published = head.state, head, known.offset if known else 0
        while event.offset > published:
            published = max(published, event.finished)
            state = self._complete(table, event, state, published, seconds)
            if event.offset - 1 <= published:
                break
            event = self._ledger.read(table, event.offset - 1)
        if read_at is None:  # This may be a chunk's run: the table is no fresher than it was.
            read_at = datetime.fromisoformat(known.checked_at) if known and known.checked_at else self._now()
        self._parameters.project(table, state, known, read_at, tally=tally)
        return state, known

    def publish(
        self,
        table: TableName,
        event: Event,
        known: Summary | None,
        *,
        after: State,
        seconds: float,
        tally: str = "",
    ) -> None:
        """Publish the segment of the newest event and project the state, with what others have committed since.

        Args:
            table: the table.
            event: the event.
            known: the summary as it was found.
            after: the state up to which all is published.
            seconds: the time there is.
            tally: up to which all is read.
        """
        if event.offset != after.offset + 1:
            self.finish_last(table, seconds=seconds, read_at=self._now(), tally=tally)
            return
        state = self._complete(table, event, event.state, event.finished, seconds)
        self._parameters.project(table, state, known, self._now(), tally=tally)

    def _summary(self, table: TableName) -> Summary | None:
        try:
            return self._parameters.read(table)
        except UnreadableData:
            return None  # It is a cache: it is written anew from the ledger.

    def _complete(self, table: TableName, event: Event, state: State, published: int, seconds: float) -> State:
        """Complete an event's upload, made again if it is gone; return the state after that."""
        if event.segment is None:
            return state
        try:
            self._segments.publish(event.segment)
        except UploadGoneError:
            origin = self._ledger.read(table, event.what.of) if isinstance(event.what, Remade) else event
            remade = self._remake(table, origin, event.segment, seconds)
            try:
                state = self._ledger.append(table, state, remade, finished=published).state
            except OffsetTakenError:
                self._segments.abort(remade.segment)
                raise
            self._segments.publish(remade.segment)
        return state

    def _remake(self, table: TableName, committed: Event, lost: Segment, seconds: float) -> Remade:
        with (
            self._source.open(table, seconds=seconds, after=committed.state) as opened,
            self._segments.prepare(lost.key) as upload,
        ):
            parts, missing = self._parts(opened, table, committed, lost)
            rows = sum(opened.copy(part.leaf, part.window, upload) for part in parts)
            opened.confirm()
            document = opened.table.document()
            self._segments.describe(table, document)
            remade = upload.finish(document.fingerprint, rows)
        try:
            # A row may have been left out for a newer version, which a crash of the server must not take back.
            self._source.wait_until_durable(opened.snapshot)
        except BaseException:
            self._segments.abort(remade)
            raise
        return Remade(committed.offset, remade, tuple(sorted(missing)))

    def _parts(
        self, opened: OpenTable, table: TableName, committed: Event, lost: Segment
    ) -> tuple[Sequence[Part], set[int]]:
        """Return the windows that a committed segment was read from, and the relations of which they don't have all."""
        if isinstance(committed.what, ChunkRead):
            return self._parts_of_chunk(opened, table, committed.what, read_segment_key(lost.key)[1].horizon)
        if committed.reading is None:
            reason = "its upload was aborted before it was published, and tidelog has not read its rows itself"
            raise UnreadableData("publish", lost.key, reason, "Write its rows again under the next sequential id")
        if not is_same(opened, committed.reading):
            return (), set()
        parts = list(again(opened, committed.reading))
        return parts, {leaf.oid for leaf in committed.reading.leaves} - {part.leaf.oid for part in parts}

    def _parts_of_chunk(
        self, opened: OpenTable, table: TableName, read: ChunkRead, horizon: int
    ) -> tuple[Sequence[Part], set[int]]:
        """Return the windows of a chunk, and the relations of which they don't have all.

        Of one that was rewritten since, all pages are read, and that may not do: pg_repack gives rows other ids.
        """
        plan = self._ledger.read(table, read.plan).what
        if not isinstance(plan, Planned) or not is_same(opened, plan.reading):
            return (), set()
        filenodes = {leaf.oid: leaf.filenode for leaf in opened.table.leaves}
        parts, of = list(chunk_parts(opened.table, plan, read.chunk, horizon)), read.chunk.leaf
        if of and filenodes.get(of) != plan.leaf(of).filenode:
            return [replace(part, window=replace(part.window, pages=None)) for part in parts], {of}
        wanted = {of} if of else {leaf.oid for leaf in plan.reading.leaves}
        return parts, wanted - {part.leaf.oid for part in parts}
