"""The lake as a program reads it: tables, segments and rows in the order of their positions, and what is new since.

    from tidelog.read import Lake

    orders = Lake.open("mylake").table("public.sales_order")
    for row in orders.latest():
        ...

A folder needs no AWS. Rows are dictionaries: integers are int, other numbers Decimal, to the digit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import msgspec

from tidelog.errors import InvalidSetting, UnknownColumn, UnknownTable, UnreadableData
from tidelog.events import Event, Remade
from tidelog.history import FOREIGN, History
from tidelog.lake import Position, data_prefix, read_segment_key, schema_prefix
from tidelog.lineage import Lineage
from tidelog.schema import SchemaDocument
from tidelog.stored import ReadRow, Stored
from tidelog.stores import Store, find_store
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Lake:
    """A lake: a folder, a bucket, or what lies under a prefix in one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, place: str, s3: S3Client | None = None) -> Lake:
        """Open the lake at `s3://bucket`, `s3://bucket/prefix` or a folder's path.

        Args:
            place: where the lake is.
            s3: a client, if it is to be another than boto3's default.

        Raises:
            InvalidSetting: (a ValueError) there is no lake.
            AccessDenied, StoreUnreachable: as they say.
        """
        return cls(find_store(place, lambda: s3 or _client()))

    def tables(self) -> list[str]:
        """Return the names of the tables that were ever read, sorted."""
        return [str(name) for name in History(self._store).tables()]

    def table(self, name: str) -> LakeTable:
        """Return a table, named as in `tables`.

        Raises:
            UnknownTable: (a KeyError) it has no ledger here.
        """
        try:
            table = TableName.parse(name)
        except ValueError as error:
            raise UnknownTable("find", name, str(error)) from error
        if next(History(self._store).offsets(table), None) is None:
            hint = "Check its name: `Lake.tables()` has those that are there, and `tidelog status` shows them"
            raise UnknownTable("find", table, "it has no ledger in this lake, which begins with its first row", hint)
        return LakeTable(self._store, table)


class Commit(msgspec.Struct, frozen=True):
    """A segment as the ledger tells of it."""

    offset: int
    """To be remembered once its rows are dealt with."""
    segment: Stored
    schema: str
    """Fingerprint of the document that describes its lines."""
    at: str
    """When it was committed, by the worker's clock (ISO 8601, UTC)."""


class LakeTable:
    """A table in a lake."""

    def __init__(self, store: Store, name: TableName) -> None:
        self._store = store
        self._history = History(store)
        self._load = cache(self.schema)
        self.name = name

    def segments(self, after: Position | None = None) -> list[Stored]:
        """Return the published segments, those behind a position only, in the order of their positions.

        What is committed and not published yet is not among them. One may come later at a lower position than the last
        of these: a chunk of a large read. `follow` tells of all.

        Raises:
            UnreadableData: (a ValueError) something else lies among them.
            AccessDenied, StoreUnreachable: as they say.
        """
        found = self._store.keys(data_prefix(self.name))
        listed = [Stored(_position(each.key), each.key, each.size, self._store) for each in found]
        return sorted(segment for segment in listed if after is None or segment.position > after)

    def rows(self, after: Position | None = None) -> Iterator[ReadRow]:
        """Yield every row as it stands, in the order of the segments' positions, those behind a position only.

        Raises:
            UnreadableData: (a ValueError) a segment is broken.
            AccessDenied, StoreUnreachable: as they say.
        """
        for segment in self.segments(after):
            yield from segment.rows()

    def schema(self, fingerprint: str = "") -> SchemaDocument:
        """Return the table's columns, types and key: as they are now, or as a document says.

        Raises:
            UnreadableData: (a ValueError) the document is not there.
        """
        return self._history.schema(self.name, fingerprint or self._current(self._history.head(self.name)))

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield what happened to the table behind an offset, in order."""
        return self._history.events(self.name, after)

    def follow(self, after: int = 0) -> Iterator[Commit]:
        """Yield the segments that were committed behind an offset, each once, in the order of the ledger, up to now.

        Who handles a segment and remembers its offset, both in one transaction, has each row version once. The order is
        that of the commits and not of the positions: of two versions of a row the one at the higher position counts,
        whichever came first.

        A segment that is committed and not published yet ends the iteration, for it must not be skipped: ask again.
        """
        waiting: deque[Event] = deque()
        remade: dict[int, Event] = {}
        last = after
        for event in self.events(after):
            last = event.offset
            _note(event, waiting, remade)
            # An event that vouches for a segment comes behind the one that says that it was made again.
            while waiting and waiting[0].offset <= event.finished:
                if not self._is_there(waiting[0]):
                    return  # The lake is a copy, of a moment between the two.
                yield self._commit(waiting.popleft(), remade)
        there = list(takewhile(self._is_there, waiting))
        for event in self.events(last) if there else ():
            _note(event, deque(), remade)
        for event in there:
            yield self._commit(event, remade)

    def latest(self, key: Sequence[str] = ()) -> Iterator[ReadRow]:
        """Yield of every key its latest row, in the columns that the table has now.

        Values of renamed columns stand under the new name; where a line lacks a column, it is None. A deleted row keeps
        its last version, and so does one whose key was changed, under its old key. Memory holds one row per key.

        Args:
            key: the columns that tell rows apart; not needed where the table has a primary key.

        Raises:
            InvalidSetting: (a ValueError) the table has no primary key, and none was named.
            UnknownColumn: (a KeyError) there is no such column.
            UnreadableData: (a ValueError) a segment, event or document is broken.
            AccessDenied, StoreUnreachable: as they say.
        """
        document, segments = self.described()
        columns = self.key(document, key)
        rows: dict[tuple[Any, ...], ReadRow] = {}
        for segment, names in segments:
            never = [] if key else never_null(document, columns, names)
            wanted = [(column.name, names.get(column.name)) for column in document.columns]
            for found in segment.rows():
                row = {name: found.get(was) if was is not None else None for name, was in wanted}
                identity = tuple(_hashable(row[column]) for column in columns)
                if any(row[column] is None for column in never):
                    continue  # Of before there was this key: rows that are still there have newer versions.
                rows[identity] = row
        return iter(rows.values())

    def key(self, document: SchemaDocument, named: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the columns that tell rows apart: those named, or else the primary key.

        Raises:
            InvalidSetting: (a ValueError) the table has no primary key, and none was named.
            UnknownColumn: (a KeyError) there is no such column.
        """
        known = [column.name for column in document.columns]
        for column in named:
            if column not in known:
                raise UnknownColumn("find", f"{self.name}.{column}", f"its columns are {', '.join(known)}")
        if not (columns := tuple(named) or document.key):
            hint = "Name the columns that do (--key on the command line, key= in Python)"
            raise InvalidSetting("tell apart the rows of", self.name, "it has no primary key", hint)
        return columns

    def described(self) -> tuple[SchemaDocument, list[tuple[Stored, Mapping[str, str]]]]:
        """Return the table as it is now, and the published segments in the order of their positions.

        Beside each segment stands, of every column of now that its lines have, the name that it has there. Where the
        table was ever altered, all of its events are read for that.

        Raises:
            UnreadableData: (a ValueError) an event or document is broken, or no event tells of a segment.
            AccessDenied, StoreUnreachable: as they say.
        """
        segments = self.segments()  # Before the ledger is read: the event of what is published is there.
        keys = (found.key.rpartition("/")[2] for found in self._store.keys(schema_prefix(self.name)))
        documents = [name.removesuffix(".json") for name in keys if not name.startswith("partitions-")]
        if len(documents) == 1:
            current = self._load(documents[0])
            same = {column.name: column.name for column in current.columns}
            return current, [(segment, same) for segment in segments]
        lineage, head = Lineage(self._load), None
        for head in self.events():
            lineage.add(head)
        current = self._load(self._current(head))
        for segment in segments:
            if not lineage.knows(segment.key):
                hint = "Was the ledger changed by hand, or the lake copied while it was written?"
                raise UnreadableData("read", segment.key, "no event tells of it", hint)
        return current, [(segment, lineage.names(segment.key, current)) for segment in segments]

    def _current(self, head: Event | None) -> str:
        """Return the fingerprint of the document that the newest event goes by."""
        if head and (fingerprint := head.state.schema or (head.segment and head.segment.schema)):
            return fingerprint
        raise UnreadableData("read the schema of", self.name, "nothing was read of it yet", "Wait for its first run")

    def _is_there(self, event: Event) -> bool:
        return event.segment is not None and self._store.holds(event.segment.key)

    def _commit(self, event: Event, remade: Mapping[int, Event]) -> Commit:
        segment = remade.get(event.offset, event).segment
        if segment is None:
            raise AssertionError("only events with a segment wait")
        stored = Stored(read_segment_key(segment.key)[1], segment.key, segment.bytes, self._store)
        return Commit(event.offset, stored, segment.schema, event.at)


def _note(event: Event, waiting: deque[Event], remade: dict[int, Event]) -> None:
    """Keep an event that commits a segment; one that was made again comes in place of the first, not once more."""
    if isinstance(event.what, Remade):
        remade[event.what.of] = event
    elif event.segment:
        waiting.append(event)


def _position(key: str) -> Position:
    try:
        return read_segment_key(key)[1]
    except ValueError as error:
        raise UnreadableData("list", key, "it is not the name of a segment", FOREIGN) from error


def never_null(document: SchemaDocument, key: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Return the columns of a primary key that are null only in lines of before there was this key.

    Args:
        document: the table as it is now.
        key: the primary key.
        names: the columns that the lines have, as of `described`. Null of a jsonb column may be JSON's.
    """
    json_null = {column.name for column in document.columns if column.type == "jsonb"}
    return [column for column in key if column not in json_null or column not in names]


def _hashable(value: Any) -> Any:
    if isinstance(value, bool):
        return bool, value  # else true would be 1
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return frozenset((name, _hashable(each)) for name, each in value.items())
    return value


def _client() -> S3Client:
    import boto3  # noqa: PLC0415 - a folder needs none of it

    return boto3.client("s3")
