"""Idle tables: no message where nothing has changed since a run that read all; whatever else happens, one more."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pg8000.exceptions import DatabaseError, InterfaceError

from tests.conftest import Aws, make_lake
from tests.faults import COMMIT, KilledError, Process, Step, refusal
from tests.servers import LAZY, crash, database_of
from tests.ticking import Ticking, received
from tests.tide import LIMITS, Tide, wait_for
from tidelog.errors import AccessDenied
from tidelog.idling import is_turn
from tidelog.memory import KEY, Memory, Remembered
from tidelog.messages import Ingest, decode, encode, sent_again
from tidelog.tables import Relation, TableName
from tidelog.tallies import Tallied
from tidelog_sandbox.postgres import Postgres

SMALL = replace(LIMITS, chunk_bytes=4 * 8192)
TABLES = (
    "CREATE TYPE mood AS ENUM ('well', 'ill')",
    "CREATE TABLE a (id int PRIMARY KEY, m mood)",
    "CREATE TABLE b (id int)",
    "CREATE TABLE p (id int, part int) PARTITION BY LIST (part)",
    "CREATE TABLE p0 PARTITION OF p FOR VALUES IN (0)",
    "CREATE TABLE p1 (LIKE p)",
    "CREATE MATERIALIZED VIEW v AS SELECT * FROM b",
)
ALL = {"a", "b", "p", "p1", "v"}


@pytest.fixture
def ticking(tide: Tide) -> Ticking:
    """A scheduler over some tables, all of which are read and idle."""
    tide.run(*TABLES)
    ticking = Ticking(tide)
    assert set(ticking.change()) == ALL
    assert ticking.round() == {}
    return ticking


def test_whatever_changes_a_table_brings_one_message(ticking: Ticking) -> None:
    """Rows of any kind, files, partitions, columns; what types mean is told to all. The next tick sends none."""
    for stirred, *statements in (
        ({"a"}, "INSERT INTO a VALUES (1, 'ill')"),
        ({"a"}, "UPDATE a SET m = 'well'"),
        ({"a"}, "DELETE FROM a"),
        ({"a"}, "INSERT INTO a VALUES (1, 'ill')", "TRUNCATE a"),
        ({"a"}, "ALTER TABLE a DROP CONSTRAINT a_pkey"),
        ({"a"}, "ALTER TABLE a ADD x text DEFAULT 'given'"),
        ({"a"}, "ALTER TABLE a RENAME x TO y"),
        ({"b"}, "BEGIN; INSERT INTO b VALUES (1); TRUNCATE b; INSERT INTO b VALUES (1); COMMIT"),
        ({"b"}, "BEGIN; INSERT INTO b VALUES (1); PREPARE TRANSACTION 'one'", "COMMIT PREPARED 'one'"),
        ({"b"}, "COPY b FROM PROGRAM 'echo 1'"),
        ({"b"}, "VACUUM FULL b"),
        ({"v"}, "REFRESH MATERIALIZED VIEW v"),
        ({"p"}, "INSERT INTO p VALUES (1, 0)"),
        ({"p1"}, "INSERT INTO p1 VALUES (1, 1)"),
        ({"p"}, "ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1)"),
        ({"p", "p0"}, "ALTER TABLE p DETACH PARTITION p0"),
        ({"b", "c"}, "ALTER TABLE b RENAME TO c", "CREATE TABLE b AS SELECT 1 AS id"),
        ({"a", "b", "c", "p", "p0", "v"}, "ALTER TYPE mood RENAME VALUE 'ill' TO 'sick'"),
        ({"a", "b", "c", "p", "p0", "v"}, "CREATE DOMAIN d AS int"),
    ):
        assert set(ticking.change(*statements)) == stirred, statements
        assert ticking.round() == {}
    for table in ("a", "b", "c", "p", "p0", "v"):
        assert ticking.tide.ingest(f"public.{table}").outcome == "unchanged"


def test_looking_at_a_table_changes_nothing_in_it(ticking: Ticking) -> None:
    """Nor does what VACUUM and ANALYZE write to the catalog."""
    assert ticking.change("INSERT INTO b SELECT generate_series(1, 999)") == {"b": "snapshotted"}
    for statement in ("VACUUM (FREEZE, ANALYZE)", "SELECT count(*) FROM b", "SELECT * FROM a FOR UPDATE", "ANALYZE p"):
        assert ticking.change(statement) == {}


def test_rows_that_are_counted_late_come_when_they_are(ticking: Ticking) -> None:
    """Counters tell of what has ended: none of an open transaction, and at first none of one that has just ended."""
    with ticking.tide.database.session() as session:
        session.run("BEGIN; INSERT INTO b VALUES (1)")
        session.run("SELECT pg_stat_force_next_flush()")
        assert ticking.round() == {}
        session.run("SELECT pg_stat_force_next_flush()")
        session.run("COMMIT")
        assert ticking.round() == {"b": "snapshotted"}
        session.run("INSERT INTO b VALUES (2)")  # Within a second of what was counted: it waits.
        late = ticking.round()
        assert late in ({}, {"b": "ingested"})
        assert ticking.change("INSERT INTO b VALUES (3)") == {"b": "ingested"}
        session.run("SELECT pg_stat_force_next_flush()")
        assert ticking.round() == ({"b": "unchanged"} if not late else {})
        assert ticking.round() == {}
    assert ticking.tide.values("id", "public.b") == [1, 2, 3]


def test_a_message_that_is_not_worked_off_with_success_is_sent_at_each_tick(ticking: Ticking) -> None:
    """Lost, failed before it was committed, dead; one that comes again later tells of what was counted then."""
    tide = ticking.tide
    tide.run("INSERT INTO b VALUES (1)")
    ticking.count()
    [lost], [again] = ticking.tick(), ticking.tick()
    assert lost.tally == again.tally
    assert lost.tick != again.tick
    process = Process()
    process.at("before", COMMIT, process.kill)
    with pytest.raises(KilledError):
        tide.ingest("public.b", s3=process.client(tide.lake.s3))
    tide.source.close()
    tide.lake.expire_uploads()
    [late] = ticking.tick()
    tide.run("INSERT INTO b VALUES (2)")
    ticking.count()
    [newer] = ticking.tick()
    assert [run.rows for run in ticking.work([newer, late])] == [2, 0]
    assert ticking.round() == {"b": "unchanged"}
    assert ticking.round() == {}
    redriven = decode(sent_again(encode(lost)))
    assert isinstance(redriven, Ingest)
    assert (redriven.tally, redriven.configuration) == ("", None)
    ticking.work([redriven])
    assert ticking.round() == {}
    assert tide.values("id", "public.b") == [1, 2]


def test_a_run_whose_window_another_worker_has_read_says_nothing_of_what_came_after_that(ticking: Ticking) -> None:
    """The other one's snapshot may be older than what was counted."""
    tide = ticking.tide
    assert ticking.change("INSERT INTO b VALUES (1)") == {"b": "snapshotted"}
    tide.run("INSERT INTO b VALUES (2)")
    ticking.count()
    messages = ticking.tick()
    process = Process()
    process.at("before", COMMIT, lambda: tide.ingest("public.b"))
    jobs = tide.jobs(s3=process.client(tide.lake.s3))
    assert jobs.do(messages[0], received(), seconds=60).outcome == "covered"
    assert ticking.round() == {"b": "unchanged"}
    assert ticking.round() == {}


def test_statistics_that_begin_anew_have_every_table_asked_for(ticking: Ticking) -> None:
    """Also if a counter comes to stand where it stood, which here it does: three rows before and after."""
    ticking.change("INSERT INTO b SELECT generate_series(1, 3)")
    for reset in (
        "SELECT pg_stat_reset()",
        "SELECT pg_stat_reset_single_table_counters('b'::regclass)",
        "SELECT pg_stat_reset_shared('archiver')",
    ):
        assert set(ticking.change(reset, "INSERT INTO b SELECT generate_series(1, 3)")) == ALL
        assert ticking.round() == {}
    assert len(ticking.tide.values("id", "public.b")) == 12


def test_a_server_that_was_started_again_is_another_one(aws: Aws) -> None:
    """After a stop, a loss of power, and a process that is killed: its statistics may be those of before, or none."""
    with Postgres(settings=LAZY) as postgres:
        tide = Tide(database_of(postgres), make_lake(aws.s3, aws.ssm))
        ticking = Ticking(tide)
        tide.run("CREATE TABLE a (id int)", "CREATE TABLE b (id int)", "CHECKPOINT")
        ticking.change("INSERT INTO a VALUES (1)")

        def stop() -> None:
            tide.database.close()
            postgres.restart("fast")
            tide.database.reconnect()

        def kill() -> None:
            started = tide.database.one("SELECT pg_postmaster_start_time()::text")
            kill_a_process(tide)
            assert tide.database.one("SELECT pg_postmaster_start_time()::text") == started

        for befall in (stop, lambda: crash(postgres, tide), kill):
            tide.run("INSERT INTO b VALUES (1)")
            befall()
            assert set(ticking.change()) == {"a", "b"}
            assert ticking.round() == {}
        tide.check("public.b")
        assert len(tide.rows("public.b")) == tide.database.one("SELECT count(*) FROM b")
        tide.database.close()


def kill_a_process(tide: Tide) -> None:
    """Kill the process of a session, which takes all others with it; wait until the server takes new ones."""
    with suppress(DatabaseError, InterfaceError, OSError), tide.database.session() as victim:
        os.kill(victim.run("SELECT pg_backend_pid()")[0][0], signal.SIGKILL)
        victim.run("SELECT 1")

    def is_back() -> bool:
        try:
            tide.database.reconnect()
        except (DatabaseError, InterfaceError, OSError):
            return False
        return True

    tide.database.close()
    wait_for(is_back)


def test_a_table_whose_large_read_is_under_way_is_asked_for_until_that_is_settled(ticking: Ticking) -> None:
    """Also one that an operator has asked for meanwhile, of a table that was idle."""
    tide = ticking.tide
    tide.run("INSERT INTO b SELECT generate_series(1, 9999)")
    tide.database.pass_horizon()
    ticking.count()
    assert [run.outcome for run in ticking.work(ticking.tick(), limits=SMALL)] == ["planned"]
    assert ticking.round() == {"b": "unchanged"}
    tide.read_chunks(limits=SMALL)
    assert ticking.round() == {"b": "unchanged"}
    assert ticking.round() == {}
    backfill = decode('{"version":1,"type":"backfill","table":"public.b","all":true}')
    tide.jobs(limits=SMALL).do(backfill, received(), seconds=60)
    first, *rest = tide.outbox.take()
    tide.read_chunks([first], limits=SMALL)
    assert ticking.round() == {"b": "unchanged"}
    assert ticking.round() == {"b": "unchanged"}
    tide.read_chunks(rest, limits=SMALL)
    assert ticking.round() == {"b": "unchanged"}
    assert ticking.round() == {}
    assert len(tide.rows("public.b")) == 2 * 9999


def test_rows_that_a_run_leaves_to_the_next_one_have_it_asked_for(
    ticking: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those above the horizon where there are more ids than are remembered; they come once nothing holds it."""
    monkeypatch.setattr("tidelog.planning.AHEAD_CAP", 1)
    tide = ticking.tide
    with tide.database.session() as holder:
        holder.run("BEGIN; SELECT pg_current_xact_id()")
        assert ticking.change("INSERT INTO b VALUES (1)", "INSERT INTO b VALUES (2)", "INSERT INTO b VALUES (3)")
        assert ticking.round() == {"b": "unchanged"}
        assert ticking.round() == {"b": "unchanged"}
        holder.run("COMMIT")
    tide.database.pass_horizon()
    assert "b" in ticking.round()
    assert ticking.round() == {}
    assert tide.values("id", "public.b") == [1, 2, 3]


def test_tables_that_are_read_otherwise_or_for_the_first_time_are_asked_for(ticking: Ticking) -> None:
    """Another version of the configuration; a table that is new; one whose parameter is lost or no summary."""
    tide = ticking.tide
    assert {message.table for message in ticking.tick(configuration=1)} == {f"public.{name}" for name in ALL}
    assert ticking.round() == {}
    assert ticking.change("CREATE TABLE fresh (id int)") == {"fresh": "unchanged"}
    assert ticking.round() == {}
    tide.parameters.forget(TableName("public", "a"))
    name = f"{tide.lake.prefix}/tables/public/b"
    tide.lake.ssm.put_parameter(Name=name, Value="{", Type="String", Overwrite=True)
    assert ticking.round() == {"a": "unchanged", "b": "unchanged"}
    assert ticking.round() == {}


def test_what_a_stack_that_was_deleted_has_noted_is_nothing_to_its_successor(ticking: Ticking, aws: Aws) -> None:
    """It has the same name, so its parameters, and another lake: until a run has succeeded a table is asked for."""
    tide = ticking.tide
    assert ticking.round() == {}
    tide.lake = dataclasses.replace(make_lake(aws.s3, aws.ssm), prefix=tide.lake.prefix)
    for _ in range(2):
        assert {message.table for message in ticking.tick()} == {f"public.{name}" for name in ALL}  # And all runs fail.


def test_a_message_says_when_its_table_was_idle_last(ticking: Ticking) -> None:
    """Whatever became of the messages since: after a failover that is until when the old server was surely there."""
    assert ticking.round() == {}
    before = ticking.begin().before
    assert before
    idle = before.at.isoformat(timespec="milliseconds")
    ticking.tide.run("INSERT INTO b VALUES (1)", "SELECT pg_stat_force_next_flush()")
    for _ in range(3):
        assert [(message.table, message.calm) for message in ticking.tick()] == [("public.b", idle)]
    assert ticking.round() == {"b": "snapshotted"}
    assert ticking.round() == {}
    [first, *_] = ticking.tick(everything=True)
    assert first.calm > idle
    ticking.tide.lake.s3.delete_object(Bucket=ticking.tide.lake.bucket, Key=KEY)
    assert {message.calm for message in ticking.tick()} == {""}


def test_who_asks_for_everything_gets_it(ticking: Ticking) -> None:
    """Nothing is written where nothing is gained; and where nobody looks for idle tables no tally is sent or noted."""
    versions = {table: kept.version for table, kept in ticking.tide.parameters.all_kept()}
    assert set(ticking.round(everything=True)) == ALL
    ticking.looks = 1
    outset = ticking.begin()
    assert (dict(outset.tallies), outset.known, outset.before) == ({}, None, None)
    assert ticking.end(outset).unchanged == ()
    assert not any(message.tally for message in ticking.queue.take() if isinstance(message, Ingest))
    assert {table: kept.version for table, kept in ticking.tide.parameters.all_kept()} == versions


def test_a_tick_without_memory_asks_for_every_table(ticking: Ticking) -> None:
    """It is lost, or none, or another version's; it is written anew."""
    s3, bucket = ticking.tide.lake.s3, ticking.tide.lake.bucket
    now, memory = datetime(2026, 11, 23, tzinfo=UTC), Memory(s3, bucket)
    for damage, told in (
        (lambda: s3.delete_object(Bucket=bucket, Key=KEY), False),
        (lambda: s3.put_object(Bucket=bucket, Key=KEY, Body=b""), True),
        (lambda: s3.put_object(Bucket=bucket, Key=KEY, Body=b"\x1f\x8b\x08"), True),
        (lambda: s3.put_object(Bucket=bucket, Key=KEY, Body=b"[]"), True),
        (lambda: memory.write(Remembered(0, 7, "", now, {}, {})), True),
        (lambda: memory.write(Remembered(1, 7, "", now.replace(tzinfo=None), {}, {})), True),
    ):
        ticking.warnings.clear()
        damage()
        assert set(ticking.round()) == ALL
        assert [KEY in warning for warning in ticking.warnings] == [True] * told
        assert ticking.round() == {}
        remembered = memory.read()
        assert remembered
        assert (remembered.number, remembered.asked) == (1, {})
        assert {name.removeprefix("public.") for name in remembered.idle} == ALL


def test_what_can_not_be_asked_leads_to_more_messages_and_to_no_error(ticking: Ticking, role: str) -> None:
    """A server that does not count, or does not tell a role what it has counted; S3 that throttles."""
    tide = ticking.tide
    tide.run(f"ALTER DATABASE {tide.database.name} SET track_counts = off")
    uncounted = tide.database.source()
    messages = ticking.tick(source=uncounted)
    assert {message.tally for message in messages} == {""}
    assert len(messages) == len(ALL)
    tide.run(
        f"ALTER DATABASE {tide.database.name} RESET track_counts",
        "REVOKE EXECUTE ON FUNCTION pg_stat_get_archiver() FROM PUBLIC",
    )
    silent = tide.database.source(role)
    assert len(ticking.tick(source=silent)) == len(ALL)
    [warning] = ticking.warnings
    assert "permission denied for function pg_stat_get_archiver" in warning
    throttled = Process()
    throttled.at("before", Step("get_object", KEY), refusal("SlowDown"))
    tide.lake = dataclasses.replace(tide.lake, s3=throttled.client(tide.lake.s3))
    assert len(ticking.tick()) == len(ALL)
    assert "SlowDown" in ticking.warnings[-1]


def test_a_tick_that_can_not_be_remembered_has_failed(ticking: Ticking) -> None:
    """Its number would stay, and the turn of some tables would never come. Its messages are sent."""
    tide = ticking.tide
    outset = ticking.begin(everything=True)
    bucket = tide.lake.bucket
    ticking.tide.lake = dataclasses.replace(tide.lake, bucket="is-not-there")
    with pytest.raises(AccessDenied, match="NoSuchBucket"):
        ticking.end(outset)
    ticking.tide.lake = dataclasses.replace(tide.lake, bucket=bucket)
    assert len(ticking.queue.take()) == len(ALL)


def test_in_their_turn_idle_tables_are_looked_at(tide: Tide) -> None:
    """What is never counted is found by that; and nothing is written where nothing is found."""
    tide.run(*(f"CREATE TABLE t{n} (id int)" for n in range(9)))
    ticking = Ticking(tide, looks=3)
    ticking.change()
    rounds = [ticking.round() for _ in range(6)]
    assert Counter(table for each in rounds for table in each) == {f"t{n}": 2 for n in range(9)}
    assert max(len(each) for each in rounds) < 9
    with tide.database.session() as session:
        session.run("SET track_counts = off")
        session.run("INSERT INTO t0 VALUES (1)")
    noted = tide.parameters.kept(TableName("public", "t1"))
    rounds = [ticking.round() for _ in range(3)]
    assert [each["t0"] for each in rounds if "t0" in each] == ["snapshotted"]
    assert tide.parameters.kept(TableName("public", "t1")) == noted


@given(st.text(min_size=1, max_size=9), st.integers(2, 50), st.integers(0, 10**6))
def test_each_table_has_one_turn_in_so_many_ticks(name: str, looks: int, number: int) -> None:
    """At whichever tick one begins to count."""
    assert sum(is_turn(TableName("public", name), number + tick, looks) for tick in range(looks)) == 1


def test_another_configuration_makes_another_tally_and_a_server_that_does_not_count_none() -> None:
    """Tables are read otherwise by another version."""
    tallied = Tallied("server", (Relation("public", "t", "r", tally="1"),))
    assert {*tallied.tallies(1, lake="a").values()} != {*tallied.tallies(0, lake="a").values()}
    assert Tallied(None, tallied.relations).tallies(0, lake="a") == {}
