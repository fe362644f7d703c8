"""The horizon is relied on only once the server's log is on disk up to where it was when the horizon was read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.tide import Database, Server
from tidelog.tables import TableName
from tidelog_sandbox.postgres import Postgres

_REST_SECONDS = 15
"""How long a server at rest leaves the last page of its log unwritten (LOG_SNAPSHOT_INTERVAL_MS in its source)."""


@pytest.fixture
def at_rest() -> Iterator[Database]:
    """A database of a server of its own, on which nothing else goes on."""
    with Postgres() as postgres:
        database = Database(Server(postgres.port, postgres.password), "postgres")
        database.run("CREATE TABLE t (id int)")
        yield database
        database.close()


def test_a_server_at_rest_is_made_to_write_its_log(at_rest: Database) -> None:
    """What a transaction still open has logged is not flushed for 15 s; tidelog does not wait for that."""
    behind = "SELECT pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()"
    with at_rest.session() as writer:
        writer.run("BEGIN; INSERT INTO t VALUES (1)")
        time.sleep(1)  # five rounds of the log writer
        assert at_rest.one(behind)
        source = at_rest.source()
        with source.open(TableName("public", "t"), seconds=60) as opened:
            snapshot = opened.snapshot
        started = time.monotonic()
        source.wait_until_durable(snapshot)
        assert time.monotonic() - started < _REST_SECONDS / 3
    assert at_rest.one(f"SELECT pg_current_wal_flush_lsn() >= '{snapshot.wal_position}'")
