"""PostgreSQL, read: one connection, one table at a time under a lock and a snapshot, rows as JSON lines in bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

import msgspec
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection

from tidelog import catalog
from tidelog.connection import connect
from tidelog.credentials import Credentials
from tidelog.errors import AccessDenied, DatabaseBusy
from tidelog.failures import database_errors
from tidelog.horizon import Horizon
from tidelog.opening import OpenTable, ask, one, open_table
from tidelog.quoting import literal
from tidelog.refusals import explained_refusals
from tidelog.state import State
from tidelog.tables import Relation, TableName
from tidelog.tablesettings import TableSettings, configured
from tidelog.tallies import Tallied, read_tallied, tallies_query
from tidelog.windows import Database, Snapshot

_DURABLE_SECONDS = 30
_NUDGE_SECONDS = 0.05


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
        self.settings = settings
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
            return catalog.read_relations(one(connection, catalog.relations_query()))

    def tallied(self) -> Tallied:
        """List them with what the server has counted of each; what it raises is what `relations` does."""
        with self._guarded("list the tables of", "the database") as connection:
            return read_tallied(one(connection, tallies_query()))

    def horizon(self) -> Horizon:
        """Return the horizon as it is now, and who holds it.

        Raises:
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("read the horizon of", "the database") as connection:
            return msgspec.json.decode(one(connection, catalog.horizon_query()), type=Horizon)

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
            deadline, settings = time.monotonic() + seconds, self.settings(table)
            found, snapshot = open_table(connection, table, deadline, after or State())
            opened = OpenTable(connection, configured(found, settings), settings, snapshot, deadline)
            yield opened
            if opened.cut:
                self.close()
            else:
                connection.run("ROLLBACK")

    def ask(self, table: TableName, question: str, *, deadline: float) -> str | None:
        """Return the answer to one question about a table, asked of the connection of the last time as it is.

        Returns:
            None where there is none: the connection was lost, the table is locked or not there any more.
        """
        if self._connection is None:
            return None
        try:
            return ask(self._connection, table, question, deadline)
        except (DatabaseError, InterfaceError, OSError):
            self.close()
            return None
        except BaseException:
            self.close()
            raise

    def is_on(self, database: Database, horizon: int) -> bool:
        """Say whether this is a database that was read before, and not behind what it was then.

        Raises:
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("read", database.name) as connection:
            snapshot = msgspec.json.decode(one(connection, catalog.snapshot_query()), type=Snapshot)
        now = snapshot.database
        return (now.system, now.oid) == (database.system, database.oid) and snapshot.horizon >= horizon

    def committed(self, xids: Collection[int]) -> frozenset[int]:
        """Return which of some transactions have committed: every later snapshot sees those.

        Raises:
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("read", "the transactions that have ended") as connection:
            return msgspec.json.decode(one(connection, catalog.committed_query(xids)), type=frozenset[int])

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
            while one(connection, question) != "true":
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
        """Connect; where the credentials are refused, read them again: they may have been changed since.

        Those in force may be refused too, as the next rotation has begun: then the ones that are pending are right.
        """
        credentials = self._credentials or self._read_credentials()
        for last in (False, False, True):
            try:
                connection = self._connected(credentials)
                break
            except AccessDenied:
                if last or (other := self._read_credentials()) == credentials:
                    raise
                credentials = other
        if not credentials.passing:
            self._credentials = credentials
        return connection

    def _connected(self, credentials: Credentials) -> Connection:
        with database_errors("connect to", credentials):
            return connect(credentials, self._tls, self._lock_seconds)
