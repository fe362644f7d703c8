"""Relations that are away, or have another file, while something of theirs is to be made good: it is, all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from tests.faults import PUBLISH, KilledError, Process
from tests.integration.repacking import Repacking
from tests.integration.test_backfills import asked, backfill
from tests.integration.test_chunks import NAME, SMALL, plan
from tests.tide import LIMITS, Tide
from tidelog.events import Remade
from tidelog.messages import Message
from tidelog.plans import ChunksDropped
from tidelog.state import State

WHOLE = replace(LIMITS, chunk_bytes=2**40)
PARTED = (
    "CREATE TYPE mood AS ENUM ('well', 'ill')",
    "CREATE TABLE t (id int, part int, text text, m mood, at timestamp) PARTITION BY LIST (part)",
    *(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES IN ({n})" for n in range(2)),
    "INSERT INTO t SELECT n, n % 2, repeat('x', 200), 'ill', '2026-01-01' FROM generate_series(1, 1000) n",
)
LEAVES, COMES_BACK = "ALTER TABLE t DETACH PARTITION t1", "ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)"


@pytest.fixture
def parted(tide: Tide) -> Tide:
    """A table of two partitions, each of several chunks."""
    tide.run(*PARTED)
    tide.database.pass_horizon()
    return tide


def finish(tide: Tide) -> None:
    """Read what is still to be read."""
    for _ in range(3):
        tide.ingest(limits=SMALL)
        tide.read_chunks(limits=SMALL)


def same(tide: Tide) -> None:
    """Hold the lake against the table."""
    latest = tide.latest()
    assert {key: latest.get(key) for key in tide.table()} == tide.table()
    assert tide.verify().is_right


def killed_before_publishing(tide: Tide, work: Callable[[Process], object]) -> None:
    """Let a worker die that has committed a segment; its upload is lost."""
    process = Process()
    process.at("before", PUBLISH, process.kill)
    with pytest.raises(KilledError):
        work(process)
    tide.lake.expire_uploads()


def test_a_partition_that_has_left_when_a_segment_is_made_again_is_read_whole(parted: Tide) -> None:
    """It comes back as if nothing had been read of it, and the segment did have rows of it."""
    parted.ingest(limits=WHOLE)
    parted.run("INSERT INTO t VALUES (2000, 0), (2001, 1)")
    killed_before_publishing(parted, lambda process: parted.ingest(s3=process.client(parted.lake.s3)))
    parted.run(LEAVES)
    parted.ingest()
    [remade] = [event.what for event in parted.events() if isinstance(event.what, Remade)]
    assert (remade.segment.rows, len(remade.lost)) == (1, 1)
    parted.run(COMES_BACK)
    parted.ingest()
    same(parted)


def test_a_relation_that_is_repacked_before_its_chunk_is_made_again_is_read_whole(parted: Tide) -> None:
    """Its rows are under the id of the copy, which windows have passed."""
    messages = plan(parted)
    parted.read_chunks(messages[:-1], limits=SMALL)
    repacking = Repacking(parted.database.server.credentials(parted.database.name), "t1")
    repacking.copied()
    parted.database.pass_horizon()
    parted.run("INSERT INTO t VALUES (2001, 1)")
    parted.database.pass_horizon()
    parted.ingest(limits=WHOLE)
    last = messages[-1:]
    killed_before_publishing(
        parted, lambda process: parted.read_chunks(last, limits=SMALL, s3=process.client(parted.lake.s3))
    )
    repacking.exchange()
    finish(parted)
    same(parted)


def cancel(tide: Tide, number: int) -> None:
    """Cancel a plan, as a person does."""

    def drop(now: State) -> ChunksDropped | None:
        found = now.plan(number)
        return ChunksDropped(number, ((1, found.chunks),), "it was cancelled", unread=True) if found else None

    assert tide.ledger.append_if(NAME, tide.state(), drop, finished=0)[1]


@pytest.mark.parametrize("first", [LEAVES, "SELECT 1"])
def test_what_was_cancelled_is_not_forgotten_of_a_partition_that_is_away(parted: Tide, first: str) -> None:
    """A backfill of all rows makes good what was cancelled; what it did not read comes back whole."""
    plan(parted)
    cancel(parted, 1)
    assert parted.state().lacks == "cancelled"
    parted.run(first)
    parted.ingest(limits=SMALL)
    backfill(parted, asked(all=True), limits=SMALL)
    if first != LEAVES:  # It leaves in the middle of that.
        parted.run(LEAVES)
    parted.read_chunks(limits=SMALL)
    assert parted.state().lacks != "cancelled"
    parted.run(COMES_BACK)
    finish(parted)
    same(parted)


def cancelled_and_rewritten(tide: Tide) -> Sequence[Message]:
    """Cancel the first reading and have all rows read again, of which one relation is planned anew, and all read.

    Returns the messages of the backfill itself, the first of which is done.
    """
    plan(tide)
    cancel(tide, 1)
    backfill(tide, asked(all=True), limits=SMALL)
    messages = tide.outbox.take()
    tide.run("VACUUM FULL t0")
    tide.read_chunks(messages[:1], limits=SMALL)
    return messages


def test_what_was_cancelled_is_not_made_good_by_one_relation_of_two(parted: Tide) -> None:
    """The other one's chunks are cancelled as well: the table still lacks rows."""
    messages = cancelled_and_rewritten(parted)
    assert isinstance(messages[0].plan, int)  # type: ignore[union-attr] # of a chunk
    cancel(parted, messages[0].plan)  # type: ignore[union-attr] # of a chunk
    finish(parted)
    assert parted.state().lacks == "cancelled"
    backfill(parted, asked(all=True), limits=SMALL)
    parted.read_chunks(limits=SMALL)
    same(parted)


def test_what_was_cancelled_is_made_good_though_a_relation_is_rewritten_meanwhile(parted: Tide) -> None:
    """By the backfill and the plan in its stead together."""
    messages = cancelled_and_rewritten(parted)
    assert parted.state().lacks == "cancelled"
    parted.read_chunks(messages[1:], limits=SMALL)
    assert not parted.state().plans
    assert parted.state().lacks != "cancelled"
    finish(parted)
    same(parted)


@pytest.mark.parametrize(
    "change",
    [
        ["ALTER TYPE mood RENAME VALUE 'ill' TO 'sick'"],
        ["ALTER TABLE t ALTER at TYPE timestamptz", "ALTER TABLE t1 ALTER at TYPE timestamptz"],
    ],
    ids=["label", "type"],
)
def test_a_partition_that_was_away_when_lines_were_outdated_is_read_whole(parted: Tide, change: list[str]) -> None:
    """Nobody could read it again, as the notice says; and its own catalog does not tell."""
    parted.ingest(limits=WHOLE)
    parted.run("SET TimeZone = 'UTC'", LEAVES, "INSERT INTO t VALUES (2000, 0)")
    parted.ingest(limits=SMALL)
    parted.run(*change)
    parted.ingest(limits=SMALL)
    parted.database.pass_horizon()
    backfill(parted, asked(all=True), limits=SMALL)
    parted.read_chunks(limits=SMALL)
    parted.run(COMES_BACK)
    finish(parted)
    same(parted)


def test_a_partition_that_goes_on_by_itself_is_not_away(parted: Tide) -> None:
    """It is new to the table, and is not read whole again where lines of before are outdated."""
    parted.run(
        "CREATE TABLE t2 (LIKE t)", "INSERT INTO t2 SELECT n, 2, repeat('x', 200) FROM generate_series(2001, 3000) n"
    )
    parted.database.pass_horizon()
    parted.ingest(limits=WHOLE)
    with parted.database.session() as session:
        parted.database.hold_horizon(session)
        parted.run("INSERT INTO t VALUES (4000, 0)")
        parted.ingest(limits=SMALL)
        parted.run("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)")
        assert parted.ingest(limits=SMALL).outcome == "planned"
        assert any(past.here for past in parted.state().past.values())
        parted.read_chunks(limits=SMALL)
        parted.run("ALTER TYPE mood RENAME VALUE 'ill' TO 'sick'", "INSERT INTO t VALUES (4001, 2)")
        assert parted.ingest(limits=SMALL).rows == 1
    assert sum(row["part"] == 2 for row in parted.rows()) == 1001
