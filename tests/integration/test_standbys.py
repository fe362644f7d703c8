"""Standbys: read alone, in turns with their primary, and after one has taken over."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from tests.conftest import Aws, make_lake
from tests.faults import PUBLISH, KilledError, Process
from tests.integration.test_backfills import asked, backfill
from tests.servers import catch_up, database_of, pause, sever, standby_of
from tests.ticking import Ticking
from tests.tide import LIMITS, SECONDS, Database, Lake, Tide, wait_for
from tidelog.errors import ReplicaBehind
from tidelog.events import TimelineStarted
from tidelog.ingesting import Ingestion
from tidelog.readings import undelta
from tidelog.tables import TableName
from tidelog_sandbox.postgres import Postgres

# Whoever commits with synchronous_commit = on waits for a standby that is not there.
SYNCHRONOUS = {"synchronous_standby_names": "nobody", "synchronous_commit": "local"}
SETTINGS = {"fsync": "off", "wal_writer_delay": "10ms", "autovacuum": "off", "max_prepared_transactions": "20"}
SETTINGS |= SYNCHRONOUS
SMALL = replace(LIMITS, chunk_bytes=4 * 8192)
LARGE = replace(LIMITS, chunk_bytes=4096)
"""A table of one page is too large to be read whole at once."""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Postgres, Postgres]]:
    """A primary and its standby."""
    with Postgres(settings=SETTINGS) as primary, standby_of(primary, SETTINGS) as standby:
        yield primary, standby


class Turns(Tide):
    """A worker that reads a database from the primary, or from its standby."""

    def __init__(self, primary: Database, standby: Database, lake: Lake) -> None:
        super().__init__(primary, lake)
        self.standby = standby
        self.replica = standby.source()

    def catch_up(self) -> None:
        """Let the standby replay all there is."""
        catch_up(self.database, self.standby)


@pytest.fixture
def turns(servers: tuple[Postgres, Postgres], lake: Lake) -> Iterator[Turns]:
    """A database of the two servers, and an empty lake; in the end the lake holds what the table does."""
    primary, standby = servers
    name = f"d{uuid.uuid4().hex}"
    primary.create_database(name)
    first, own = database_of(primary, name), database_of(standby)
    catch_up(first, own)
    own.close()
    second = database_of(standby, name)
    turns = Turns(first, second, lake)
    yield turns
    turns.catch_up()
    for table in turns.tables():
        turns.check(table)
        latest = turns.latest(table)
        assert {key: latest.get(key) for key in turns.table(table)} == turns.table(table)
    assert lake.uploads() == []
    second.close()
    first.close()


def test_a_standby_that_lacks_a_version_that_was_shown_is_waited_for(turns: Turns) -> None:
    """It would emit the one before, behind the newer one, which nobody emits again; its horizon is the same."""
    turns.run("CREATE TABLE t (id int, v int)")
    with turns.database.session() as long:
        long.run("BEGIN; SELECT pg_current_xact_id()")
        turns.run("INSERT INTO t VALUES (0, 0)")
        turns.ingest()
        turns.run("INSERT INTO t VALUES (1, 0)")
        turns.catch_up()
        pause(turns.standby)
        turns.run("UPDATE t SET v = 1 WHERE id = 1")
        assert turns.ingest().rows == 1
        with pytest.raises(ReplicaBehind, match="the standby has replayed the log up to"):
            turns.ingest(source=turns.replica)
        turns.catch_up()
        assert turns.ingest(source=turns.replica).outcome == "unchanged"
        assert [(row["id"], row["v"]) for row in turns.rows()] == [(0, 0), (1, 1)]
        long.run("COMMIT")


def test_a_chunk_is_not_read_from_a_standby_that_lacks_what_its_plan_saw(turns: Turns) -> None:
    """A partition that it does not know yet is not one that is gone."""
    turns.run(
        "CREATE TABLE t (id int, part int, text text) PARTITION BY LIST (part)",
        "CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)",
        "CREATE TABLE t1 (LIKE t)",
        "INSERT INTO t VALUES (1, 0), (2, 0)",
    )
    turns.ingest()
    with turns.database.session() as holder:
        holder.run("BEGIN; SELECT pg_current_xact_id()")
        turns.catch_up()
        pause(turns.standby)
        turns.run("INSERT INTO t1 SELECT n, 1, repeat('x', 200) FROM generate_series(3, 1000) n")
        turns.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)")
        assert turns.ingest(limits=SMALL).outcome == "planned"
        before, messages = turns.kinds(), turns.outbox.take()
        with pytest.raises(ReplicaBehind):
            turns.read_chunks(messages, limits=SMALL, source=turns.replica)
        assert turns.kinds() == before
        turns.catch_up()
        turns.read_chunks(messages, limits=SMALL, source=turns.replica)
        turns.ingest()
    assert turns.values("id") == list(range(1, 1001))


@pytest.mark.parametrize("before", ["CREATE TABLE t (id int, old int)", "CREATE TABLE other ()"])
def test_a_table_that_a_standby_does_not_know_yet_is_waited_for(turns: Turns, before: str) -> None:
    """Neither is it missing, nor is the one in its place a new one."""
    turns.run(before)
    with turns.database.session() as long:
        long.run("BEGIN; SELECT pg_current_xact_id()")
        turns.catch_up()
        pause(turns.standby)
        turns.run("DROP TABLE IF EXISTS t", "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
        turns.ingest()
        with pytest.raises(ReplicaBehind):
            turns.ingest(source=turns.replica)
        turns.catch_up()
        assert turns.ingest(source=turns.replica).outcome == "unchanged"
    assert turns.kinds() == ["snapshotted"]


@pytest.mark.parametrize("held", [False, True])
def test_a_primary_whose_commits_wait_for_a_standby_is_waited_for(turns: Turns, held: bool) -> None:
    """Another standby shows them already: the primary would emit what was there before behind them."""
    turns.run("CREATE TABLE t (id int, v int)", "INSERT INTO t VALUES (0, 0)")
    turns.ingest()
    with turns.database.session() as long, turns.database.session() as writer:
        if held:
            long.run("BEGIN; SELECT pg_current_xact_id()")
        turns.run("INSERT INTO t VALUES (1, 0)")
        [[pid]] = writer.run("SELECT pg_backend_pid()")
        writer.run("SET synchronous_commit = on")
        update = "BEGIN; SAVEPOINT a; UPDATE t SET v = 1 WHERE id = 1; COMMIT"
        committing = threading.Thread(target=writer.run, args=(update,))
        committing.start()
        try:
            wait_for(lambda: turns.standby.one("SELECT count(*) FROM t WHERE v = 1"))
            assert turns.ingest(source=turns.replica).rows == 1
            assert turns.database.one("SELECT v FROM t WHERE id = 1") == 0
            with pytest.raises(ReplicaBehind, match="have not ended on the primary"):
                turns.ingest()
        finally:
            turns.run(f"SELECT pg_cancel_backend({pid})")  # it waits no longer
            committing.join()
        assert turns.ingest().outcome == "unchanged"
    assert [(row["id"], row["v"]) for row in turns.rows()] == [(0, 0), (1, 1)]
    assert turns.kinds() == ["snapshotted", "ingested"]


def test_a_segment_is_not_made_again_from_a_standby_that_lacks_its_rows(turns: Turns) -> None:
    """They would be lost: no other run reads that window."""
    turns.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    turns.ingest()
    turns.catch_up()
    pause(turns.standby)
    turns.run("INSERT INTO t VALUES (2)")
    process = Process()
    process.at("before", PUBLISH, process.kill)
    with pytest.raises(KilledError):
        turns.ingest(s3=process.client(turns.lake.s3))
    assert turns.lake.expire_uploads() == 1
    with pytest.raises(ReplicaBehind):
        turns.ingest(source=turns.replica)
    turns.catch_up()
    turns.ingest(source=turns.replica)
    assert turns.kinds() == ["snapshotted", "ingested", "remade"]
    assert turns.values("id") == [1, 2]


def test_a_standby_alone_shows_every_row_once(turns: Turns) -> None:
    """Whatever commits late: prepared, with savepoints, with more sub-transactions than a snapshot holds."""
    turns.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (0)")

    def new() -> list[int]:
        turns.catch_up()
        known = turns.values("id")
        turns.ingest(source=turns.replica)
        found = turns.values("id")
        for number in known:
            found.remove(number)
        return found

    name = turns.database.name
    assert new() == [0]
    with turns.database.session() as late, turns.database.session() as prepared, turns.database.session() as many:
        late.run("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2)")
        prepared.run("BEGIN; SAVEPOINT a; INSERT INTO t VALUES (3); RELEASE a; INSERT INTO t VALUES (4)")
        many.run("BEGIN")
        for number in range(100, 200):
            many.run(f"SAVEPOINT s{number}")
            many.run(f"INSERT INTO t VALUES ({number})")
        turns.run("INSERT INTO t VALUES (5)")
        assert new() == [5]
        prepared.run(f"PREPARE TRANSACTION '{name}'")
        late.run("ROLLBACK TO a; SAVEPOINT b; INSERT INTO t VALUES (6)")
        turns.run("INSERT INTO t VALUES (7)")
        assert new() == [7]
        many.run("ROLLBACK TO s150")
        many.run("COMMIT")
        turns.run("INSERT INTO t VALUES (8)")
        assert new() == [8, *range(100, 150)]
        late.run("COMMIT")
        assert new() == [1, 6]
        turns.run(f"COMMIT PREPARED '{name}'")
        assert new() == [3, 4]
    assert new() == []
    assert "timeline_started" not in turns.kinds()
    assert turns.state().standby


def test_a_promoted_standby_that_lacked_transactions_loses_no_row_of_its_own(aws: Aws) -> None:
    """It gives out the ids of what it lacks again; a standby of it that was rebuilt meanwhile tells of that too."""
    with Postgres(settings=SETTINGS) as primary, standby_of(primary, SETTINGS) as standby, ExitStack() as stack:
        first, second = database_of(primary), database_of(standby)
        lakes = [make_lake(aws.s3, aws.ssm) for _ in range(2)]
        befores = [Tide(first, lake) for lake in lakes]
        first.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (0)")
        for tide in befores:
            tide.now = lambda: datetime.now(UTC) - timedelta(hours=2)
            tide.ingest()
            tide.now = lambda: datetime.now(UTC)
        with first.session() as long:
            long.run("BEGIN; SELECT pg_current_xact_id()")
            first.run("INSERT INTO t VALUES (1)")
            catch_up(first, second)
            sever(second)
            for number in range(10, 20):
                first.run(f"INSERT INTO t VALUES ({number})")
            assert [tide.ingest().rows for tide in befores] == [11, 11]
        emitted = set(undelta(befores[0].state().ahead))
        first.close()
        primary.stop("immediate")
        second.run("SELECT pg_promote()")
        stack.callback(second.close)
        second.run(*(f"INSERT INTO t VALUES ({number})" for number in range(20, 25)))
        assert emitted & set(second.column("SELECT xmin::text::bigint FROM t WHERE id >= 20"))
        third = database_of(stack.enter_context(standby_of(standby, SETTINGS)))
        stack.callback(third.close)
        afters = [Tide(second, lake) for lake in lakes]
        sources = [second.source(), third.source()]
        for numbers in [range(25, 27), range(27, 30)]:
            second.run(*(f"INSERT INTO t VALUES ({number})" for number in numbers))
            catch_up(second, third)
            for tide, source in zip(afters, sources, strict=True):
                tide.ingest(source=source, limits=LARGE)
                # Twice, and announced, what came since the one event that is older than an hour.
                assert tide.kinds()[2:4] == ["timeline_started", "ingested"]
                assert tide.values("id") == [0, 1, 1, *range(10, numbers.stop)]
                tide.check()


def test_what_a_failover_has_lost_is_read_though_nobody_came_by_for_longer_than_the_margin(aws: Aws) -> None:
    """The last run was right before it: its ids are given out again. Then a secret was wrong for two hours, say."""
    with Postgres(settings=SETTINGS) as primary, standby_of(primary, SETTINGS) as standby, ExitStack() as stack:
        first, second = database_of(primary), database_of(standby)
        tide = Tide(first, make_lake(aws.s3, aws.ssm))
        first.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (0)")
        tide.now = lambda: datetime.now(UTC) - timedelta(hours=6)
        tide.ingest()
        catch_up(first, second)
        sever(second)
        first.run(*(f"INSERT INTO t VALUES ({number})" for number in range(10, 20)))
        tide.now = lambda: datetime.now(UTC) - timedelta(hours=2)
        assert tide.ingest().rows == 10
        first.close()
        primary.stop("immediate")
        second.run("SELECT pg_promote()")
        stack.callback(second.close)
        second.run(*(f"INSERT INTO t VALUES ({number})" for number in range(20, 60)))
        tide = Tide(second, tide.lake)
        tide.ingest()
        assert tide.table().keys() <= tide.latest().keys()


def test_a_version_that_a_failover_has_lost_does_not_stay_the_latest(aws: Aws) -> None:
    """The row has its older one again, which no window reads: a small table is read whole, of a large one is told.

    A table of which nothing was written lately just goes on.
    """
    told: list[tuple[str, object]] = []
    with Postgres(settings=SETTINGS) as primary, standby_of(primary, SETTINGS) as standby, ExitStack() as stack:
        first, second = database_of(primary), database_of(standby)
        tide = Tide(first, make_lake(aws.s3, aws.ssm))
        tide.now = lambda: datetime.now(UTC) - timedelta(hours=2)
        for table in ("small", "large", "quiet"):
            rows = 1000 if table == "large" else 3
            first.run(f"CREATE TABLE {table} (id int PRIMARY KEY, v int, text text)")
            first.run(f"INSERT INTO {table} SELECT n, 0, repeat('x', 200) FROM generate_series(1, {rows}) n")
            tide.ingest(f"public.{table}")
        tide.now = lambda: datetime.now(UTC)
        catch_up(first, second)
        sever(second)
        for table in ("small", "large"):
            first.run(f"UPDATE {table} SET v = 1 WHERE id = 1")
            assert tide.ingest(f"public.{table}").rows == 1
        first.close()
        primary.stop("immediate")
        second.run("SELECT pg_promote()")
        stack.callback(second.close)
        tide = Tide(second, tide.lake)

        def ingest(table: str) -> TimelineStarted:
            second.run(f"INSERT INTO {table} VALUES (2000, 0)")
            ingestion = Ingestion(tide.parts(limits=SMALL), lambda name, what: told.append((str(name), what)))
            ingestion.ingest(TableName.parse(table), seconds=SECONDS, calm=tide.now())  # The last tick found it idle.
            [what] = [event.what for event in tide.events(table) if isinstance(event.what, TimelineStarted)]
            return what

        started = ingest("public.quiet")
        assert (started.outdated, started.remedy, tide.kinds("public.quiet")[-1]) == ("", "", "ingested")
        assert started.resume
        started = ingest("public.small")
        assert started.outdated == "lines written since event 1, 1 in number, may be of transactions that are lost"
        assert (started.resume, started.remedy, tide.kinds("public.small")[-1]) == (None, "", "snapshotted")
        assert told == []
        started = ingest("public.large")
        assert started.resume
        assert told == [("public.large", started)]
        assert started.remedy == "tidelog backfill public.large --all"
        assert tide.verify("public.large").causes == {"": 1}
        backfill(tide, asked("public.large", all=True), limits=SMALL)
        tide.read_chunks(limits=SMALL)
        for table in tide.tables():
            assert tide.latest(table) == tide.table(table)
            assert tide.verify(table).is_right
            tide.check(table)


def test_what_a_primary_has_counted_a_standby_may_not_have(turns: Turns) -> None:
    """A run that a standby was asked for notes nothing; a tick that asks one sends for every table."""
    turns.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    ticking = Ticking(turns)
    assert ticking.change("INSERT INTO t VALUES (2)") == {"t": "snapshotted"}
    turns.catch_up()
    pause(turns.standby)
    turns.run("INSERT INTO t VALUES (3)")
    ticking.count()
    assert [run.outcome for run in ticking.work(ticking.tick(), source=turns.replica)] == ["unchanged"]
    assert ticking.round() == {"t": "ingested"}
    assert ticking.round() == {}
    turns.catch_up()
    [message] = ticking.tick(source=turns.replica)
    assert message.tally == ""
    assert [run.outcome for run in ticking.work([message])] == ["unchanged"]
    assert ticking.round() == {}
