"""Two stacks that work into one lake, as when somebody deploys a second one by mistake, or one over the other."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.stack import SECONDS, Stack, deployed, hold
from tests.conftest import CreateDatabase
from tests.tide import Database
from tidelog_sandbox import Invocation

TABLE = "public.t"
EACH = 10
AT_ONCE, FREE = 2, 3
BODY = f'{{"version":1,"type":"ingest","table":"{TABLE}"}}'


@pytest.fixture
def stacks(create_database: CreateDatabase, tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    """Two deployments of the template; the second one's functions have the first one's lake."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with create_database() as database, deployed(database, tmp_path / "first", conflicts=True) as first:
        [worker] = [each for each in first.sandbox.deployment.functions if each.name == first.worker]
        own = ("AWS_ENDPOINT_URL", "TIDELOG_BUCKET", "TIDELOG_PARAMETERS", "TIDELOG_DATABASE_SECRET")
        shared = {name: worker.environment[name] for name in own}
        with deployed(database, tmp_path / "second", environment=shared, stack="second") as second:
            yield first, second


def write(database: Database, done: threading.Event) -> None:
    """Insert and update, a transaction after the other."""
    with database.session() as session:
        for number in range(10**9):
            if done.is_set():
                return
            session.run(f"INSERT INTO t (id) VALUES ({number})")
            session.run(f"UPDATE t SET version = nextval('version') WHERE id = {number // 2}")


def outcome(invocation: Invocation) -> dict[str, Any]:
    """Return what the worker logged of its run's end: that it is done, or why it failed."""
    assert invocation.succeeded, invocation
    records: list[dict[str, Any]] = [json.loads(line) for line in invocation.log if line.startswith("{")]
    [end] = [record for record in records if record.get("message") in ("run done", "run failed")]
    return end


def test_of_twenty_workers_of_two_stacks_one_wins_each_offset(stacks: tuple[Stack, Stack]) -> None:
    """All on one table, while it is written: some runs begin at once, some as they come. What they say is so."""
    tide = stacks[0].tide
    tide.run(
        "CREATE SEQUENCE version", "CREATE TABLE t (id int PRIMARY KEY, version bigint DEFAULT nextval('version'))"
    )
    done, barrier = threading.Event(), threading.Barrier(2 * EACH)

    def work(stack: Stack) -> Iterator[dict[str, Any]]:
        for number in range(AT_ONCE + FREE):
            if number < AT_ONCE:
                barrier.wait(SECONDS)
            yield outcome(stack.work(BODY))

    with ThreadPoolExecutor(2 * EACH + 1) as pool:
        writer = pool.submit(write, tide.database, done)
        workers = [pool.submit(list, work(stack)) for stack in stacks for _ in range(EACH)]
        try:
            ends = [end for worker in workers for end in worker.result()]
        finally:
            done.set()
        writer.result()
    events = tide.events()
    assert len({event.run for event in events}) == len(events)
    outcomes = Counter(end.get("outcome", "failed") for end in ends)
    assert outcomes["snapshotted"] == 1, outcomes
    assert outcomes["covered"] + outcomes["failed"] > 0, outcomes  # they did meet
    assert set(outcomes) <= {"snapshotted", "ingested", "covered", "unchanged", "failed"}
    # Who says that it has written has; nobody has who says otherwise.
    written = Counter(end["segment"] for end in ends if end.get("outcome") in ("snapshotted", "ingested"))
    assert set(written.values()) == {1}
    committed = {event.segment.key for event in events if event.segment}
    assert set(written) <= committed
    assert len(committed - set(written)) <= outcomes["failed"]
    failed = [end for end in ends if end["message"] == "run failed"]
    assert all(end["error"] in ("Conflict", "StoreUnreachable") for end in failed), failed
    # One more run finishes what those that failed have left, and reads what was written last.
    assert outcome(stacks[1].work(BODY))["message"] == "run done"
    hold(tide, [TABLE])
