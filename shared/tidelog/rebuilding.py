"""Parameter Store made again from the ledger: only what differs, and nothing that is not published yet."""

from __future__ import annotations

from datetime import datetime

import msgspec

from tidelog.errors import Conflict
from tidelog.events import Event
from tidelog.history import History
from tidelog.parameters import Kept, Parameters, Summary, summarize
from tidelog.segment import Segments
from tidelog.state import State
from tidelog.tables import TableName

_ATTEMPTS = 5


class Comparison(msgspec.Struct, frozen=True):
    """What Parameter Store has of a table, and what the ledger says.

    Attributes:
        table: the table.
        kept: what there is; None where there is nothing.
        wanted: the summary of all that is published; None where the ledger says nothing.
        head: offset of the newest event; 0 where there is none.
    """

    table: TableName
    kept: Kept | None
    wanted: Summary | None
    head: int

    @property
    def differs(self) -> bool:
        """Whether it is to be written; when the table was read last, and after what, makes none: no event says it."""
        known = self.kept.summary if self.kept else None
        if self.wanted is None:
            return self.kept is not None and not (known and known.is_blank)
        if known is None:
            return True
        return msgspec.structs.replace(known, checked_at=self.wanted.checked_at, tally=self.wanted.tally) != self.wanted

    @property
    def reason(self) -> str:
        """What is wrong with what there is, in words; empty where nothing is."""
        if not self.differs:
            return ""
        if self.kept is None:
            return "there is none"
        if self.kept.summary is None:
            return "it is not a summary"
        if not self.head:
            return "there is no ledger"
        known = self.kept.summary.offset
        if known > self.head:
            return "it is ahead of the ledger"
        if self.wanted is None or known > self.wanted.offset:
            return "it tells of what is not published"
        return "it lags behind" if known < self.wanted.offset else "it says something else"


class Rebuilding:
    """Makes summaries again.

    Args:
        history: the ledgers.
        segments: says which segments are published.
        parameters: the summaries.
    """

    def __init__(self, history: History, segments: Segments, parameters: Parameters) -> None:
        self._history = history
        self._segments = segments
        self._parameters = parameters

    def compare(self, table: TableName) -> Comparison:
        """Hold what there is of a table against its ledger."""
        kept = self._parameters.kept(table)
        # The summary comes first: what a worker writes meanwhile makes the ledger newer, never older, than it.
        head = self._history.head(table)
        published = self._published(table, head) if head else None
        wanted = _summary(published.state, published, kept) if published else None
        return Comparison(table, kept, wanted, head.offset if head else 0)

    def write(self, table: TableName) -> Comparison:
        """Write what the ledger says by now, if that differs by now; return the comparison that it went by.

        A worker may write at the same time. So it is compared anew right before, and the versions tell whether somebody
        has written in between: then it is compared again.

        Raises:
            Conflict: workers were faster each time.
        """
        for _ in range(_ATTEMPTS):
            now = self.compare(table)
            if not now.differs:
                return now
            if now.wanted:
                version = self._parameters.write(table, now.wanted)
                if version == (now.kept.version if now.kept else 0) + 1:
                    return now
            else:
                self._parameters.forget(table)
                if self._history.head(table) is None:  # else its first event has come in between
                    return now
        raise Conflict("rebuild", table, f"workers wrote it {_ATTEMPTS} times meanwhile", "Try again")

    def _published(self, table: TableName, head: Event) -> Event | None:
        """Return the newest event up to which every segment is published, None where not even the first is."""
        first_unpublished, event, published = head.offset + 1, head, 0
        while event.offset > published:
            published = max(published, event.finished)
            if event.segment and not self._segments.is_published(event.segment):
                first_unpublished = event.offset
            if event.offset - 1 <= published:
                break
            event = self._history.read(table, event.offset - 1)
        last = first_unpublished - 1
        if last == head.offset:
            return head
        return self._history.read(table, last) if last else None


def _summary(state: State, event: Event, kept: Kept | None) -> Summary:
    """Return the summary of a state. When the table was read last is taken from what there is, if that can be."""
    if kept and kept.summary and kept.summary.checked_at and kept.summary.offset <= state.offset:
        read_at = kept.summary.checked_at
    else:
        read_at = state.read_at or event.at
    return summarize(state, datetime.fromisoformat(read_at))
