"""A table is opened: locked against rewrites, then looked at in a snapshot that shows all that earlier ones have."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import msgspec
from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

from tidelog import catalog, timestamps
from tidelog.columns import COPY_FORMAT, holds_tabs, json_headings, json_values
from tidelog.continuity import check_caught_up
from tidelog.errors import DatabaseBusy
from tidelog.failures import sqlstate
from tidelog.quoting import identifier, literal
from tidelog.readings import undelta
from tidelog.state import State
from tidelog.stream import Rows, Sink, pull
from tidelog.tables import Leaf, Table, TableName
from tidelog.tablesettings import TableSettings
from tidelog.windows import Found, Snapshot, Window, at_or_above, widen

_MOMENT_SECONDS = 2
_CHEAP = 1000
"""Of the planner's cost units; the end of a btree costs less than one."""

# The row that is read. It is always qualified and always quoted, so that no column can be taken for it.
_ROW = '"~t"'
_ATTEMPTS = 3
_WRONG_OBJECT_TYPE, _UNDEFINED_TABLE = "42809", "42P01"


class _Answer(msgspec.Struct):
    rows: int
    rows_above: int
    stored: tuple[int, ...]
    timestamps: tuple[str | None, ...]


class OpenTable:
    """A table under a lock and a snapshot: all questions are answered as of one moment."""

    def __init__(
        self, connection: Connection, table: Table, settings: TableSettings, snapshot: Snapshot, deadline: float
    ) -> None:
        self._connection = connection
        self._deadline = deadline
        self._allowed = self.left
        self.table = table
        self.settings = settings
        self.snapshot = snapshot
        self.cut = False
        """Whether the connection is in the middle of an answer, since not all lines were taken."""

    @property
    def left(self) -> float:
        """The seconds that are left; no statement takes longer."""
        return self._deadline - time.monotonic()

    def find(self, leaf: Leaf, window: Window, timestamp_columns: Sequence[str]) -> Found:
        """Say what a window of a leaf holds."""
        snapshot = self.snapshot
        above, stored = "0", "'[]'::json"
        if snapshot.horizon < snapshot.limit:  # Otherwise there are none, and the server may count in parallel.
            those = f"FILTER (WHERE {at_or_above(snapshot.horizon, snapshot, _ROW)})"
            above = f"count(*) {those}"
            stored = f"coalesce(json_agg(DISTINCT {_ROW}.xmin::text::bigint) {those}, '[]')"
        self._follow_deadline()
        answer = one(
            self._connection,
            f"SELECT json_build_object('rows', count(*), 'rows_above', {above}, "
            f"'timestamps', {_latest(timestamp_columns)}, 'stored', {stored})::text "
            f"FROM ONLY {leaf.table_name.sql} {_ROW} WHERE {window.condition(snapshot, _ROW)}",
        )
        found = msgspec.json.decode(answer, type=_Answer)
        above_ids = tuple(widen(xid, snapshot.limit) for xid in found.stored)
        return Found(found.rows, found.rows_above, above_ids, found.timestamps)

    def estimate(self, leaf: Leaf, window: Window) -> int:
        """Return how many row versions a window of a leaf holds, as PostgreSQL's planner estimates."""
        answer = one(
            self._connection,
            f"EXPLAIN (FORMAT JSON) SELECT FROM ONLY {leaf.table_name.sql} {_ROW} "
            f"WHERE {window.condition(self.snapshot, _ROW)}",
        )
        rows: int = answer[0]["Plan"]["Plan Rows"]
        return rows

    def latest(self, columns: Sequence[str]) -> str | None:
        """Return the latest value in some columns where an index tells, else None."""
        if not columns:
            return None
        self._follow_deadline()
        found: list[str | None] = []
        for leaf in self.table.leaves:
            question = f"SELECT ({_latest(columns)})::text FROM ONLY {leaf.table_name.sql} {_ROW}"
            plan = one(self._connection, f"EXPLAIN (FORMAT JSON) {question}")[0]["Plan"]
            if plan["Total Cost"] > _CHEAP * len(columns):  # Only a btree knows its end.
                return None
            found += msgspec.json.decode(one(self._connection, question), type=tuple[str | None, ...])
        return timestamps.latest(found)

    def there(self, oids: Iterable[int]) -> frozenset[int]:
        """Return which of some relations the database has."""
        self._follow_deadline()
        return msgspec.json.decode(one(self._connection, catalog.there_query(oids)), type=frozenset[int])

    def copy(self, leaf: Leaf, window: Window, sink: Sink) -> int:
        """Write the JSON lines of a window of a leaf to a sink; return how many there are."""
        statement = (
            f"COPY (SELECT {json_values(self.table, _ROW)} FROM ONLY {leaf.table_name.sql} {_ROW} "
            f"WHERE {window.condition(self.snapshot, _ROW)}) TO STDOUT WITH {COPY_FORMAT}"
        )
        return self._copy_out(statement, Rows(sink, json_headings(self.table), tabs=holds_tabs(self.table)))

    def lines(self, leaf: Leaf, window: Window) -> Generator[bytes]:
        """Yield the JSON lines of a window of a leaf, a block at a time, in bounded memory."""
        self.cut = True
        yield from pull(lambda sink: self.copy(leaf, window, sink))
        self.cut = False

    def confirm(self) -> None:
        """Hold that what was read by its name is what was described: no lock keeps a schema from being renamed.

        Raises:
            DatabaseBusy: another relation has the name of one by now.
        """
        names = msgspec.json.encode([{"oid": leaf.oid, "name": leaf.table_name.sql} for leaf in self.table.leaves])
        self._follow_deadline()
        question = "SELECT bool_and(to_regclass(name) IS NOT DISTINCT FROM oid::regclass) FROM json_to_recordset"
        if one(self._connection, f"{question}({literal(names.decode())}) AS relation(oid oid, name text)") is False:
            raise DatabaseBusy("read", self.table.table_name, "a schema was renamed meanwhile", "It is tried again")

    def tell(self, question: str, sink: Sink) -> None:
        """Write the answer to any question to a sink: a line for each row, with tabs between its values."""
        self._copy_out(f"COPY ({question}) TO STDOUT", Rows(sink))

    def prepare(self, **settings: str) -> None:
        """Set some of the server's settings until the table is closed."""
        for name, value in settings.items():
            self._connection.run(f"SET LOCAL {identifier(name)} = {literal(value)}")

    def _copy_out(self, statement: str, rows: Rows) -> int:
        self._follow_deadline()
        self._connection.execute_unnamed(statement, stream=rows)
        return rows.count

    def _follow_deadline(self) -> None:
        """Let the next statement take no longer than what is left, give or take a moment."""
        if self.left < self._allowed - _MOMENT_SECONDS:
            self._allowed = self.left
            self._connection.run(f"SET LOCAL statement_timeout = {_milliseconds(self._allowed)}")


def open_table(connection: Connection, table: TableName, deadline: float, after: State) -> tuple[Table, Snapshot]:
    """Begin a transaction, lock a table and take a snapshot; return what the table is, and what the snapshot says.

    Args:
        connection: the connection.
        table: the table.
        deadline: by `time.monotonic`.
        after: what earlier runs have read of it.

    Raises:
        ReplicaBehind: the server does not show all that earlier runs have read.
        UnknownTable: there is no such table.
        NotIngestible: it is a view, a foreign table, or has a foreign table among its partitions.
        DatabaseBusy: it does not hold still.
    """
    for _ in range(_ATTEMPTS):
        snapshot = _snapshot(connection, table, deadline, after)
        check_caught_up(after, snapshot, table)
        description = _describe(connection, table)
        if description.kind == "m":  # Nothing but a query locks it, and by then it may have another file.
            connection.run(f"EXPLAIN SELECT FROM {table.sql}")
            description = _describe(connection, table)
        if all(leaf.locked for leaf in description.leaves):
            return description, snapshot
        connection.run("ROLLBACK")  # A partition was attached, or it was refreshed, between the lock and the snapshot.
    raise DatabaseBusy("read", table, "partitions were attached, or it was refreshed, again and again as it was opened")


def _describe(connection: Connection, table: TableName) -> Table:
    return catalog.read_table(table, connection.run(catalog.table_query(table)))


def _snapshot(connection: Connection, table: TableName, deadline: float, after: State) -> Snapshot:
    """Lock the table and take a snapshot.

    Where another server may have shown more, what has come this far is asked between two of them: the second sees it.
    """
    try:
        _lock(connection, table, deadline)
    except DatabaseError as error:
        if sqlstate(error) != _UNDEFINED_TABLE:
            raise
        first = _look(connection)  # A standby may not have it yet.
        check_caught_up(after, msgspec.structs.replace(first, replayed=first.wal_position), table)
        _lock(connection, table, deadline)
    first, unended = _look(connection), False
    if not first.standby and after.standby:
        [[unended]] = connection.run(catalog.unended_query(undelta(after.ahead)))
    elif not first.standby:
        return first
    connection.run("ROLLBACK")
    _lock(connection, table, deadline)
    return msgspec.structs.replace(_look(connection), replayed=first.wal_position, unended=unended)


def _look(connection: Connection) -> Snapshot:
    [[answer]] = connection.run(catalog.snapshot_query())
    return msgspec.json.decode(answer, type=Snapshot)


def _lock(connection: Connection, table: TableName, deadline: float) -> None:
    """Begin, and lock before the snapshot is taken: a rewrite in between would show an empty table.

    Source: PostgreSQL documentation, "Caveats" of the chapter on concurrency control. A materialized view can't be
    locked so.
    """
    begin = _begin(deadline)
    try:
        connection.run(f"{begin}; {_locking(table)}")
    except DatabaseError as error:
        connection.run("ROLLBACK")
        if sqlstate(error) != _WRONG_OBJECT_TYPE:
            raise
        connection.run(begin)


def _begin(deadline: float) -> str:
    limit = max(1, int((deadline - time.monotonic()) * 1000))
    return f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {limit}"


def _locking(table: TableName) -> str:
    return f"LOCK TABLE {table.sql} IN ACCESS SHARE MODE"


def ask(connection: Connection, table: TableName, question: str, deadline: float) -> str:
    """Return the answer to one question about a table that can be locked, which is all that is sent to the server."""
    [[answer]] = connection.run(f"{_begin(deadline)}; {_locking(table)}; {question}; ROLLBACK")
    text: str = answer
    return text


def one(connection: Connection, statement: str) -> Any:
    """Return the one value that a statement has for an answer."""
    return connection.run(statement)[0][0]


def _latest(columns: Sequence[str]) -> str:
    return f"json_build_array({', '.join(f'max({_ROW}.{identifier(column)})' for column in columns)})"


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
