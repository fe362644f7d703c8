"""A table too large for one run, read in chunks while it is written, by workers that are killed.

With as many rows as TIDELOG_CHAOS_ROWS says, and as TIDELOG_CHAOS_SEED says.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.flood import TABLE, Flood, LargeTide, fill
from tests.chaos.stack import Stack, deployed, hold_chunks, hold_objects
from tests.conftest import CreateDatabase
from tidelog.events import Ingested
from tidelog.plans import ChunkRead

ROWS = int(os.environ.get("TIDELOG_CHAOS_ROWS", "200000"))
SEED = int(os.environ.get("TIDELOG_CHAOS_SEED", random.SystemRandom().getrandbits(32)))
KILLS = 3
SECONDS = 120 + ROWS / 10_000
PARAMETERS = {"BackfillConcurrency": "4", "WorkConcurrency": "2", "TimeBoundMegabytes": "0"}
MEGABYTES = ROWS / 800_000
"""Of a chunk: more than forty of them, however many rows there are."""


@pytest.fixture
def stack(create_database: CreateDatabase, tmp_path: Path) -> Iterator[Stack]:
    """The template over a large table, with its queues worked off."""
    size = {"TIDELOG_CHUNK_MEGABYTES": str(MEGABYTES)}
    with create_database() as database:
        fill(database, ROWS)
        with deployed(database, tmp_path, parameters=PARAMETERS, environment=size) as stack:
            stack.eager = True
            stack.sandbox.start_mappings()
            yield stack


def settle(stack: Stack) -> None:
    """Tick until there is nothing new, and no plan is open."""
    for _ in range(10):
        stack.sandbox.wait_until_idle(SECONDS)
        before = stack.tide.state()
        assert stack.tick().succeeded
        stack.sandbox.wait_until_idle(SECONDS)
        if stack.tide.state() == before:
            break
    assert not stack.tide.state().plans


def test_a_large_table_is_read_in_chunks_while_it_is_written_and_workers_are_killed(stack: Stack) -> None:
    """Each chunk is committed once, increments go on beside, and after the last tick the lake is the table."""
    print(f"TIDELOG_CHAOS_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    flood, tide, started = Flood(stack, ROWS, SEED), LargeTide(stack.tide.database, stack.tide.lake), time.monotonic()
    with flood.rising(kills=KILLS):
        flood.wait(lambda: tide.state().plans, SECONDS)
        number = tide.state().plans[0].number
        flood.wait(lambda: tide.state().plan(number) is None, SECONDS)
    read_in = time.monotonic() - started
    settle(stack)
    tide.check(TABLE)
    assert tide.differing() == []
    hold_chunks(tide, TABLE)
    hold_objects(tide, [TABLE])
    assert stack.take_letters() == []
    events = tide.events(TABLE)
    chunks = [(event.offset, event.what) for event in events if isinstance(event.what, ChunkRead)]
    offsets = [offset for offset, what in chunks if what.plan == number]
    beside = [event for event in events[offsets[0] : offsets[-1]] if isinstance(event.what, Ingested)]
    print(  # noqa: T201 - the same
        f"{ROWS} rows in {len(offsets)} chunks of {MEGABYTES:g} MB, read in {read_in:.1f} s; {flood.killed} killed, "
        f"{len(beside)} increments beside; {tide.written()} versions written; {dict(flood.counts)}"
    )
    assert len(offsets) >= 40
    assert flood.killed >= 2
    assert len(beside) >= 2
