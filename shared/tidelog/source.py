"""PostgreSQL, read: one connection, one table at a time under a lock and a snapshot, rows as JSON lines in bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection

from tidelog import catalog, timestamps
from tidelog.columns import COPY_FORMAT, json_fields, json_frame
from tidelog.connection import connect
from tidelog.credentials import Credentials
from tidelog.errors import AccessDenied, DatabaseBusy
from tidelog.failures import database_errors
from tidelog.horizon import Horizon
from tidelog.opening import open_table
from tidelog.quoting import identifier, literal
from tidelog.refusals import explained_refusals
from tidelog.state import State
from tidelog.stream import Gathering, Sink, pull
from tidelog.tables import Leaf, Relation, Table, TableName
from tidelog.tablesettings import TableSettings, configured
from tidelog.tallies import Tallied, read_tallied, tallies_query
from tidelog.windows import Database, Found, Snapshot, Window, at_or_above, widen

_DURABLE_SECONDS = 30
_NUDGE_SECONDS = 0.05
_MOMENT_SECONDS = 2
_CHEAP = 1000
"""Of the planner's cost units; the end of a btree costs less than one."""

# The row that is read. It is always qualified and always quoted, so that no column can be taken for it.
_ROW = '"~t"'


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
        above = at_or_above(snapshot.horizon, snapshot, _ROW)
        self._follow_deadline()
        answer = _one(
            self._connection,
            f"SELECT json_build_object('rows', count(*), 'rows_above', count(*) FILTER (WHERE {above}), "
            f"'timestamps', {_latest(timestamp_columns)}, 'stored', "
            f"coalesce(json_agg(DISTINCT {_ROW}.xmin::text::bigint) FILTER (WHERE {above}), '[]'))::text "
            f"FROM ONLY {leaf.table_name.sql} {_ROW} WHERE {window.condition(snapshot, _ROW)}",
        )
        found = msgspec.json.decode(answer, type=_Answer)
        above_ids = tuple(widen(xid, snapshot.limit) for xid in found.stored)
        return Found(found.rows, found.rows_above, above_ids, found.timestamps)

    def estimate(self, leaf: Leaf, window: Window) -> int:
        """Return how many row versions a window of a leaf holds, as PostgreSQL's planner estimates."""
        answer = _one(
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
            plan = _one(self._connection, f"EXPLAIN (FORMAT JSON) {question}")[0]["Plan"]
            if plan["Total Cost"] > _CHEAP * len(columns):  # Only a btree knows its end.
                return None
            found += msgspec.json.decode(_one(self._connection, question), type=tuple[str | None, ...])
        return timestamps.latest(found)

    def there(self, oids: Iterable[int]) -> frozenset[int]:
        """Return which of some relations the database has."""
        self._follow_deadline()
        return msgspec.json.decode(_one(self._connection, catalog.there_query(oids)), type=frozenset[int])

    def copy(self, leaf: Leaf, window: Window, sink: Sink) -> None:
        """Write the JSON lines of a window of a leaf to a sink."""
        statement = (
            f"COPY (SELECT {json_fields(self.table, _ROW)} FROM ONLY {leaf.table_name.sql} {_ROW} "
            f"WHERE {window.condition(self.snapshot, _ROW)}) TO STDOUT WITH {COPY_FORMAT}"
        )
        self._copy_out(statement, Gathering(sink, json_frame(self.table)))

    def lines(self, leaf: Leaf, window: Window) -> Generator[bytes]:
        """Yield the JSON lines of a window of a leaf, a block at a time, in bounded memory."""
        self.cut = True
        yield from pull(lambda sink: self.copy(leaf, window, sink))
        self.cut = False

    def tell(self, question: str, sink: Sink) -> None:
        """Write the answer to any question to a sink: a line for each row, with tabs between its values."""
        self._copy_out(f"COPY ({question}) TO STDOUT", Gathering(sink))

    def prepare(self, **settings: str) -> None:
        """Set some of the server's settings until the table is closed."""
        for name, value in settings.items():
            self._connection.run(f"SET LOCAL {identifier(name)} = {literal(value)}")

    def _copy_out(self, statement: str, rows: Gathering) -> None:
        self._follow_deadline()
        self._connection.execute_unnamed(statement, stream=rows)
        rows.flush()

    def _follow_deadline(self) -> None:
        """Let the next statement take no longer than what is left, give or take a moment."""
        if self.left < self._allowed - _MOMENT_SECONDS:
            self._allowed = self.left
            self._connection.run(f"SET LOCAL statement_timeout = {_milliseconds(self._allowed)}")


class Source:
    """A PostgreSQL database, read through one connection that is opened when it is first needed.

    Args:
        credentials: reads the database and the role; asked again when the database refuses them.
        tls: "verify-full", "require" or "disable".
        lock_seconds: how long a lock on a table is waited for.
        settings: what the configuration in force says of a table. All that is read of one is read as it says.
    """

    def __init__(
        self,
        credentials: Callable[[], Credentials],
        tls: str,
        *,
        lock_seconds: float,
        settings: Callable[[TableName], TableSettings] = lambda _: TableSettings(),
    ) -> None:
        self._read_credentials = credentials
        self._credentials: Credentials | None = None
        self._tls = tls
        self._lock_seconds = lock_seconds
        self._settings = settings
        self._connection: Connection | None = None

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None

    def relations(self) -> tuple[Relation, ...]:
        """List every user relation of the database.

        Raises:
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("list the tables of", "the database") as connection:
            return catalog.read_relations(_one(connection, catalog.relations_query()))

    def tallied(self) -> Tallied:
        """List them with what the server has counted of each; what it raises is what `relations` does."""
        with self._guarded("list the tables of", "the database") as connection:
            return read_tallied(_one(connection, tallies_query()))

    def horizon(self) -> Horizon:
        """Return the horizon as it is now, and who holds it.

        Raises:
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("read the horizon of", "the database") as connection:
            return msgspec.json.decode(_one(connection, catalog.horizon_query()), type=Horizon)

    @contextmanager
    def open(self, table: TableName, *, seconds: float, after: State | None = None) -> Iterator[OpenTable]:
        """Lock a table against rewrites, take a snapshot, and hold both until the end of the block.

        Args:
            table: the table.
            seconds: the time there is for all that is asked while it is open.
            after: a state of it whose reader must not see less than earlier ones have.

        Raises:
            ReplicaBehind: another server has shown more than this one does yet.
            UnknownTable: there is no such table.
            NotIngestible: it is a view, a foreign table, or has a foreign table among its partitions.
            InvalidSetting: its configuration does not fit it.
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("read", table) as connection, explained_refusals(connection, table):
            deadline, settings = time.monotonic() + seconds, self._settings(table)
            found, snapshot = open_table(connection, table, deadline, after or State())
            opened = OpenTable(connection, configured(found, settings), settings, snapshot, deadline)
            yield opened
            if opened.cut:
                self.close()
            else:
                connection.run("ROLLBACK")

    def is_on(self, database: Database, horizon: int) -> bool:
        """Say whether this is a database that was read before, and not behind what it was then.

        Raises:
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("read", database.name) as connection:
            snapshot = msgspec.json.decode(_one(connection, catalog.snapshot_query()), type=Snapshot)
        now = snapshot.database
        return (now.system, now.oid) == (database.system, database.oid) and snapshot.horizon >= horizon

    def pass_horizon(self, xid: int, seconds: float) -> None:
        """Wait until all transactions below an id have ended, for some seconds at most."""
        give_up = time.monotonic() + seconds
        while self.horizon().horizon < xid and time.monotonic() < give_up:
            time.sleep(0.05)

    def wait_until_durable(self, snapshot: Snapshot) -> None:
        """Wait until a crash of the server can't bring back a transaction id below a snapshot's horizon.

        Ids of transactions that ended without a flush are given out again after a crash; once the log is on disk up to
        where it was when the horizon was read, they are not. On a busy server that is so at once. On an idle one the
        last page of the log may stay unwritten for 15 s, so after a moment an empty transaction of our own has the log
        writer write it.

        Only the connection that took the snapshot can answer: another may reach a server that has crashed meanwhile and
        uses the same positions of the log again.

        Raises:
            DatabaseBusy: the server does not write its log.
            DatabaseUnreachable: as it says.
        """
        if snapshot.standby or snapshot.wal_position is None:
            return  # It is sent only what is on its primary's disk.
        question = f"SELECT (pg_current_wal_flush_lsn() >= {literal(snapshot.wal_position)}::pg_lsn)::text"
        started = time.monotonic()
        nudged = False
        with self._guarded("read", snapshot.database.name, reconnect=False) as connection:
            while _one(connection, question) != "true":
                waited = time.monotonic() - started
                if waited > _DURABLE_SECONDS:
                    raise DatabaseBusy("read", snapshot.database.name, "the server does not write its log to disk")
                if waited > _NUDGE_SECONDS and not nudged:
                    connection.run("SELECT pg_current_xact_id()")
                    nudged = True
                time.sleep(0.01)

    @contextmanager
    def _guarded(self, operation: str, subject: object, *, reconnect: bool = True) -> Iterator[Connection]:
        """Lend the connection, and close it when anything goes wrong: what state it is in then is not worth knowing."""
        try:
            with database_errors(operation, subject):
                yield self._lent(reconnect=reconnect)
        except BaseException:
            self.close()
            raise

    def _lent(self, *, reconnect: bool) -> Connection:
        """Return the connection of the last time if it still answers, else a new one, or fail."""
        if self._connection is not None:
            try:
                self._connection.run("SELECT 1")
            except (DatabaseError, InterfaceError, OSError):
                self.close()
        if self._connection is None:
            if not reconnect:
                raise InterfaceError("the connection was lost")
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        """Connect; where the credentials are refused, read them once more: they may have been changed meanwhile."""
        credentials = self._credentials or self._read_credentials()
        try:
            connection = self._connected(credentials)
        except AccessDenied:
            current = self._read_credentials()
            if current == credentials:
                raise
            credentials = current
            connection = self._connected(credentials)
        if not credentials.passing:
            self._credentials = credentials
        return connection

    def _connected(self, credentials: Credentials) -> Connection:
        with database_errors("connect to", credentials):
            return connect(credentials, self._tls, self._lock_seconds)


def _one(connection: Connection, statement: str) -> Any:
    return connection.run(statement)[0][0]


def _latest(columns: Sequence[str]) -> str:
    return f"json_build_array({', '.join(f'max({_ROW}.{identifier(column)})' for column in columns)})"


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
