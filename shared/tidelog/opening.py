"""A table is opened: locked against rewrites, then looked at in a snapshot that shows all that earlier ones have."""

from __future__ import annotations

import time

import msgspec
from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

from tidelog import catalog
from tidelog.continuity import check_caught_up
from tidelog.errors import DatabaseBusy
from tidelog.failures import sqlstate
from tidelog.readings import undelta
from tidelog.state import State
from tidelog.tables import Table, TableName
from tidelog.windows import Snapshot

_ATTEMPTS = 3
_WRONG_OBJECT_TYPE, _UNDEFINED_TABLE = "42809", "42P01"


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
        description = catalog.read_table(table, connection.run(catalog.table_query(table)))
        if all(leaf.locked for leaf in description.leaves):
            return description, snapshot
        connection.run("ROLLBACK")  # A partition was attached between the lock and the snapshot.
    raise DatabaseBusy("read", table, "partitions were attached again and again while it was opened")


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
    locked; its refresh writes new row versions, which the next window finds.
    """
    limit = max(1, int((deadline - time.monotonic()) * 1000))
    begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {limit}"
    try:
        connection.run(f"{begin}; LOCK TABLE {table.sql} IN ACCESS SHARE MODE")
    except DatabaseError as error:
        connection.run("ROLLBACK")
        if sqlstate(error) != _WRONG_OBJECT_TYPE:
            raise
        connection.run(begin)
