"""Servers that crash, stand by, fail over and turn round their transaction ids: real ones, for these tests alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from msgspec.structs import replace

from tests.faults import COMMIT, PART, PROJECT, PUBLISH, KilledError, Process
from tests.servers import LAZY, crash, database_of, standby_of
from tests.tide import LIMITS, SECONDS, Database, Lake, Tide, wait_for
from tidelog.errors import DatabaseUnreachable, NotIngestible, ReplicaBehind
from tidelog.hidden import Hidden
from tidelog.readings import undelta
from tidelog.source import Source
from tidelog.tables import TableName
from tidelog.windows import Snapshot, Window, widen
from tidelog_sandbox.postgres import Postgres

NAME = TableName("public", "t")


@pytest.fixture
def lazy(lake: Lake) -> Iterator[tuple[Postgres, Tide]]:
    """A server that loses what nobody flushed, and a table of it in the lake."""
    with Postgres(settings=LAZY) as postgres:
        tide = Tide(database_of(postgres), lake)
        tide.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
        tide.ingest()
        tide.run("CHECKPOINT")
        yield postgres, tide
        tide.database.close()


MOMENTS = {
    "while it is read": (PART, False),
    "before it is durable": (None, False),
    "when it is committed": (COMMIT, True),
    "when it was published": (PROJECT, True),
}


def test_a_chunk_that_left_out_a_row_for_a_version_that_a_crash_takes_back_is_read_again(
    lazy: tuple[Postgres, Tide],
) -> None:
    """It is not committed before the log of what it has seen is on disk."""
    postgres, tide = lazy
    tide.run("CREATE TABLE large (id int, v int, text text)")
    tide.run("INSERT INTO large SELECT n, 0, repeat('x', 900) FROM generate_series(1, 100) n", "CHECKPOINT")
    limits = replace(LIMITS, chunk_bytes=2 * 8192)
    assert tide.ingest("public.large", limits=limits).outcome == "planned"
    tide.run("CHECKPOINT")
    messages = tide.outbox.take()
    process = Process()
    process.at("before", COMMIT, lambda: crash(postgres, tide))
    with tide.database.session() as session:
        session.run("SET synchronous_commit = off")
        session.run("UPDATE large SET v = 1 WHERE id = 1")
        with suppress(DatabaseUnreachable):
            tide.read_chunks(messages[:1], limits=limits, s3=process.client(tide.lake.s3))
    tide.read_chunks(messages, limits=limits)
    tide.ingest("public.large")
    latest = tide.latest("public.large")
    assert latest == tide.table("public.large")


def test_a_segment_made_again_without_a_row_that_a_crash_brings_back_is_made_once_more(
    lazy: tuple[Postgres, Tide],
) -> None:
    """Its upload was gone, and what took the row's place when its window was read again is lost with the server."""
    postgres, tide = lazy
    tide.run("CREATE TABLE kept (id int, v int)", "INSERT INTO kept VALUES (1, 0), (2, 0)", "CHECKPOINT")
    killed, crashed = Process(), Process()
    killed.at("before", PUBLISH, killed.kill)
    with pytest.raises(KilledError):
        tide.ingest("public.kept", s3=killed.client(tide.lake.s3))
    assert tide.lake.expire_uploads() == 1
    tide.run("CHECKPOINT")
    crashed.at("before", COMMIT, lambda: crash(postgres, tide))
    with tide.database.session() as session:
        session.run("SET synchronous_commit = off")
        session.run("UPDATE kept SET v = 1 WHERE id = 1")
        with suppress(DatabaseUnreachable):
            tide.ingest("public.kept", s3=crashed.client(tide.lake.s3))
    tide.ingest("public.kept")
    assert tide.latest("public.kept") == tide.table("public.kept")
    tide.check("public.kept")


@pytest.mark.parametrize("moment", MOMENTS)
def test_ids_that_a_crashed_server_gives_out_again_lose_no_row(
    lazy: tuple[Postgres, Tide], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No horizon is committed that the server's log on disk does not know of; whenever in a run it crashes."""
    postgres, tide = lazy
    step, committed = MOMENTS[moment]
    process, wait = Process(), Source.wait_until_durable
    if step:
        process.at("before", step, lambda: crash(postgres, tide))
    else:

        def crash_and_wait(source: Source, snapshot: Snapshot) -> None:
            crash(postgres, tide)
            monkeypatch.undo()
            wait(source, snapshot)

        monkeypatch.setattr(Source, "wait_until_durable", crash_and_wait)
    tide.run("INSERT INTO t VALUES (2)", "SET synchronous_commit = off")
    # Used and given up without a flush: the server forgets that they were used.
    for _ in range(50):
        tide.run("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
    with nullcontext() if committed else pytest.raises(DatabaseUnreachable):
        tide.ingest(s3=process.client(tide.lake.s3), ssm=process.client(tide.lake.ssm))
    assert tide.lake.uploads() == []
    assert tide.values("id") == ([1, 2] if committed else [1])
    tide.run("INSERT INTO t VALUES (3)")
    tide.ingest()
    assert tide.values("id") == [1, 2, 3]
    tide.check()


def test_a_standby_is_read_when_it_is_not_behind_and_rewinds_when_it_is_promoted(lake: Lake) -> None:
    """One table, read from a primary and its standby in turn, and after the standby has taken over."""
    with Postgres(settings={"fsync": "off", "wal_writer_delay": "10ms"}) as primary, standby_of(primary) as second:
        first, other = database_of(primary), database_of(second)
        tide, source = Tide(first, lake), other.source()

        def caught_up() -> object:
            position = first.one("SELECT pg_current_wal_insert_lsn()::text")
            return other.one(f"SELECT pg_last_wal_replay_lsn() >= '{position}'")

        tide.now = lambda: datetime.now(UTC) - timedelta(hours=2)
        tide.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)", "CREATE UNLOGGED TABLE u (id int)")
        tide.ingest()
        tide.now = lambda: datetime.now(UTC)
        wait_for(caught_up)
        other.run("SELECT pg_wal_replay_pause()")
        wait_for(lambda: other.one("SELECT pg_get_wal_replay_pause_state()") == "paused")
        tide.run("INSERT INTO t VALUES (2)", "SELECT pg_current_xact_id()")
        assert tide.ingest().rows == 1
        with pytest.raises(ReplicaBehind, match="the standby is at transaction"):
            tide.ingest(source=source)
        other.run("SELECT pg_wal_replay_resume()")
        wait_for(caught_up)
        assert tide.ingest(source=source).outcome == "unchanged"
        with pytest.raises(NotIngestible, match=r"unlogged relations during recovery .*read it from the primary"):
            tide.ingest("public.u", source=source)
        tide.run("INSERT INTO t VALUES (3)")
        wait_for(caught_up)
        assert tide.ingest(source=source).rows == 1
        assert tide.kinds() == ["snapshotted", "ingested", "ingested"]
        assert tide.state().database == tide.events()[0].state.database
        first.close()
        primary.stop("immediate")
        other.run("SELECT pg_promote()", "INSERT INTO t VALUES (4)")
        # Back to the one event that is older than an hour.
        assert tide.ingest(source=source, limits=replace(LIMITS, chunk_bytes=4096)).rows == 3
        assert tide.kinds()[3:] == ["timeline_started", "ingested"]
        assert "WAL timeline 2 after WAL timeline 1" in tide.events()[3].what.reason  # type: ignore[union-attr] # it is a TimelineStarted
        assert tide.values("id") == [1, 2, 2, 3, 3, 4]
        tide.check()
        other.close()


EPOCH = 2**32
ALONE = {"fsync": "off", "autovacuum": "off", "wal_writer_delay": "10ms"}


def turn(postgres: Postgres, *ids: str) -> None:
    """Freeze all rows, stop the server, and set its transaction ids."""
    postgres.run("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
    for name in ("postgres", "template0", "template1"):
        postgres.run("VACUUM FREEZE", name)
    postgres.run("CHECKPOINT")
    postgres.stop()
    account: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
    command = [str(postgres.binaries / "pg_resetwal"), *ids, "-D", str(postgres.directory)]
    subprocess.run(command, check=True, capture_output=True, **account)


@pytest.fixture(scope="module")
def turning() -> Iterator[Database]:
    """A server whose next transaction id is 60 below 2**32, of the first epoch."""
    with Postgres(settings=ALONE) as postgres:
        turn(postgres, "-x", str(EPOCH - 60), "-u", str(EPOCH - 100), "-e", "0")
        # The commit log of the ids before: none of them is ever asked for.
        log = postgres.directory / "pg_xact" / "0FFF"
        log.write_bytes(bytes(2**18))
        shutil.chown(log, "nobody" if os.geteuid() == 0 else os.getuid())
        postgres.start()
        database = database_of(postgres)
        yield database
        database.close()


def test_rows_that_were_frozen_an_epoch_ago_do_not_stand_for_a_transaction_under_way(lake: Lake) -> None:
    """They have its id, and are there; it is not, nor is its sub-transaction, and what they write is not to be lost."""
    with Postgres(settings=ALONE) as postgres:
        database = database_of(postgres)
        database.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
        first = database.one("INSERT INTO t VALUES (0) RETURNING pg_current_xact_id()::text::bigint")
        for number in range(1, 300):
            database.run(f"INSERT INTO t VALUES ({number})")
        database.close()
        turn(postgres, "-x", str(first + 100), "-u", str(first), "-e", "1")
        postgres.start()
        database = database_of(postgres)
        tide = Tide(database, lake)
        assert tide.ingest().rows == 300
        with database.session() as long:
            long.run("BEGIN; UPDATE t SET v = 1 WHERE id = 5; SAVEPOINT a; UPDATE t SET v = 1 WHERE id = 6; RELEASE a")
            [[xid]] = long.run("SELECT pg_current_xact_id()::text::bigint")
            alike = f"SELECT count(*) FROM t WHERE xmin::text::bigint BETWEEN {xid % EPOCH} AND {xid % EPOCH + 1}"
            assert database.one(alike) == 2
            database.run("INSERT INTO t VALUES (1000)")
            tide.ingest()
            assert not {xid, xid + 1} & set(undelta(tide.state().ahead))
            assert 1000 in tide.latest()
            long.run("COMMIT")
        tide.ingest()
        assert tide.latest() == tide.table()
        tide.check()
        database.close()


def test_windows_hold_where_transaction_ids_turn_round(turning: Database, lake: Lake) -> None:
    """Runs before, across and behind the turn, one transaction open all the while: every version once, in order.

    Then each window that can be cut around the turn is evaluated by the server, and compared with plain arithmetic.
    """
    tide, small = Tide(turning, lake), replace(LIMITS, chunk_bytes=2 * 8192)
    tide.run("CREATE TABLE t (id int, xid bigint DEFAULT pg_current_xact_id()::text::bigint)")
    tide.run("CREATE TABLE large AS SELECT n AS id, 0 AS v, repeat('x', 900) AS text FROM generate_series(1, 200) n")
    with turning.session() as long:
        long.run("BEGIN; INSERT INTO t VALUES (1000); UPDATE large SET v = 9 WHERE id = 50")
        assert tide.ingest("public.large", limits=small).outcome == "planned"
        chunks = tide.outbox.take()
        for number in range(90):
            tide.run(f"INSERT INTO t VALUES ({number})")
            if number % 3 == 0:
                tide.run("BEGIN; INSERT INTO t VALUES (-1); SAVEPOINT a; INSERT INTO t VALUES (-2); ROLLBACK")
            if number % 10 == 0:
                tide.ingest()
                tide.run(f"UPDATE large SET v = v + 1 WHERE id % 10 = {number // 10} AND id <> 50")
                tide.ingest("public.large")
                tide.read_chunks([chunks.pop()], limits=small)
        ahead = undelta(tide.state().ahead)
        assert tide.state().horizon < ahead[0] < EPOCH < ahead[-1]
        long.run("COMMIT")
    assert chunks
    tide.read_chunks(chunks, limits=small)  # below a horizon of the epoch before
    assert not tide.state("public.large").plans
    tide.ingest("public.large")
    assert tide.latest("public.large") == tide.table("public.large")
    rows = [(row["id"], row["v"]) for row in tide.rows("public.large")]
    assert len(rows) == len(set(rows))
    process = Process()
    process.at("before", PUBLISH, process.kill)
    with pytest.raises(KilledError):
        tide.ingest(s3=process.client(lake.s3))
    lake.expire_uploads()  # so the increment across the turn is made again
    tide.ingest()
    assert "remade" in tide.kinds()
    assert tide.state().horizon > EPOCH
    assert tide.values("id") == [*range(90), 1000]
    assert tide.ingest().outcome == "unchanged"
    tide.check()

    xids = dict(turning.run("SELECT id, xid FROM t"))
    assert min(xids.values()) < EPOCH < max(xids.values())
    cuts = [0, min(xids.values()), EPOCH - 1, EPOCH, EPOCH + 1, EPOCH + 3, max(xids.values()), max(xids.values()) + 1]
    some = tuple(sorted(xids.values()))[::7]
    with tide.source.open(NAME, seconds=SECONDS) as opened, turning.session() as session:
        stored = session.run("SELECT id, xmin::text::bigint FROM t")
        assert {number: widen(xid, opened.snapshot.limit) for number, xid in stored} == xids
        for start in cuts:
            for end in [None, *cuts[1:]]:
                for ahead, also in [((), ()), (some, ()), ((), some), (some[:3], some[2:])]:
                    window = Window(start, ahead, None, end, also)
                    expected = {
                        number
                        for number, xid in xids.items()
                        if xid >= start and xid not in ahead and (end is None or xid < end or xid in also)
                    }
                    found = session.run(f"SELECT id FROM t r WHERE {window.condition(opened.snapshot, 'r')}")
                    assert {number for (number,) in found} == expected, window
        for first, second, end in combinations([cut for cut in cuts if cut], 3):  # what a bound has hidden
            hidden = Hidden((), (), (), ("2024-01-01",), (first, second - first, end - second), (1, 0))
            found = session.run(f"SELECT id FROM t r WHERE {hidden.condition('r', opened.snapshot.next, {})}")
            assert {number for (number,) in found} == {number for number, xid in xids.items() if first <= xid < second}
