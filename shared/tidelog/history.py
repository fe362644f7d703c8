"""What the events of a lake say: the ledger as it is read, from a bucket or from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import TypeVar

import msgspec

from tidelog.errors import UnreadableData
from tidelog.events import Event
from tidelog.lake import event_key, ledger_prefix, read_event_key, schema_key
from tidelog.partitions import Partitions
from tidelog.records import decode
from tidelog.schema import SchemaDocument
from tidelog.stores import NoSuchObjectError, Store
from tidelog.tables import TableName

_Document = TypeVar("_Document")

FOREIGN = "Move it out of the lake: `tidelog verify --ledger-only` names all that tidelog has not written"
_AT_ONCE = 8
_BATCH = 64


class History:
    """The events of every table, and the documents that they name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def tables(self) -> Iterator[TableName]:
        """Yield every table that has a ledger, by name."""
        return iter(sorted(map(TableName.from_path, self._store.folders("ledger/"))))

    def offsets(self, table: TableName, after: int = 0) -> Iterator[int]:
        """Yield the offsets of a table's events behind one, in order."""
        start = event_key(table, after) if after > 0 else ""
        for found in self._store.keys(ledger_prefix(table), start):
            yield _offset(found.key)

    def head(self, table: TableName, known: int = 0) -> Event | None:
        """Return the newest event of a table, None where it has none.

        Args:
            table: the table.
            known: an offset that is there as far as the caller knows; it spares listing what comes before.
        """
        offset = self._last(table, known - 1) or (self._last(table, 0) if known else 0)
        return self.read(table, offset) if offset else None

    def is_newest(self, table: TableName, offset: int) -> bool:
        """Say whether an event is the newest of a table, without reading it."""
        return self._last(table, offset - 1) == offset

    def _last(self, table: TableName, after: int) -> int:
        """Return the offset of the newest event behind one, 0 where there is none; the keys come in order."""
        key = ""
        for listed in self._store.keys(ledger_prefix(table), event_key(table, after) if after > 0 else ""):
            key = listed.key
        return _offset(key) if key else 0

    def read(self, table: TableName, offset: int) -> Event:
        """Return one event.

        Raises:
            UnreadableData: there is none, or it is not what tidelog writes.
        """
        key = event_key(table, offset)
        try:
            return decode(self._store.read(key))
        except NoSuchObjectError as error:
            hint = "Was the ledger changed by hand?"
            raise UnreadableData("read", key, "there is no such event", hint) from error
        except msgspec.DecodeError as error:
            hint = "Was it changed by hand, or written by a newer tidelog?"
            raise UnreadableData("read", key, f"it is not an event: {error}", hint) from error

    def before(self, table: TableName, head: Event, moment: datetime) -> Event | None:
        """Return the newest event that was written at or before a moment, None where there is none.

        Offsets are searched by halving. The clocks of workers differ a little, and so may the answer.

        Args:
            table: the table.
            head: its newest event.
            moment: with a zone.
        """
        if datetime.fromisoformat(head.at) <= moment:
            return head
        first, after = 0, head.offset  # The first is at or before it (0 stands for none), the other is not.
        found = None
        while after - first > 1:
            middle = (first + after) // 2
            event = self.read(table, middle)
            if datetime.fromisoformat(event.at) <= moment:
                first, found = middle, event
            else:
                after = middle
        return found

    def events(self, table: TableName, after: int = 0) -> Iterator[Event]:
        """Yield the events of a table behind an offset, in order; there may be a day of them."""
        offsets = self.offsets(table, after=after)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(offsets, _BATCH)):
                yield from pool.map(lambda offset: self.read(table, offset), some)

    def schema(self, table: TableName, fingerprint: str) -> SchemaDocument:
        """Return a schema document.

        Raises:
            UnreadableData: it is not there, or is none.
        """
        return self._document(table, fingerprint, SchemaDocument)

    def partitions(self, table: TableName, fingerprint: str) -> Partitions:
        """Return which partitions there were.

        Raises:
            UnreadableData: the document is not there, or is none.
        """
        return self._document(table, fingerprint, Partitions)

    def _document(self, table: TableName, fingerprint: str, kind: type[_Document]) -> _Document:
        key, hint = schema_key(table, fingerprint), "Put it back from a copy of the lake"
        try:
            return msgspec.json.decode(self._store.read(key), type=kind)
        except NoSuchObjectError as error:
            raise UnreadableData("read", key, "there is no such document", hint) from error
        except msgspec.DecodeError as error:
            raise UnreadableData("read", key, f"it is not what it should be: {error}", hint) from error


def _offset(key: str) -> int:
    try:
        return read_event_key(key)[1]
    except ValueError as error:
        raise UnreadableData("list", key, "it is not the name of an event", FOREIGN) from error
