"""A database that moves to another cluster: dumped and restored, or upgraded in place."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import database_of
from tests.tide import Database, Lake, Tide
from tidelog_sandbox.postgres import Postgres

SETTINGS = {"fsync": "off", "wal_writer_delay": "10ms", "autovacuum": "off"}


def run(postgres: Postgres, program: str, *arguments: object, cwd: str = "/") -> None:
    """Run one of PostgreSQL's programs as the server's user."""
    account: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    subprocess.run(
        [postgres.binaries / program, *map(str, arguments)],
        check=True,
        capture_output=True,
        cwd=cwd,
        env={"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": postgres.password},
        **account,
    )


@pytest.fixture(scope="module")
def old() -> Iterator[Postgres]:
    """A server whose database is going to move."""
    with Postgres(settings=SETTINGS) as postgres:
        yield postgres


def filled(postgres: Postgres, lake: Lake) -> Tide:
    """A table of the server in the lake, with ids ahead of an open transaction."""
    tide = Tide(database_of(postgres), lake)
    tide.run("DROP TABLE IF EXISTS t", "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 0)")
    tide.ingest()
    with tide.database.session() as long:
        long.run("BEGIN; SELECT pg_current_xact_id()")
        tide.run("INSERT INTO t VALUES (2, 0)")
        assert tide.ingest().rows == 1
    tide.run("INSERT INTO t VALUES (3, 0)", "UPDATE t SET v = 1 WHERE id = 1")  # not read before it moves
    return tide


def goes_on(database: Database, lake: Lake) -> None:
    """Read the table where it is now: whole, on a timeline that says why, then what is new."""
    tide = Tide(database, lake)
    assert tide.ingest().outcome == "snapshotted"
    assert tide.kinds() == ["snapshotted", "ingested", "timeline_started", "snapshotted"]
    assert "another cluster answered" in tide.events()[2].what.reason  # type: ignore[union-attr] # it is a TimelineStarted
    assert tide.values("id") == [1, 1, 2, 2, 3]
    tide.run("UPDATE t SET v = 2 WHERE id = 2", "INSERT INTO t VALUES (4, 0)")
    assert tide.ingest().rows == 2
    assert tide.latest() == tide.table()
    tide.check()


def test_a_database_restored_from_a_dump_is_read_whole(old: Postgres, database: Database, lake: Lake) -> None:
    """The ids of its rows are those of the transaction that restored them."""
    tide = filled(old, lake)
    with tempfile.TemporaryDirectory(prefix="tidelog-dump-") as folder:
        Path(folder).chmod(0o777)
        run(old, "pg_dump", "-Fc", "-f", f"{folder}/dump", "-d", old.url())
        tide.database.close()
        there = database.server
        to = f"postgresql://postgres:{there.password}@127.0.0.1:{there.port}/{database.name}"
        run(old, "pg_restore", "--exit-on-error", "-d", to, f"{folder}/dump")
    goes_on(database, lake)


def test_an_upgraded_cluster_is_read_whole(old: Postgres, lake: Lake) -> None:
    """Its transaction ids, its oids and its files are the old one's; its log and its system identifier are not."""
    tide = filled(old, lake)
    tide.database.close()
    with Postgres(settings=SETTINGS, password=old.password) as new, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        old.stop()
        new.stop()
        where = ["-b", old.binaries, "-B", new.binaries, "-d", old.directory, "-D", new.directory]
        try:
            run(old, "pg_upgrade", *where, "-U", "postgres", "-s", folder, "--no-sync", cwd=folder)
            new.start()
            database = database_of(new)
            goes_on(database, lake)
            database.close()
        finally:
            old.start()
