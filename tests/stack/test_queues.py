"""The two queues of the worker: what is read in chunks waits in one of its own, and holds up nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import CreateDatabase
from tests.tide import Database, Lake, Tide
from tidelog.plans import OpenPlan
from tidelog_sandbox.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
WORK, BACKFILL = 2, 2
PARAMETERS = {
    "AdminEmail": "admin@example.com",
    "DatabaseTls": "disable",
    "Schedule": "rate(1 day)",
    "WorkConcurrency": str(WORK),
    "BackfillConcurrency": str(BACKFILL),
}
PAGES, CHUNKS = 2, 1000
"""Of a chunk, and of the large table."""
LIVE = [f"public.live_{number}" for number in range(5)]
LARGE = "public.large"
SECONDS = 120
CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidelog' AND datname = current_database()
"""


class Stack:
    """A deployed template, and its database."""

    def __init__(self, sandbox: Sandbox, database: Database) -> None:
        self.sandbox = sandbox
        lake = Lake(
            sandbox.client("s3"),
            sandbox.client("ssm"),
            sandbox.outputs["LakeBucket"],
            sandbox.outputs["ParameterPrefix"],
        )
        self.tide = Tide(database, lake)
        self.connections = 0
        """The most that were seen at once."""

    def tick(self, due: str) -> None:
        """Run a tick; its messages are worked off in the background."""
        scheduled = self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], {"scheduled_time": due, "all": True})
        assert scheduled.succeeded, scheduled

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something is true."""
        give_up = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < give_up
            time.sleep(0.1)

    def plan(self) -> OpenPlan | None:
        """Return the plan of the large table while it is open."""
        return next(iter(self.tide.state(LARGE).plans), None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the functions' connections until the end of the block."""
        over = threading.Event()

        def watch() -> None:
            with self.tide.database.session() as session:
                while not over.wait(0.01):
                    [[count]] = session.run(CONNECTIONS)
                    self.connections = max(self.connections, count)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.fixture
def stack(create_database: CreateDatabase) -> Iterator[Stack]:
    """The template over a table of a thousand chunks and a few of a row, with its queues worked off."""
    with create_database() as database:
        database.run(
            "CREATE TABLE large (id int PRIMARY KEY, text text)",
            f"INSERT INTO large SELECT n, repeat('x', 1900) FROM generate_series(1, {PAGES * CHUNKS * 4}) n",
        )
        for table in LIVE:
            database.run(f"CREATE TABLE {table} (id int PRIMARY KEY)", f"INSERT INTO {table} VALUES (1)")
        secret = database.server.credentials(database.name)
        content = {"host": secret.host, "port": secret.port, "dbname": secret.dbname, "engine": "postgres"}
        content |= {"username": secret.username, "password": secret.password}
        size = {"TIDELOG_CHUNK_MEGABYTES": str(PAGES * 8192 / 2**20)}
        with Sandbox(TEMPLATE, parameters=PARAMETERS, database=content, environment=size) as sandbox:
            sandbox.start_mappings()
            yield Stack(sandbox, database)


def test_a_thousand_chunks_hold_up_no_table_and_take_no_more_connections_than_allowed(stack: Stack) -> None:
    """A tick's tables land while hundreds of chunks wait; both queues together open as many connections as they may."""
    tide = stack.tide
    with stack.watched():
        stack.tick("2026-11-23T12:00:00Z")
        stack.wait(lambda: (plan := stack.plan()) and plan.sent and plan.done_chunks)
        stack.wait(lambda: all(tide.kinds(table) == ["snapshotted"] for table in LIVE))
        for table in LIVE:
            tide.run(f"INSERT INTO {table} VALUES (2)")
        stack.tick("2026-11-23T12:05:00Z")
        stack.wait(lambda: all(tide.kinds(table) == ["snapshotted", "ingested"] for table in LIVE))
        plan = stack.plan()
        stack.wait(lambda: all(tide.values("id", table) == [1, 2] for table in LIVE))
    assert plan
    assert plan.chunks >= CHUNKS
    assert 0 < plan.done_chunks < plan.chunks - 500
    assert WORK < stack.connections <= WORK + BACKFILL + 1
