"""Everything at once: writers that commit late, workers that race and are killed, a transaction open all the while."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from pg8000.exceptions import DatabaseError

from tests.conftest import make_lake
from tests.faults import STEPS, KilledError, Process
from tests.tide import SECONDS, Database, Server, Tide
from tidelog.errors import Retryable
from tidelog.limits import Limits
from tidelog.tables import TableName
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.postgres import Postgres

WRITERS, TRANSACTIONS = 8, 120
TABLES = ("public.plain", "public.bounded", "public.parted")
LIMITS = Limits(look_back=3600, time_bound_bytes=1, chunk_bytes=2**30, failover_margin=3600, fresh=450)
SCHEMA = [
    "CREATE SEQUENCE version",
    "CREATE SEQUENCE key",
    *(
        f"CREATE TABLE {table} (id int, writer int, part int, created_at timestamptz, updated_at timestamptz, "
        f"version bigint DEFAULT nextval('version')) {options}"
        for table, options in zip(TABLES, ("", "", "PARTITION BY LIST (part)"), strict=True)
    ),
    *(f"CREATE TABLE parted_{n} PARTITION OF parted FOR VALUES IN ({n})" for n in range(3)),
    "ALTER TABLE plain ADD PRIMARY KEY (id)",
    "ALTER TABLE bounded ADD PRIMARY KEY (id)",
    "CREATE INDEX ON bounded (updated_at)",
    "CREATE INDEX ON bounded (created_at)",
]


@pytest.fixture
def tide() -> Iterator[Tide]:
    """Three tables of a server of their own, and a lake whose conditional writes are atomic, or get 409."""
    settings = {"fsync": "off", "wal_writer_delay": "10ms", "deadlock_timeout": "20ms"}
    with Cloud(conflicts=True) as cloud, Postgres(settings=settings) as postgres:
        database = Database(Server(postgres.port, postgres.password), "postgres")
        database.run(*SCHEMA)
        yield Tide(database, make_lake(cloud.client("s3"), cloud.client("ssm")))
        database.close()


def write(tide: Tide, writer: int) -> None:
    """Make transactions: of several statements and tables, with savepoints, held open, rolled back, deadlocked."""
    draw = random.Random(writer)  # noqa: S311 - the same each time
    with tide.database.session() as session:
        for _ in range(TRANSACTIONS):
            with suppress(DatabaseError):  # a deadlock
                session.run("BEGIN")
                for _ in range(draw.randrange(1, 5)):
                    session.run("SAVEPOINT a")
                    session.run(statement(draw, writer))
                    if draw.random() < 0.2:
                        session.run("ROLLBACK TO a")
                    elif draw.random() < 0.5:
                        session.run("RELEASE a")
                    time.sleep(draw.choice([0, 0, 0, 0.002, 0.02]))
                if draw.random() < 0.05:
                    time.sleep(0.5)
                session.run("ROLLBACK" if draw.random() < 0.15 else "COMMIT")
                continue
            session.run("ROLLBACK")


def statement(draw: random.Random, writer: int) -> str:
    """Return an insert, an update, a delete, or a delete and insert of one key: mostly of the writer's own rows."""
    table = draw.choice(TABLES)
    stamp = "clock_timestamp()"
    if table != "public.bounded":  # there they would be a sweep's
        stamp = draw.choice(["now()", "clock_timestamp()", "NULL", "now() - interval '9 days'", "'infinity'"])
    owner = writer if draw.random() < 0.9 else draw.randrange(WRITERS)
    rows = f"id IN (SELECT id FROM {table} WHERE writer = {owner} ORDER BY md5(id::text || '{draw.random()}') LIMIT 2)"
    part = draw.randrange(3)
    return draw.choice(
        [
            f"INSERT INTO {table} SELECT nextval('key'), {writer}, {part}, {stamp}, {stamp} FROM generate_series(1, 2)",
            f"UPDATE {table} SET version = nextval('version'), updated_at = {stamp}, part = {part} WHERE {rows}",
            f"DELETE FROM {table} WHERE {rows}",
            (
                f"WITH gone AS (DELETE FROM {table} WHERE {rows} RETURNING id) "
                f"INSERT INTO {table} SELECT id, {writer}, {part}, {stamp}, NULL FROM gone"
            ),
        ]
    )


def work(tide: Tide, worker: int, done: threading.Event) -> tuple[int, int]:
    """Run the tables as fast as it goes, now and then in a process that is killed; return how many runs and kills."""
    draw, source = random.Random(-worker), tide.database.source()  # noqa: S311 - the same each time
    runs = kills = 0
    while not done.is_set():
        for table in TABLES:
            process = Process()
            if draw.random() < 0.3:
                process.at(draw.choice(["before", "after"]), draw.choice(STEPS), process.kill)
            parts: dict[str, Any] = {"s3": process.client(tide.lake.s3), "ssm": process.client(tide.lake.ssm)}
            ingestion = tide.ingestion(source=source, limits=LIMITS, **parts)
            runs += 1
            try:
                ingestion.ingest(TableName.parse(table), seconds=SECONDS)
            except KilledError:
                kills += 1
            except Retryable:  # tried again, as the queue does
                pass
    return runs, kills


def compare(tide: Tide) -> None:
    """Hold the lake against the tables: of every key the newest version is the table's, and none is there twice."""
    for table in TABLES:
        tide.ingest(table, limits=LIMITS)
        tide.check(table)
        versions = tide.values("version", table)
        assert len(versions) == len(set(versions))
        latest = tide.latest(table)
        assert {key: latest.get(key) for key in tide.table(table)} == tide.table(table)


def test_nothing_is_lost_and_nothing_is_written_twice(tide: Tide) -> None:
    """Eight writers, two racing workers that are killed again and again, and a transaction that outlives them all."""
    with tide.database.session() as long:
        long.run("BEGIN")
        for table in TABLES:
            long.run(f"INSERT INTO {table} VALUES (-1, -1, 1, now(), now())")
        done = threading.Event()
        with ThreadPoolExecutor(WRITERS + 2) as pool:
            workers = [pool.submit(work, tide, number, done) for number in (1, 2)]
            writers = [pool.submit(write, tide, number) for number in range(WRITERS)]
            for writer in writers:
                writer.result()
            done.set()
            counts = [worker.result() for worker in workers]
        assert all(runs > 5 and kills for runs, kills in counts)
        # The others' rows are all there, while it is still open.
        compare(tide)
        assert all(-1 not in tide.latest(table) for table in TABLES)
        long.run("COMMIT")
    compare(tide)
    assert all(-1 in tide.latest(table) for table in TABLES)
    tide.lake.expire_uploads()
