"""A transaction that stays open: the others' rows come at once, its own when it ends, and each of them once."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import pg8000.native
import pytest
from msgspec.structs import replace

from tests.faults import COMMIT, PART, PUBLISH, KilledError, Process
from tests.servers import LAZY, crash, database_of
from tests.tide import LIMITS, Lake, Tide, wait_for
from tidelog import planning
from tidelog.backfilling import Backfilling
from tidelog.errors import DatabaseBusy, DatabaseUnreachable
from tidelog.letters import Received
from tidelog.messages import Backfill
from tidelog.readings import undelta
from tidelog.runs import Run
from tidelog.tables import TableName
from tidelog_sandbox.postgres import Postgres

SMALL = replace(LIMITS, chunk_bytes=4 * 8192)
NAME = TableName("public", "t")


@contextmanager
def held(tide: Tide) -> Iterator[pg8000.native.Connection]:
    """A transaction with an id, open until the end of the block or what comes first."""
    with tide.database.session() as session:
        session.run("BEGIN; SELECT pg_current_xact_id()")
        yield session


def pass_on(tide: Tide, xid: int) -> None:
    """Wait until an open transaction is the oldest one: other tests' may be among those before it."""
    wait_for(lambda: tide.database.one(f"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= {xid}"))


def new(tide: Tide) -> list[int]:
    """Run the table, whatever that takes; return the ids of the rows that came of it."""
    before = Counter(tide.values("id"))
    tide.ingest()
    return sorted((Counter(tide.values("id")) - before).elements())


def backfill(tide: Tide) -> Run:
    """Plan that all rows are read again."""
    wanted = Backfill(version=1, type="backfill", table=str(NAME), all=True)
    message = Received("a message", "receipt", "", "backfill.fifo", wanted.group, 1, "2026-11-23T12:00:00+00:00")
    return Backfilling(tide.parts(limits=SMALL)).plan(wanted, message, seconds=60)


def whole(tide: Tide) -> None:
    """Hold the lake against the table."""
    assert tide.latest() == tide.table()


@pytest.fixture
def filled(tide: Tide) -> Tide:
    """A table of some pages, all of it in the lake."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, text text)",
        "INSERT INTO t SELECT n, 0, repeat('x', 200) FROM generate_series(1, 1000) n",
    )
    tide.database.pass_horizon()
    tide.ingest()
    return tide


@pytest.fixture
def cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ids ahead of the horizon are too many to remember."""
    monkeypatch.setattr(planning, "AHEAD_CAP", 2)


def test_whatever_is_read_while_a_transaction_is_open_for_all_of_it(filled: Tide) -> None:
    """Increments come within one tick; a backfill is planned, read and finished in between; what is newest stays so."""
    with held(filled) as long:
        long.run("INSERT INTO t VALUES (5000, 0)")
        long.run("UPDATE t SET v = 50 WHERE id = 7")
        for number in range(2000, 2004):
            filled.run(f"INSERT INTO t VALUES ({number}, 0)")
            assert new(filled) == [number]
        filled.run("UPDATE t SET v = 1 WHERE id IN (1, 999, 2000)")
        run = backfill(filled)
        messages = filled.outbox.take()
        assert run.chunks == len(messages) > 3
        filled.read_chunks(messages[: len(messages) // 2], limits=SMALL)
        assert new(filled) == [1, 999, 2000]
        filled.run("UPDATE t SET v = 2 WHERE id IN (1, 500, 2000)", "DELETE FROM t WHERE id = 3")
        filled.read_chunks(messages[len(messages) // 2 :], limits=SMALL)
        assert not filled.state().plans
        assert new(filled) == [1, 500, 2000]
        assert new(filled) == []
        long.run("COMMIT")
    assert new(filled) == [7, 5000]
    assert new(filled) == []
    latest = filled.latest()
    assert {key: latest[key] for key in filled.table()} == filled.table()


def test_a_first_snapshot_in_chunks_is_taken_while_a_transaction_is_open(tide: Tide) -> None:
    """What others commit between plan and chunks comes with the next tick, once."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, text text)",
        "INSERT INTO t SELECT n, 0, repeat('x', 200) FROM generate_series(1, 1000) n",
    )
    tide.database.pass_horizon()
    with held(tide) as long:
        long.run("INSERT INTO t VALUES (5000, 0)")
        tide.run("INSERT INTO t VALUES (2000, 0)")  # above the horizon: the next window's
        assert tide.ingest(limits=SMALL).outcome == "planned"
        messages = tide.outbox.take()
        tide.run("INSERT INTO t VALUES (2001, 0)", "UPDATE t SET v = 1 WHERE id = 1000")
        assert new(tide) == [1000, 2000, 2001]
        tide.read_chunks(messages, limits=SMALL)
        assert new(tide) == []
        assert tide.values("id") == [*range(1, 1001), 2000, 2001]
        long.run("COMMIT")
    assert new(tide) == [5000]
    whole(tide)


def test_sub_transactions_that_get_their_ids_late_come_with_their_transaction(filled: Tide) -> None:
    """Among them ids that lie above those that were emitted, and more than a snapshot lists."""
    with held(filled) as long:
        long.run("INSERT INTO t VALUES (5000)")
        for number in range(100):
            filled.run(f"INSERT INTO t VALUES ({2000 + number})")
            long.run(f"SAVEPOINT s; INSERT INTO t VALUES ({5001 + number})")
            if number % 25 == 0:
                assert new(filled)[-1] == 2000 + number
            if number % 10 == 0:
                long.run("ROLLBACK TO s")
        filled.run("UPDATE t SET v = 1 WHERE id = 2000")
        assert new(filled) == [2000, *range(2076, 2100)]
        long.run("COMMIT")
    assert new(filled) == [5000, *(5001 + number for number in range(100) if number % 10)]
    assert new(filled) == []
    whole(filled)


def test_thousands_of_ids_are_ahead(filled: Tide) -> None:
    """One run takes them, the event holds them as distances, and the next runs leave them out in no time."""
    with held(filled) as long:
        many = "BEGIN FOR n IN 1..5000 LOOP INSERT INTO t VALUES (10000 + n); COMMIT; END LOOP; END"
        filled.run("SET synchronous_commit = off", f"DO $${many}$$")
        assert filled.ingest().rows == 5000
        ahead = filled.state().ahead
        ids = set(filled.database.column("SELECT xmin::text::bigint FROM t WHERE id > 10000"))
        assert ids == {xid % 2**32 for xid in undelta(ahead)}
        assert len(msgspec.json.encode(ahead)) < 3 * len(ids)
        filled.run("UPDATE t SET v = 1 WHERE id = 10001", "INSERT INTO t VALUES (20000)")
        started = time.monotonic()
        assert new(filled) == [10001, 20000]
        assert time.monotonic() - started < 5
        assert len(undelta(filled.state().ahead)) == 5002
        long.run("COMMIT")
    filled.database.pass_horizon()
    filled.run("INSERT INTO t VALUES (20001)")
    filled.database.pass_horizon()
    assert new(filled) == [20001]
    assert filled.state().ahead == ()
    whole(filled)


def test_rows_that_are_loaded_frozen_come_once(filled: Tide) -> None:
    """They are visible to every snapshot; the lock keeps tidelog from looking before they are committed."""
    impatient = filled.database.source(lock_seconds=0.2)
    with held(filled) as long, filled.database.session() as loader:
        filled.run("INSERT INTO t VALUES (2000)")
        assert new(filled) == [2000]
        loader.run("BEGIN; TRUNCATE t")
        lines = io.BytesIO(b"".join(b"%d\t0\t\\N\n" % number for number in (1, 2000, 3000)))
        loader.run("COPY t FROM STDIN WITH (FREEZE)", stream=lines)
        with pytest.raises(DatabaseBusy):
            filled.ingest(source=impatient)
        loader.run("COMMIT")
        assert new(filled) == [1, 2000, 3000]
        filled.run("VACUUM FREEZE t", "UPDATE t SET v = 1 WHERE id = 1")
        assert new(filled) == [1]
        long.run("COMMIT")
    assert new(filled) == []
    latest = filled.latest()
    assert {key: latest[key] for key in filled.table()} == filled.table()


@pytest.mark.usefixtures("cap")
def test_rows_that_wait_for_the_horizon_are_made_again_with_what_was_read(filled: Tide) -> None:
    """A segment that was read below the horizon is, when it is lost, read again below that horizon."""
    with held(filled) as first, filled.database.session() as second:
        first.run("INSERT INTO t VALUES (5000)")
        filled.run("INSERT INTO t VALUES (2000)")
        assert new(filled) == [2000]
        [[later]] = second.run("BEGIN; SELECT pg_current_xact_id()::text::bigint")
        filled.run(*(f"INSERT INTO t VALUES ({number})" for number in range(2001, 2004)))
        assert new(filled) == []  # three more are too many
        first.run("COMMIT")
        pass_on(filled, later)
        killed = Process()
        killed.at("before", PUBLISH, killed.kill)
        with pytest.raises(KilledError):
            filled.ingest(s3=killed.client(filled.lake.s3))
        event = filled.events()[-1]
        assert event.reading is not None
        assert event.reading.below
        assert filled.lake.expire_uploads() == 1
        filled.run("INSERT INTO t VALUES (2004)")
        assert new(filled) == [5000]  # made again
        assert filled.kinds()[-1] == "remade"
        second.run("COMMIT")
    filled.database.pass_horizon()
    assert new(filled) == [2001, 2002, 2003, 2004]
    whole(filled)


@pytest.mark.usefixtures("cap")
def test_what_waits_for_the_horizon_is_not_left_behind_by_the_bound_in_time(tide: Tide) -> None:
    """What the one that was waited for has written last is dated later than all that others wrote meanwhile."""
    bounded = replace(LIMITS, time_bound_bytes=1)
    tide.run("CREATE TABLE t (id int, updated_at timestamptz NOT NULL)", "CREATE INDEX ON t (updated_at)")
    tide.run("INSERT INTO t VALUES (1, '2024-01-01 00:00Z')")
    tide.ingest(limits=bounded)
    with held(tide) as first, tide.database.session() as second:
        [[later]] = second.run("BEGIN; SELECT pg_current_xact_id()::text::bigint")
        tide.run(*(f"INSERT INTO t VALUES ({number}, '2024-01-01 01:00Z')" for number in range(2, 5)))
        tide.ingest(limits=bounded)
        assert tide.values("id") == [1]
        first.run("INSERT INTO t VALUES (5, '2024-01-01 04:00Z'); COMMIT")
        pass_on(tide, later)
        tide.ingest(limits=bounded)
        assert tide.values("id") == [1, 5]
        second.run("COMMIT")
    tide.database.pass_horizon()
    tide.ingest(limits=bounded)
    assert tide.values("id") == [1, 2, 3, 4, 5]
    assert tide.state().bound == "2024-01-01T03:45:00+00:00"


@pytest.mark.usefixtures("cap")
def test_what_waits_for_the_horizon_is_read_in_chunks_where_it_is_much(filled: Tide) -> None:
    """The chunks leave out what was emitted before there was too much, and what still waits."""
    with held(filled) as first, filled.database.session() as second:
        filled.run("UPDATE t SET v = 1 WHERE id <= 10")
        assert new(filled) == list(range(1, 11))
        for number in range(4):
            filled.run(f"UPDATE t SET v = 2 WHERE id % 4 = {number} AND id > 10")
        [[later]] = second.run("BEGIN; SELECT pg_current_xact_id()::text::bigint")
        filled.run("UPDATE t SET v = 3 WHERE id = 1000", "INSERT INTO t VALUES (2000)", "INSERT INTO t VALUES (2001)")
        assert new(filled) == []
        first.run("COMMIT")
        pass_on(filled, later)
        assert filled.ingest(limits=SMALL).outcome == "planned"
        filled.read_chunks(limits=SMALL)
        assert filled.values("v") == sorted([0] * 1000 + [1] * 10 + [2] * 989)
        second.run("COMMIT")
    filled.database.pass_horizon()
    assert new(filled) == [1000, 2000, 2001]
    whole(filled)


@pytest.mark.parametrize("moment", ["read", "committed"])
def test_ids_ahead_that_a_crash_takes_back_were_not_emitted(lake: Lake, moment: str) -> None:
    """Committed without a flush, read as ahead of an open transaction; a crash gives the ids of such to other rows."""
    with Postgres(settings=LAZY) as postgres:
        tide = Tide(database_of(postgres), lake)
        tide.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (0)")
        tide.ingest()
        tide.run("CHECKPOINT")
        process = Process()
        process.at("before", PART if moment == "read" else COMMIT, lambda: crash(postgres, tide))
        with suppress(pg8000.native.InterfaceError), held(tide):
            tide.run("SET synchronous_commit = off", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
            with suppress(DatabaseUnreachable):
                tide.ingest(s3=process.client(tide.lake.s3))
        found = tide.database.column("SELECT id FROM t ORDER BY id")
        assert found == ([0, 1, 2] if moment == "committed" else [0])
        assert tide.values("id") == found
        assert bool(tide.state().ahead) == (moment == "committed")
        for number in range(10, 20):
            tide.run(f"INSERT INTO t VALUES ({number})")
        assert new(tide) == list(range(10, 20))
        tide.check()
        tide.database.close()


def test_ids_ahead_of_many_partitions_are_written_down_once(tide: Tide) -> None:
    """Not for each partition: a thousand of them and a transaction that stays open would fill a worker's memory."""
    tide.run(
        "CREATE TABLE t (id int, part int) PARTITION BY LIST (part)",
        "DO $$ BEGIN FOR n IN 0..49 LOOP "
        "EXECUTE format('CREATE TABLE t%s PARTITION OF t FOR VALUES IN (%s)', n, n); END LOOP; END $$",
        "INSERT INTO t VALUES (0, 0)",
    )
    tide.database.pass_horizon()
    tide.ingest()
    with tide.database.session() as session:
        tide.database.hold_horizon(session)
        tide.run(
            "DO $$ BEGIN FOR n IN 1..2000 LOOP "
            "BEGIN INSERT INTO t VALUES (n, n % 50); EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; END $$"
        )
        assert tide.ingest().rows == 2000
        tide.run("INSERT INTO t VALUES (2001, 1)")
        assert tide.ingest().rows == 1
        ids = len(undelta(tide.state().ahead))
        assert ids > 2000
        assert all(len(tide.lake.body(key)) < 20 * ids + 10_000 for key in tide.lake.keys("ledger/"))
    tide.run("ALTER TABLE t DETACH PARTITION t7")
    tide.run("INSERT INTO t VALUES (2002, 2)")
    assert tide.ingest().rows == 1
    tide.run("ALTER TABLE t ATTACH PARTITION t7 FOR VALUES IN (7)")
    tide.ingest()
    assert tide.values("id") == list(range(2003))
    assert tide.verify().is_right
