"""The ledger: a table's events in S3, each at an offset of its own that exactly one worker wins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from tidelog.events import Event, What
from tidelog.folding import event_after
from tidelog.history import History
from tidelog.lake import event_key
from tidelog.objects import put_new
from tidelog.records import encode, sealed
from tidelog.state import State
from tidelog.stores import Bucket
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class OffsetTakenError(Exception):
    """Another worker's event has the offset."""


class Ledger(History):
    """The events of every table, and more of them.

    Args:
        s3: the client.
        bucket: the lake.
        now: the clock, with a zone.
        new_id: gives each try an id of its own.
    """

    def __init__(self, s3: S3Client, bucket: str, *, now: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        super().__init__(Bucket(s3, bucket))
        self._s3 = s3
        self._bucket = bucket
        self._now = now
        self._new_id = new_id

    def append(self, table: TableName, before: State, what: What, *, finished: int) -> Event:
        """Commit what happened at the offset behind a state; return the event, with the state after it.

        Args:
            table: the table.
            before: the state that it follows on.
            what: what happened.
            finished: an offset up to which every segment is published, as far as the caller knows.

        Raises:
            OffsetTakenError: another event is there. One that this very call wrote, the answer being lost, is no other.
            StoreUnreachable, AccessDenied: as they say; the event may be there all the same.
        """
        at, run = self._now().isoformat(), self._new_id()
        event = sealed(event_after(before, what, table=str(table), at=at, run=run, finished=finished))
        created = put_new(self._s3, self._bucket, event_key(table, event.offset), encode(event))
        if not created and self.read(table, event.offset) != event:
            raise OffsetTakenError(event.offset)
        return event

    def append_if(
        self, table: TableName, state: State, decide: Callable[[State], What | None], *, finished: int
    ) -> tuple[State, Event | None]:
        """Commit what follows on the newest state, decided anew each time that another event has come first.

        Args:
            table: the table.
            state: the state as it was last seen.
            decide: what happened, given the newest state; None where nothing did.
            finished: as of `append`.

        Returns:
            The state after it, and the event; None where nothing happened.
        """
        while (what := decide(state)) is not None:
            try:
                event = self.append(table, state, what, finished=finished)
            except OffsetTakenError:
                head = self.head(table, state.offset)
                state = head.state if head else State()
            else:
                return event.state, event
        return state, None
