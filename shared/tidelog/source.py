"""PostgreSQL, read: one connection, one table at a time under a lock and a snapshot, rows as JSON lines in bytes."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection

from tidelog import catalog
from tidelog.columns import COPY_FORMAT, COPY_MARKS, json_fields
from tidelog.credentials import Credentials
from tidelog.errors import DatabaseBusy, NotIngestible, UnknownTable
from tidelog.failures import database_errors
from tidelog.quoting import identifier, literal
from tidelog.tables import Leaf, Relation, Table, TableName, refuse
from tidelog.windows import Snapshot, Window, at_or_above, widen

_CONNECT_SECONDS = 10
_SILENCE_SECONDS = 930  # more than a function lives; a peer that is gone is noticed by keep-alive
_LIST_SECONDS = 50
_LOCK_SECONDS = 10
_DURABLE_SECONDS = 30
_NUDGE_SECONDS = 0.05
_LOCK_ATTEMPTS = 3
_WRONG_OBJECT_TYPE = "42809"

# The row that is read. It is always qualified and always quoted, so that no column can be taken for it.
_ROW = '"~t"'

# Text that does not depend on the server's or the role's configuration, and reads back to the same value.
_SESSION = """
SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; SET search_path = pg_catalog;
SET row_security = off; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = iso_8601;
SET bytea_output = hex; SET extra_float_digits = 1; SET xmloption = content; SET lc_monetary = 'C'; SET quote_all_identifiers = off;
SET statement_timeout = '{list}s'; SET lock_timeout = '{lock}s'; SET idle_in_transaction_session_timeout = '{silence}s';
"""


class Sink(Protocol):
    """What takes JSON lines."""

    def write(self, data: bytes, /) -> object:
        """Take some whole lines, each with its newline at the end."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a window holds, before it is read.

    Attributes:
        rows: number of row versions.
        above: distinct transaction ids at or above the snapshot's horizon among them.
        timestamps: the latest value of each timestamp column that was asked for.
    """

    rows: int
    above: tuple[int, ...]
    timestamps: tuple[str | None, ...]


class _Answer(msgspec.Struct):
    rows: int
    stored: tuple[int, ...]
    timestamps: tuple[str | None, ...]


class OpenTable:
    """A table under a lock and a snapshot: all questions are answered as of one moment."""

    def __init__(self, connection: Connection, table: Table, snapshot: Snapshot) -> None:
        self._connection = connection
        self.table = table
        self.snapshot = snapshot

    def find(self, leaf: Leaf, window: Window, timestamp_columns: Sequence[str]) -> Found:
        """Say what a window of a leaf holds."""
        snapshot = self.snapshot
        above = at_or_above(snapshot.horizon, snapshot, _ROW)
        latest = ", ".join(f"max({_ROW}.{identifier(column)})" for column in timestamp_columns)
        answer = _one(
            self._connection,
            f"SELECT json_build_object('rows', count(*), 'timestamps', json_build_array({latest}), 'stored', "
            f"coalesce(json_agg(DISTINCT {_ROW}.xmin::text::bigint) FILTER (WHERE {above}), '[]'))::text "
            f"FROM ONLY {leaf.table_name.sql} {_ROW} WHERE {window.condition(snapshot, _ROW)}",
        )
        found = msgspec.json.decode(answer, type=_Answer)
        return Found(found.rows, tuple(widen(xid, snapshot.limit) for xid in found.stored), found.timestamps)

    def copy(self, leaf: Leaf, window: Window, sink: Sink) -> None:
        """Write the JSON lines of a window of a leaf to a sink."""
        statement = (
            f"COPY (SELECT {json_fields(self.table, _ROW)} FROM ONLY {leaf.table_name.sql} {_ROW} "
            f"WHERE {window.condition(self.snapshot, _ROW)}) TO STDOUT WITH {COPY_FORMAT}"
        )
        lines = _Lines(sink)
        self._connection.execute_unnamed(statement, stream=lines)
        lines.flush()

    def lines(self, leaf: Leaf, window: Window) -> Generator[bytes]:
        """Yield the JSON lines of a window of a leaf, a block at a time, in bounded memory."""
        blocks = _Blocks()
        thread = threading.Thread(target=blocks.fill, args=(self, leaf, window), daemon=True)
        thread.start()
        try:
            yield from blocks
        finally:
            blocks.stop()
            thread.join()


class Source:
    """A PostgreSQL database, read through one connection that is opened when it is first needed.

    Args:
        credentials: the database and the role.
        tls: "verify-full", "require" or "disable".
    """

    def __init__(self, credentials: Credentials, tls: str) -> None:
        self._credentials = credentials
        self._tls = tls
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
        with self._guarded("list the tables of", self._credentials.dbname) as connection:
            return catalog.read_relations(_one(connection, catalog.relations_query()))

    @contextmanager
    def open(self, table: TableName, *, seconds: float) -> Iterator[OpenTable]:
        """Lock a table against rewrites, take a snapshot, and hold both until the end of the block.

        Args:
            table: the table.
            seconds: the longest that one statement may take.

        Raises:
            UnknownTable: there is no such table.
            NotIngestible: it is a view, a foreign table, or has a foreign table among its partitions.
            DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        """
        with self._guarded("read", table) as connection:
            opened = _begin(connection, table, seconds)
            yield opened
            connection.run("ROLLBACK")

    def wait_until_durable(self, snapshot: Snapshot) -> None:
        """Wait until a crash of the server can't bring back a transaction id below a snapshot's horizon.

        Ids of transactions that ended without a flush are given out again after a crash; once the log is on disk up to
        where it was when the horizon was read, they are not. On a busy server that is so at once. On an idle one the
        last page of the log may stay unwritten for 15 s, so after a moment an empty transaction of our own has the log
        writer write it.

        Raises:
            DatabaseBusy: the server does not write its log.
            DatabaseUnreachable: as it says.
        """
        if snapshot.wal_position is None:
            return
        question = f"SELECT (pg_current_wal_flush_lsn() >= {literal(snapshot.wal_position)}::pg_lsn)::text"
        started = time.monotonic()
        nudged = False
        with self._guarded("read", snapshot.database.name) as connection:
            while _one(connection, question) != "true":
                waited = time.monotonic() - started
                if waited > _DURABLE_SECONDS:
                    raise DatabaseBusy("read", snapshot.database.name, "the server does not write its log to disk")
                if waited > _NUDGE_SECONDS and not nudged:
                    connection.run("SELECT pg_current_xact_id()")
                    nudged = True
                time.sleep(0.01)

    @contextmanager
    def _guarded(self, operation: str, subject: object) -> Iterator[Connection]:
        """Lend the connection, and close it when anything goes wrong: what state it is in then is not worth knowing."""
        try:
            with database_errors(operation, subject):
                yield self._checked()
        except BaseException:
            self.close()
            raise

    def _checked(self) -> Connection:
        """Return the connection of the last time if it still answers, else a new one."""
        if self._connection is not None:
            try:
                self._connection.run("SELECT 1")
            except (DatabaseError, InterfaceError, OSError):
                self.close()
        if self._connection is None:
            with database_errors("connect to", self._credentials):
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        where = self._credentials
        context = _tls_context(self._tls)
        sock = socket.create_connection((where.host, where.port), _CONNECT_SECONDS)
        try:
            _keep_alive(sock)
            sock.settimeout(_SILENCE_SECONDS)
            connection = Connection(
                where.username,
                host=where.host,
                port=where.port,
                database=where.dbname,
                password=where.password,
                sock=sock,
                ssl_context=context,
                application_name="tidelog",
            )
        except BaseException:
            sock.close()
            raise
        connection.run(_SESSION.format(list=_LIST_SECONDS, lock=_LOCK_SECONDS, silence=_SILENCE_SECONDS))
        return connection


def _begin(connection: Connection, table: TableName, seconds: float) -> OpenTable:
    for _ in range(_LOCK_ATTEMPTS):
        _lock(connection, table, seconds)
        snapshot = msgspec.json.decode(_one(connection, catalog.snapshot_query()), type=Snapshot)
        rows = connection.run(catalog.table_query(table))
        if not rows:
            raise UnknownTable("read", table, "there is no such table", "Check its name, and the schema's")
        description = catalog.read_table(rows[0][0])
        refuse(table, description.kind)
        if description.foreign:
            names = ", ".join(description.foreign)
            raise NotIngestible(
                "read", table, f"its partition {names} is a foreign table", "Detach it or exclude the table"
            )
        if all(leaf.locked for leaf in description.leaves):
            return OpenTable(connection, description, snapshot)
        connection.run("ROLLBACK")  # A partition was attached between the lock and the snapshot.
    raise DatabaseBusy("read", table, "partitions were attached again and again while it was opened")


def _lock(connection: Connection, table: TableName, seconds: float) -> None:
    """Begin, and lock before the snapshot is taken: a rewrite in between would show an empty table.

    Source: PostgreSQL documentation, "Caveats" of the chapter on concurrency control. A materialized view can't be
    locked; its refresh writes new row versions, which the next window finds.
    """
    milliseconds = max(1, int(seconds * 1000))
    begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {milliseconds}"
    try:
        connection.run(f"{begin}; LOCK TABLE {table.sql} IN ACCESS SHARE MODE")
    except DatabaseError as error:
        connection.run("ROLLBACK")
        if not isinstance(error.args[0], dict) or error.args[0].get("C") != _WRONG_OBJECT_TYPE:
            raise
        connection.run(begin)


def _one(connection: Connection, statement: str) -> Any:
    return connection.run(statement)[0][0]


def _tls_context(tls: str) -> ssl.SSLContext | bool:
    if tls == "disable":
        return False
    context = ssl.create_default_context()
    if tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _keep_alive(sock: socket.socket) -> None:
    """Have a peer that is gone noticed within a minute, though a statement may be silent for longer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class _Lines:
    """Gathers the rows that the driver hands over one by one, and takes the marks of the COPY format out."""

    _SIZE = 2**18

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rows: list[bytes] = []
        self._held = 0

    def write(self, row: bytes) -> None:
        self._rows.append(row)
        self._held += len(row)
        if self._held >= self._SIZE:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._sink.write(b"".join(self._rows).translate(None, COPY_MARKS))
            self._rows.clear()
            self._held = 0


class _Stopped(Exception):
    """Nobody takes lines any more."""


class _Blocks:
    """Lines on their way from the thread that reads them to the one that takes them."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=8)
        self._stopped = threading.Event()

    def fill(self, opened: OpenTable, leaf: Leaf, window: Window) -> None:
        end: BaseException | None = None
        try:
            opened.copy(leaf, window, self)
        except BaseException as error:  # noqa: BLE001 - it is raised where the lines are taken
            end = error
        with suppress(_Stopped):
            self._put(end)

    def write(self, data: bytes) -> None:
        self._put(data)

    def stop(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[bytes]:
        while (block := self._queue.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return
        raise _Stopped
