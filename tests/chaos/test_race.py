"""Two stacks that work into one lake, as when somebody deploys a second one by mistake, or one over the other."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.stack import SECONDS, Stack, deployed, hold, hold_chunks
from tests.tide import Database
from tidelog.plans import ChunkRead
from tidelog_sandbox import Invocation

TABLE = "public.t"
EACH = 10
AT_ONCE, FREE = 2, 3
CHUNK_MEGABYTES = 0.125
ROWS, CHUNKS, COPIES, INCREMENTS = 50_000, 16, 5, 2
BODY = f'{{"version":1,"type":"ingest","table":"{TABLE}"}}'


@contextmanager
def two_stacks(database: Database, directory: Path, environment: dict[str, str]) -> Iterator[tuple[Stack, Stack]]:
    """Deploy the template twice; the second one's functions have the first one's lake and role; queues rest."""
    (directory / "first").mkdir()
    (directory / "second").mkdir()
    with deployed(database, directory / "first", environment=environment, conflicts=True) as first:
        [worker] = [each for each in first.sandbox.deployment.functions if each.name == first.worker]
        own = [name for name in worker.environment if name.startswith("AWS_")]
        own += [f"TIDELOG_{name}" for name in ("BUCKET", "PARAMETERS", "DATABASE_SECRET", "BACKFILL_QUEUE_URL")]
        shared = environment | {name: worker.environment[name] for name in own}
        with deployed(database, directory / "second", environment=shared, stack="second") as second:
            yield first, second


@pytest.fixture
def stacks(database: Database, tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    """Two stacks on one lake."""
    with two_stacks(database, tmp_path, {}) as stacks:
        yield stacks


@pytest.fixture
def chunking_stacks(database: Database, tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    """Two stacks on one lake, to which a table of some pages is a large one."""
    with two_stacks(database, tmp_path, {"TIDELOG_CHUNK_MEGABYTES": str(CHUNK_MEGABYTES)}) as stacks:
        yield stacks


def write(database: Database, done: threading.Event, rest: float = 0) -> None:
    """Insert and update, a transaction after the other."""
    with database.session() as session:
        for number in range(10**9):
            if done.wait(rest):
                return
            session.run(f"INSERT INTO t (id) VALUES ({number})")
            session.run(f"UPDATE t SET version = nextval('version') WHERE id = {number // 2}")


def outcome(invocation: Invocation) -> dict[str, Any]:
    """Return what the worker logged of its run's end: that it is done, or why it failed."""
    assert invocation.succeeded, invocation
    records: list[dict[str, Any]] = [json.loads(line) for line in invocation.log if line.startswith("{")]
    [end] = [record for record in records if record.get("message") in ("run done", "run failed")]
    return end


def chunk_body(plan: int, number: int) -> str:
    """Return the message of a chunk."""
    return f'{{"version":1,"type":"backfill","table":"{TABLE}","plan":{plan},"chunk":{number}}}'


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


def test_of_twenty_workers_of_two_stacks_one_wins_each_chunk(chunking_stacks: tuple[Stack, Stack]) -> None:
    """Each chunk is given to five of them, in no order, and between the chunks all run the table, which is written."""
    stacks = chunking_stacks
    tide = stacks[0].tide
    tide.run(
        "CREATE SEQUENCE version",
        "CREATE TABLE t (id int PRIMARY KEY, version bigint DEFAULT nextval('version'))",
        f"INSERT INTO t SELECT -n FROM generate_series(1, {ROWS}) n",
    )
    assert outcome(stacks[0].work(BODY))["outcome"] == "planned"
    [plan] = tide.state().plans
    assert plan.chunks >= CHUNKS
    bodies = [chunk_body(plan.number, number) for number in range(1, plan.chunks + 1)]
    draw = random.Random(1)  # noqa: S311 - the same each time
    given = [[BODY] * INCREMENTS for _ in range(2 * EACH)]
    for body in bodies:
        for messages in draw.sample(given, COPIES):
            messages.append(body)
    for messages in given:
        draw.shuffle(messages)
    done, barrier = threading.Event(), threading.Barrier(2 * EACH)

    def work(stack: Stack, mine: list[str]) -> Iterator[dict[str, Any]]:
        barrier.wait(SECONDS)
        for body in mine:
            yield outcome(stack.work(body))

    with ThreadPoolExecutor(2 * EACH + 1) as pool:
        writer = pool.submit(write, tide.database, done, 0.02)
        workers = [pool.submit(list, work(stacks[place % 2], mine)) for place, mine in enumerate(given)]
        try:
            ends = [end for worker in workers for end in worker.result()]
        finally:
            done.set()
        writer.result()
    failed = [end for end in ends if end["message"] == "run failed"]
    assert all(end["error"] in ("Conflict", "StoreUnreachable") for end in failed), failed
    outcomes = Counter(end["outcome"] for end in ends if end["message"] == "run done")
    assert set(outcomes) <= {"read", "ingested", "covered", "unchanged", "planned", "waiting"}, outcomes
    assert outcomes["ingested"], outcomes
    # Who says that it has read a chunk has; nobody has who says otherwise.
    read = [end["segment"] for end in ends if end.get("outcome") == "read"]
    committed = [event.segment.key for event in tide.events() if isinstance(event.what, ChunkRead) and event.segment]
    assert len(set(read)) == len(read)
    assert set(read) <= set(committed)
    assert len(set(committed) - set(read)) <= len(failed)
    # The messages of those that failed come again; what was written last may be so much that it is planned too.
    rest = [*bodies, BODY]
    while rest:
        for body in rest:
            assert outcome(stacks[1].work(body))["message"] == "run done"
        rest = [chunk_body(each.number, number) for each in tide.state().plans for number in each.pending]
    hold_chunks(tide, TABLE)
    hold(tide, [TABLE])
