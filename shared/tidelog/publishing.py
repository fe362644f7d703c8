"""Publishing committed segments, and finishing what an earlier run has left unfinished."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tidelog.errors import UnreadableData
from tidelog.events import Event, Remade, Segment, State
from tidelog.ledger import Ledger, OffsetTakenError
from tidelog.parameters import Parameters, Summary
from tidelog.planning import again
from tidelog.segment import Segments, UploadGoneError
from tidelog.source import Source
from tidelog.tables import TableName


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

    def finish_last(self, table: TableName, *, seconds: float) -> tuple[State, Summary | None]:
        """Publish what is committed but may not be published yet.

        A summary is written after publishing, so all up to its offset is published. Where it was lost, or says nothing
        yet, the newest segment that is published vouches for those before it.

        Returns:
            The state to go on from, and the summary as it was found.
        """
        known = self._summary(table)
        head = self._ledger.head(table, known.offset if known else 0)
        if known and known.offset > (head.offset if head else 0):
            known = None  # It is not of this ledger: nothing that it says is published need be.
        if head is None:
            return State(), known
        state, event, published = head.state, head, known.offset if known else 0
        while event.offset > published:
            if not published and event.segment and self._segments.is_published(event.segment):
                break
            state = self._complete(table, event, state, seconds)
            if event.offset == 1:
                break
            event = self._ledger.read(table, event.offset - 1)
        self._parameters.project(table, state, known, self._now())
        return state, known

    def publish(self, table: TableName, event: Event, known: Summary | None, *, seconds: float) -> State:
        """Publish the segment of the newest event, project, and return the state after it."""
        state = self._complete(table, event, event.state, seconds)
        self._parameters.project(table, state, known, self._now())
        return state

    def _summary(self, table: TableName) -> Summary | None:
        try:
            return self._parameters.read(table)
        except UnreadableData:
            return None  # It is a cache: it is written anew from the ledger.

    def _complete(self, table: TableName, event: Event, state: State, seconds: float) -> State:
        """Complete an event's upload, made again if it is gone; return the state after that."""
        if event.segment is None:
            return state
        try:
            self._segments.publish(event.segment)
        except UploadGoneError:
            origin = self._ledger.read(table, event.what.of) if isinstance(event.what, Remade) else event
            remade = self._remake(table, origin, event.segment, seconds)
            try:
                state = self._ledger.append(table, state, Remade(origin.offset, remade)).state
            except OffsetTakenError:
                self._segments.abort(remade)
                raise
            self._segments.publish(remade)
        return state

    def _remake(self, table: TableName, committed: Event, lost: Segment, seconds: float) -> Segment:
        if committed.reading is None:
            reason = "its upload was aborted before it was published, and tidelog has not read its rows itself"
            raise UnreadableData("publish", lost.key, reason, "Write its rows again under the next sequential id")
        with self._source.open(table, seconds=seconds) as opened, self._segments.prepare(lost.key) as upload:
            for part in again(opened, committed.reading):
                opened.copy(part.leaf, part.window, upload)
            document = opened.table.document()
            self._segments.describe(table, document)
            return upload.finish(document.fingerprint)
