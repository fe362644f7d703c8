"""A glance at a table in which nothing is new: one call of AWS, one question to the server, and never a lost row."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.client import BaseClient
from pg8000.native import Connection

from tests.faults import COMMIT, KilledError, Process
from tests.tide import Tide
from tidelog.ingesting import Noted
from tidelog.runs import Run
from tidelog.tables import TableName

TABLE = TableName("public", "t")


class Sight:
    """What a run has asked of AWS and of the server."""

    def __init__(self, tide: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.statements: list[str] = []
        self._tide = tide
        self._monkeypatch = monkeypatch

    def run(self, *, noted: Noted = "in time", **more: Any) -> Run:
        """Run the table once; nothing else is seen."""
        self.calls, self.statements = [], []
        send, call = Connection.run, BaseClient._make_request  # type: ignore[attr-defined] # botocore's stubs leave it out

        def seen(connection: Connection, statement: str, *args: Any, **named: Any) -> Any:
            self.statements.append(statement)
            return send(connection, statement, *args, **named)

        def called(client: Any, operation: Any, *args: Any) -> Any:
            self.calls.append(operation.name)
            return call(client, operation, *args)

        with self._monkeypatch.context() as patch:
            patch.setattr(Connection, "run", seen)
            patch.setattr(BaseClient, "_make_request", called)
            return self._tide.ingestion().ingest(TABLE, seconds=60, noted=noted, **more)

    def glanced(self) -> bool:
        """Whether the last run has made no other call than the two of a glance."""
        return self.calls == ["ListObjectsV2"] and len(self.statements) == 1


@pytest.fixture
def sight(tide: Tide, monkeypatch: pytest.MonkeyPatch) -> Sight:
    """A table of three rows, which were read."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t SELECT n, n FROM generate_series(1, 3) n")
    tide.ingest()
    return Sight(tide, monkeypatch)


def test_an_idle_table_takes_one_call_of_aws_and_one_of_the_server(tide: Tide, sight: Sight) -> None:
    """Of the process that has read it; another looks closely, and says the same of it."""
    runs = [sight.run() for _ in range(2)]
    assert sight.glanced()
    assert runs[0].outcome == "unchanged"
    tide.glances.forget(TABLE)
    runs.append(sight.run())
    assert not sight.glanced()
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize(
    "changes",
    [
        ["INSERT INTO t VALUES (4, 4)"],
        ["UPDATE t SET v = 0 WHERE id = 1"],
        ["TRUNCATE t", "INSERT INTO t VALUES (1, 1)"],
        ["DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1)"],
        ["ALTER TABLE t RENAME TO u", "CREATE TABLE t (id int, v int)", "INSERT INTO t VALUES (1, 1)"],
        ["ALTER TABLE t ALTER v TYPE text"],
        ["ALTER TABLE t ADD w int DEFAULT 7"],
        ["VACUUM FULL t", "INSERT INTO t VALUES (4, 4)"],
    ],
    ids=["insert", "update", "truncate", "anew", "renamed", "rewritten", "added", "moved"],
)
def test_whatever_is_new_is_read_though_it_was_idle(tide: Tide, sight: Sight, changes: list[str]) -> None:
    """As by a process that has never seen the table."""
    tide.run(*changes)
    tide.database.pass_horizon()
    assert sight.run().rows > 0 or "schema_changed" in tide.kinds()
    assert {key: row["v"] for key, row in tide.latest().items() if key in tide.table()} == {
        key: row["v"] for key, row in tide.table().items()
    }
    sight.run()
    assert sight.run().outcome == "unchanged"
    assert sight.glanced()
    tide.check()


def test_an_enum_that_is_altered_is_seen(tide: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of before are outdated by it, although no row was written."""
    tide.run(
        "CREATE TYPE mood AS ENUM ('ok', 'bad')", "CREATE TABLE t (id int, m mood)", "INSERT INTO t VALUES (1, 'ok')"
    )
    tide.ingest()
    sight = Sight(tide, monkeypatch)
    assert [sight.run().outcome for _ in range(2)] == ["unchanged"] * 2
    assert sight.glanced()
    tide.run("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'")
    sight.run()
    assert "schema_changed" in tide.kinds()


def test_a_partition_that_is_attached_or_filled_is_seen(tide: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """All relations of the table are glanced at, and which there are."""
    tide.run(
        "CREATE TABLE t (id int) PARTITION BY RANGE (id)", "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)"
    )
    tide.run("CREATE TABLE t2 (id int)", "INSERT INTO t2 VALUES (10)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    sight = Sight(tide, monkeypatch)
    assert [sight.run().outcome for _ in range(2)] == ["unchanged"] * 2
    assert sight.glanced()
    tide.run("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (9) TO (19)")
    assert sight.run().rows == 1
    sight.run()
    sight.run()
    assert sight.glanced()
    tide.run("INSERT INTO t VALUES (11)")
    assert sight.run().rows == 1
    assert tide.values("id") == [1, 10, 11]


def test_rows_that_were_open_when_it_was_idle_are_read_when_they_commit(tide: Tide, sight: Sight) -> None:
    """A glance sees none of them before that."""
    with tide.database.session() as session:
        session.run("BEGIN")
        session.run("INSERT INTO t VALUES (4, 4)")
        tide.run("INSERT INTO t VALUES (5, 5)")
        assert sight.run().rows == 1
        assert [sight.run().outcome for _ in range(2)] == ["unchanged"] * 2
        assert sight.glanced()
        session.run("COMMIT")
    assert sight.run().rows == 1
    assert tide.values("id") == [1, 2, 3, 4, 5]


def test_what_another_worker_has_committed_and_not_published_is_published(tide: Tide, sight: Sight) -> None:
    """Its rows are new to who has found the table idle before; and where its summary tells of it, nobody glances."""
    tide.run("INSERT INTO t VALUES (4, 4)")
    killed = Process()
    killed.at("after", COMMIT, killed.kill)
    with pytest.raises(KilledError):
        tide.ingest(s3=killed.client(tide.lake.s3))
    assert tide.values("id") == [1, 2, 3]
    assert sight.run().outcome == "unchanged"
    assert tide.values("id") == [1, 2, 3, 4]


def test_the_summary_says_now_and_then_when_the_table_was_looked_at(tide: Tide, sight: Sight) -> None:
    """Unless it was a look for certain: then ticks know that the table is fresh. A person who waits is always told."""
    first = tide.parameters.read(TABLE)
    tide.now = lambda: datetime.now(UTC) + timedelta(hours=1)
    sight.run(noted="never")
    assert sight.glanced()
    assert tide.parameters.read(TABLE) == first
    sight.run()
    assert "PutParameter" in sight.calls
    sight.run()
    assert sight.glanced()
    sight.run(noted="always")
    assert "PutParameter" in sight.calls
    sight.run(tally="0123456789abcdef")
    assert "PutParameter" in sight.calls


def test_a_lost_connection_or_a_lock_is_no_answer(tide: Tide, sight: Sight) -> None:
    """The run goes its usual way."""
    tide.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tidelog%'")
    tide.run("INSERT INTO t VALUES (4, 4)")
    assert sight.run().rows == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("snapshot", "database", "system"), "7"),
        (("snapshot", "database", "oid"), 7),
        (("snapshot", "database", "wal_timeline"), 7),
        (("snapshot", "horizon"), 7),
        (("snapshot", "next"), 2**40),
        (("snapshot", "standby"), True),
        (("snapshot", "wal_position"), "0/0"),
    ],
    ids=lambda each: str(each[-1]) if isinstance(each, tuple) else "",
)
def test_another_server_behind_the_same_connection_is_looked_at_closely(
    tide: Tide, sight: Sight, path: tuple[str, ...], value: object
) -> None:
    """As a proxy in between may have it after a failover: it is another one, or was reset to what it was before."""
    assert sight.run().outcome == "unchanged"
    glance = tide.glances.of(TABLE)
    assert glance
    text = tide.source.ask(TABLE, glance.question, deadline=time.monotonic() + 60)
    assert text
    assert glance.is_idle(text)
    answer = json.loads(text)
    place = answer
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert not glance.is_idle(json.dumps(answer))
