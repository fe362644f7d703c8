"""The ledger: a table's events in S3, each at an offset of its own that exactly one worker wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import ClientError

from tidelog.errors import UnreadableData
from tidelog.events import Event, What, decode, encode, event_after
from tidelog.failures import error_code, store_errors
from tidelog.lake import event_key, ledger_prefix, read_event_key
from tidelog.objects import put_new
from tidelog.state import State
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


_AT_ONCE = 8
_BATCH = 64


class OffsetTakenError(Exception):
    """Another worker's event has the offset."""


class Ledger:
    """The events of every table.

    Args:
        s3: the client.
        bucket: the lake.
        now: the clock, with a zone.
        new_id: gives each try an id of its own.
    """

    def __init__(self, s3: S3Client, bucket: str, *, now: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._now = now
        self._new_id = new_id

    def head(self, table: TableName, known: int = 0) -> Event | None:
        """Return the newest event of a table, None where it has none.

        Args:
            table: the table.
            known: an offset that is there as far as the caller knows; it spares listing what comes before.
        """
        offset = max(self._offsets(table, after=known - 1), default=0)
        if not offset and known:
            offset = max(self._offsets(table, after=0), default=0)
        return self.read(table, offset) if offset else None

    def read(self, table: TableName, offset: int) -> Event:
        """Return one event.

        Raises:
            UnreadableData: there is none, or it is not what tidelog writes.
        """
        key = event_key(table, offset)
        with store_errors("read", key):
            try:
                body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error_code(error) != "NoSuchKey":
                    raise
                raise UnreadableData(
                    "read", key, "there is no such event", "Was the ledger changed by hand?"
                ) from error
        try:
            return decode(body)
        except msgspec.DecodeError as error:
            raise UnreadableData(
                "read", key, f"it is not an event: {error}", "Was it written by a newer tidelog?"
            ) from error

    def events(self, table: TableName, after: int = 0) -> Iterator[Event]:
        """Yield the events of a table behind an offset, in order; there may be a day of them."""
        offsets = self._offsets(table, after=after)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(offsets, _BATCH)):
                yield from pool.map(lambda offset: self.read(table, offset), some)

    def tables(self) -> Iterator[TableName]:
        """Yield every table that has a ledger, by name."""
        with store_errors("list", "ledger/"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix="ledger/", Delimiter="/"
            )
            for page in pages:
                for prefix in page.get("CommonPrefixes", []):
                    yield TableName.from_path(prefix["Prefix"].split("/")[1])

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
        event = event_after(before, what, table=str(table), at=at, run=run, finished=finished)
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

    def _offsets(self, table: TableName, after: int) -> Iterator[int]:
        prefix = ledger_prefix(table)
        start = event_key(table, after) if after > 0 else ""
        with store_errors("list", prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, StartAfter=start
            )
            for page in pages:
                for found in page.get("Contents", []):
                    yield read_event_key(found["Key"])[1]
