"""Large reads: planned once, read in chunks by whoever takes them, each committed once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from math import ceil

import pytest
from msgspec.structs import replace

from tests.faults import COMMIT, PUBLISH, KilledError, Process, refusal
from tests.tide import LIMITS, SECONDS, Tide, wait_for
from tidelog.chunking import Chunking
from tidelog.errors import DatabaseChanged, StoreUnreachable
from tidelog.events import SchemaChanged
from tidelog.letters import Received
from tidelog.messages import Message, ReadChunk, decode
from tidelog.plans import ChunkRead, ChunksDropped, ChunkSplit, Planned
from tidelog.tables import TableName

PAGE = 8192
SMALL = replace(LIMITS, chunk_bytes=4 * PAGE)
NAME = TableName("public", "t")


@pytest.fixture
def large(tide: Tide) -> Tide:
    """A table of some chunks."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, text text, created_at timestamptz, updated_at timestamptz)",
        "INSERT INTO t SELECT n, 0, repeat('x', 200), now() - n * interval '1 min', now() "
        "FROM generate_series(1, 1000) n",
    )
    tide.database.pass_horizon()  # else its rows are not the plan's, but the next window's
    return tide


def plan(tide: Tide, table: str = "public.t") -> list[Message]:
    """Run a table whose window is too much for one run; return the messages of its chunks."""
    run = tide.ingest(table, limits=SMALL)
    assert run.outcome == "planned"
    messages = tide.outbox.take()
    assert len(messages) == run.chunks > 3
    return messages


def finish(tide: Tide, table: str = "public.t") -> None:
    """Read what is left, and what is new."""
    tide.read_chunks(limits=SMALL)
    tide.ingest(table, limits=replace(LIMITS, chunk_bytes=2**40))
    assert not tide.state(table).plans


def whole(tide: Tide, table: str = "public.t") -> None:
    """Hold the lake against the table."""
    latest = tide.latest(table)
    assert {key: latest.get(key) for key in tide.table(table)} == tide.table(table)


def test_a_large_table_comes_in_by_chunks(large: Tide) -> None:
    """Every row once, whatever the order in which chunks are read; the ledger says how far it is."""
    messages = plan(large)
    random.Random(1).shuffle(messages)  # noqa: S311 - the same each time
    for done, message in enumerate(messages):
        [progress] = large.state().plans
        assert (progress.done_chunks, progress.chunks) == (done, len(messages))
        assert 0 <= progress.done_bytes <= progress.bytes
        [run] = large.read_chunks([message])
        assert run.outcome == "read"
    assert large.state().plans == ()
    assert large.values("id") == list(range(1, 1001))
    assert large.kinds()[:2] == ["planned", "enqueued"]
    assert large.state().sequential_id == 0
    assert large.ingest(limits=SMALL).outcome == "unchanged"


def test_increments_go_on_at_once_and_what_they_hold_is_newer(large: Tide) -> None:
    """A chunk that is read or committed after an increment never hides its versions."""
    messages = plan(large)
    large.run("UPDATE t SET v = 1 WHERE id % 3 = 0", "DELETE FROM t WHERE id % 7 = 0", "INSERT INTO t VALUES (2000, 1)")
    assert large.ingest().outcome == "ingested"
    large.read_chunks(messages[:2])
    large.run("UPDATE t SET v = 2 WHERE id % 5 = 0")
    assert large.ingest().sequential_id == 2
    large.read_chunks(messages[2:])
    finish(large)
    whole(large)
    seen = [(row["id"], row["v"]) for row in large.rows()]
    assert len(seen) == len(set(seen))


def test_a_chunk_is_read_once_however_often_it_is_asked_for(large: Tide) -> None:
    """By message after message, and by many at a time."""
    messages = plan(large)

    def read(message: Message) -> str:
        assert isinstance(message, ReadChunk)
        parts = large.parts(limits=SMALL, source=large.database.source())
        return Chunking(parts).read(NAME, message.plan, message.chunk, seconds=SECONDS).outcome

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(read, [*messages[:3] * 4, *messages]))
    assert outcomes.count("read") == len(messages)
    assert set(outcomes) == {"read", "covered"}
    finish(large)
    assert large.values("id") == list(range(1, 1001))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [COMMIT, PUBLISH])
def test_a_worker_may_be_killed_at_any_step_of_a_chunk(large: Tide, step: object, when: str) -> None:
    """The message comes again; nothing is lost, and nothing is there twice."""
    messages = plan(large)
    for message in messages:
        process = Process()
        process.at(when, step, process.kill)  # type: ignore[arg-type] # a Step
        with pytest.raises(KilledError):
            large.read_chunks([message], s3=process.client(large.lake.s3))
        assert large.read_chunks([message])[0].outcome in ("read", "covered")
    finish(large)
    large.lake.expire_uploads()
    assert large.values("id") == list(range(1, 1001))


def test_a_crash_between_the_plan_and_its_messages_is_mended_by_the_next_run(large: Tide) -> None:
    """Whether that is the same message again or the next tick's."""
    process = Process()
    process.at("after", COMMIT, process.kill)
    with pytest.raises(KilledError):
        large.ingest(limits=SMALL, s3=process.client(large.lake.s3))
    assert large.outbox.take() == []
    assert large.ingest(limits=SMALL).outcome == "unchanged"
    assert large.kinds() == ["planned", "enqueued"]
    large.read_chunks()
    assert large.values("id") == list(range(1, 1001))


def test_an_upload_that_is_gone_is_made_again_from_the_same_pages(large: Tide) -> None:
    """Also where the relation was rewritten meanwhile: then of all its pages, rather than of none."""
    messages = plan(large)
    for message in messages[:2]:
        process = Process()
        process.at("before", PUBLISH, process.kill)
        with pytest.raises(KilledError):
            large.read_chunks([message], s3=process.client(large.lake.s3))
        large.lake.expire_uploads()
    large.read_chunks(messages)
    finish(large)
    assert large.values("id") == list(range(1, 1001))


def test_a_rewritten_relation_is_planned_again(large: Tide) -> None:
    """VACUUM FULL moves rows and keeps their ids: those that were read come twice, and an event says so."""
    messages = plan(large)
    large.read_chunks(messages[:2])
    large.run("DELETE FROM t WHERE id % 2 = 0", "VACUUM FULL t")
    outcomes = [run.outcome for run in large.read_chunks(messages[2:])]
    assert outcomes[0] == "replanned"
    assert "covered" in outcomes
    [_, again] = [event.what for event in large.events() if isinstance(event.what, Planned)]
    assert "was rewritten" in again.reason
    finish(large)
    whole(large)


def test_of_a_rewritten_relation_what_no_window_has_passed_is_left_to_the_next(large: Tide) -> None:
    """So it comes once: by a chunk it would come again."""
    messages = plan(large)
    large.read_chunks(messages[:2])
    large.run("INSERT INTO t (id) VALUES (2000)", "VACUUM FULL t")
    large.database.pass_horizon()
    assert large.read_chunks(messages[2:])[0].outcome == "replanned"
    finish(large)
    assert large.values("id").count(2000) == 1
    whole(large)


def test_a_relation_that_is_rewritten_under_an_increment_is_cut_by_its_size(large: Tide) -> None:
    """All of it is read then, which is more than was to be."""
    messages = plan(large)
    large.read_chunks(messages)
    finish(large)
    large.run("UPDATE t SET v = 1 WHERE id <= 600", "ANALYZE t")
    large.database.pass_horizon()
    few = plan(large)
    large.run("VACUUM FULL t")
    assert large.read_chunks(few[:1], limits=SMALL)[0].outcome == "replanned"
    [again] = [event.what for event in large.events() if isinstance(event.what, Planned) and event.what.instead]
    size = large.database.one("SELECT pg_relation_size('t')")
    assert again.chunks == ceil(size / SMALL.chunk_bytes) > len(few)
    finish(large)
    whole(large)


NO_KEY = "ALTER TABLE t DROP CONSTRAINT t_pkey"
COPIED = ("CREATE TABLE copy (LIKE t)", "INSERT INTO copy TABLE t")
"""What pg_repack begins with; it goes on to write to the copy what others write to the table."""
EXCHANGED = (
    "SET allow_system_table_mods = on",
    """
    DO $$ DECLARE ours oid; theirs oid; BEGIN
      LOCK TABLE t, copy IN ACCESS EXCLUSIVE MODE;
      ours := pg_relation_filenode('t'); theirs := pg_relation_filenode('copy');
      UPDATE pg_class SET relfilenode = theirs WHERE oid = 't'::regclass;
      UPDATE pg_class SET relfilenode = ours WHERE oid = 'copy'::regclass;
    END $$
    """,
)
"""And what it ends with."""
INSERTED = ("INSERT INTO t (id) VALUES (2000)", "INSERT INTO copy (id) VALUES (2000)")
WHOLE = replace(LIMITS, chunk_bytes=2**40)


@pytest.mark.parametrize("held", [False, True])
def test_a_relation_that_pg_repack_has_copied_is_read_whole(large: Tide, *, held: bool) -> None:
    """Its rows have an id that increments have passed when the files are exchanged, or not yet."""
    large.run(NO_KEY)
    messages = plan(large)
    large.read_chunks(messages[:2])
    with large.database.session() as session:
        if held:
            large.database.hold_horizon(session)
        large.run(*COPIED)
        if not held:
            large.database.pass_horizon()
        large.run(*INSERTED)
        assert large.ingest(limits=WHOLE).rows == 1
        large.run(*EXCHANGED)
        assert large.read_chunks(messages[2:])[0].outcome == "replanned"
        finish(large)
        whole(large)
        assert large.verify().is_right


def test_an_increment_of_the_old_file_passes_nothing_that_was_copied(large: Tide) -> None:
    """One that has looked at it before the files were exchanged, and is to be committed when a chunk has found out."""
    large.run(NO_KEY)
    messages = plan(large)
    large.run(*COPIED)
    large.database.pass_horizon()
    large.run(*INSERTED)

    def exchange() -> None:
        large.run(*EXCHANGED)
        assert large.read_chunks(messages)[0].outcome == "replanned"

    process = Process()
    process.at("before", COMMIT, exchange)
    assert large.ingest(limits=WHOLE, s3=process.client(large.lake.s3)).outcome == "covered"
    finish(large)
    whole(large)


def test_an_emptied_relation_ends_its_chunks(large: Tide) -> None:
    """TRUNCATE, and other rows since: those come with the next increment."""
    messages = plan(large)
    large.run("TRUNCATE t")
    assert large.read_chunks(messages)[0].outcome == "dropped"
    [dropped] = [event.what for event in large.events() if isinstance(event.what, ChunksDropped)]
    assert dropped.reason == "public.t was emptied"
    large.run("INSERT INTO t (id) VALUES (1)")
    finish(large)
    assert large.values("id") == [1]


@pytest.mark.parametrize("way", ["excluded", "renamed"])
def test_what_was_taken_back_before_a_run_noted_it_is_made_good_in_the_lines_of_chunks(large: Tide, way: str) -> None:
    """They were read by the columns as they were for a moment; nothing differs from before when the next run looks."""
    large.run("CREATE TYPE mood AS ENUM ('well', 'ill')", "ALTER TABLE t ADD mood mood DEFAULT 'ill'")
    large.database.pass_horizon()
    messages = plan(large)
    if way == "excluded":
        large.configure('[tables."public.t"]\nexclude_columns = ["text"]\n')
    else:
        large.run("ALTER TYPE mood RENAME VALUE 'ill' TO 'sick'")
    large.read_chunks(messages[:2])
    if way == "excluded":
        large.configure("# as before\n")
    else:
        large.run("ALTER TYPE mood RENAME VALUE 'sick' TO 'ill'")
    large.read_chunks(messages[2:])
    assert large.ingest(limits=WHOLE).rows == 1000
    [changed] = [event.what for event in large.events() if isinstance(event.what, SchemaChanged)]
    assert changed.again
    assert (
        changed.outdated
        == {
            "excluded": "column text is no longer excluded",
            "renamed": "labels of column mood were renamed",
        }[way]
    )
    assert large.latest() == large.table()
    assert large.ingest(limits=WHOLE).outcome == "unchanged"


def test_two_changes_that_chunks_have_seen_before_a_run_are_both_made_good(large: Tide) -> None:
    """A label that was another one for a moment, and a column since: the last of them is what the next run sees."""
    large.run("CREATE TYPE mood AS ENUM ('well', 'ill')", "ALTER TABLE t ADD mood mood DEFAULT 'ill'")
    large.database.pass_horizon()
    messages = plan(large)
    large.run("ALTER TYPE mood RENAME VALUE 'ill' TO 'sick'")
    large.read_chunks(messages[:1])
    large.run("ALTER TYPE mood RENAME VALUE 'sick' TO 'ill'", "ALTER TABLE t ADD z int")
    large.read_chunks(messages[1:])
    large.ingest(limits=WHOLE)
    assert large.latest() == large.table()
    assert not large.state().others


def test_a_dropped_table_ends_its_plan(large: Tide) -> None:
    """One of the same name that is created since starts anew."""
    messages = plan(large)
    large.run("DROP TABLE t")
    assert [run.outcome for run in large.read_chunks(messages)] == ["dropped"] + ["covered"] * (len(messages) - 1)
    assert large.events()[-1].what.reason == "the table was dropped"  # type: ignore[union-attr] # it has one
    large.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    finish(large)
    assert large.values("id") == [1]


def test_a_table_created_anew_ends_its_plan_with_a_new_timeline(large: Tide) -> None:
    """The chunk is tried again until the next run has begun it."""
    messages = plan(large)
    large.run("DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with pytest.raises(DatabaseChanged, match="created anew"):
        large.read_chunks(messages[:1])
    assert large.ingest(limits=SMALL).outcome == "snapshotted"
    assert {run.outcome for run in large.read_chunks(messages)} == {"covered"}


def test_a_column_that_is_gone_ends_the_backfill_that_is_about_it(large: Tide) -> None:
    """The rows are still there: it can be asked for again, by the new name."""
    large.ingest()
    wanted = decode(
        '{"version":1,"type":"backfill","table":"public.t","from":"2020-01-01","to":"2040-01-01","step":"10mo"}'
    )
    message = Received("m", "r", "", "backfill.fifo", "g", 1, "2026-11-23T12:00:00+00:00")
    large.jobs().do(wanted, message, seconds=SECONDS)
    large.run("ALTER TABLE t RENAME created_at TO inserted_at")
    outcomes = [run.outcome for run in large.read_chunks()]
    assert outcomes[:2] == ["dropped", "covered"]
    [dropped] = [event.what for event in large.events() if isinstance(event.what, ChunksDropped)]
    assert dropped.reason == "it has no timestamp column created_at any more"
    assert not large.state().plans


def test_a_backfill_of_a_table_without_partitions_finds_nothing(tide: Tide) -> None:
    """It had one when it was ingested."""
    tide.run("CREATE TABLE t (id int, created_at timestamptz) PARTITION BY LIST (id)")
    tide.run("CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)", "INSERT INTO t VALUES (1, now())")
    tide.ingest()
    tide.run("ALTER TABLE t DETACH PARTITION t1")
    wanted = decode('{"version":1,"type":"backfill","table":"public.t","from":"2020-01-01","to":"2040-01-01"}')
    message = Received("m", "r", "", "backfill.fifo", "g", 1, "2026-11-23T12:00:00+00:00")
    tide.jobs().do(wanted, message, seconds=SECONDS)
    assert [(run.outcome, run.rows) for run in tide.read_chunks()] == [("read", 0)]
    assert not tide.state().plans


PARTED = (
    "CREATE TABLE t (id int, part int, text text) PARTITION BY LIST (part)",
    *(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES IN ({n})" for n in range(3)),
    "INSERT INTO t SELECT n, n % 3, repeat('x', 200) FROM generate_series(1, 999) n",
)


def test_a_detached_leaf_that_comes_back_is_read_whole(tide: Tide) -> None:
    """Its chunks were dropped, so nobody may take it for read."""
    tide.run(*PARTED)
    tide.database.pass_horizon()
    messages = plan(tide)
    tide.read_chunks(messages[:1])
    tide.run("ALTER TABLE t DETACH PARTITION t2")
    outcomes = [run.outcome for run in tide.read_chunks(messages[1:])]
    assert outcomes.count("dropped") == 1
    [dropped] = [event.what for event in tide.events() if isinstance(event.what, ChunksDropped)]
    assert dropped.reason == "public.t2 is no longer part of the table"
    finish(tide)
    assert tide.values("id") == [n for n in range(1, 1000) if n % 3 != 2]
    tide.run("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)")
    tide.ingest()
    assert tide.values("id") == list(range(1, 1000))


def test_a_leaf_that_leaves_and_comes_back_between_its_chunks_is_read_once(tide: Tide) -> None:
    """A run in between has seen the table without it."""
    tide.run(*PARTED)
    tide.database.pass_horizon()
    messages = plan(tide)
    tide.run("ALTER TABLE t DETACH PARTITION t2", "INSERT INTO t VALUES (1000, 1)")
    assert tide.ingest().rows == 1
    tide.run("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)", "INSERT INTO t VALUES (1001, 2)")
    assert tide.ingest().rows == 1
    tide.read_chunks(messages)
    finish(tide)
    assert tide.values("id") == list(range(1, 1002))


def test_a_large_increment_is_planned_too_and_only_its_rows_are_read(large: Tide) -> None:
    """One plan of increments at a time: what is too much meanwhile waits for it."""
    large.ingest()
    large.run("UPDATE t SET v = 1 WHERE id <= 800")
    large.database.pass_horizon()
    messages = plan(large)
    assert large.state().plans[0].kind == "increment"
    large.run("UPDATE t SET v = 2 WHERE id <= 800")
    large.database.pass_horizon()
    assert large.ingest(limits=SMALL).outcome == "waiting"
    large.read_chunks(messages)
    finish(large)
    whole(large)
    seen = [(row["id"], row["v"]) for row in large.rows()]
    assert len(seen) == len(set(seen))


def test_rows_above_a_held_horizon_are_not_planned_for(large: Tide) -> None:
    """A position can say of them only that they are an increment's: they are read in one go."""
    large.ingest()
    with large.database.session() as session:
        large.database.hold_horizon(session)
        large.run("UPDATE t SET v = 1")
        assert large.ingest(limits=SMALL).rows == 1000


def test_a_chunk_that_will_not_finish_in_time_leaves_a_rest(large: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is committed; the rest is a chunk of its own, until there is nothing left to cut off."""
    messages = plan(large)
    monkeypatch.setattr("tidelog.opening.OpenTable.left", property(lambda _: 0.0))
    monkeypatch.setattr("tidelog.opening.OpenTable._follow_deadline", lambda _: None)
    first = large.read_chunks(messages[:1])
    assert [run.outcome for run in first] == ["read"] * len(first)
    assert len(first) > 1
    monkeypatch.undo()
    large.read_chunks(messages[1:])
    finish(large)
    assert large.values("id") == list(range(1, 1001))
    rests = [event.what.rest for event in large.events() if isinstance(event.what, ChunkRead) and event.what.rest]
    assert [rest.depth for rest in rests] == list(range(1, len(rests) + 1))


def test_a_chunk_of_which_nothing_can_be_read_in_time_is_halved(large: Tide) -> None:
    """Down to a page, which has to fail; and messages lead to messages only so often before a tick sends them."""
    messages = plan(large)
    assert isinstance(messages[0], ReadChunk)
    chunking = Chunking(large.parts(limits=SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidelog.opening.json_values", lambda _, row: f"pg_sleep(9)::text || {row}.id::text")
        assert chunking.read(NAME, messages[0].plan, messages[0].chunk, seconds=0.3).outcome == "split"
    [split] = [event.what for event in large.events() if isinstance(event.what, ChunkSplit)]
    assert split.halves[0].end == split.halves[1].first
    assert [half.depth for half in split.halves] == [1, 1]
    large.read_chunks(messages[1:])
    finish(large)
    assert large.values("id") == list(range(1, 1001))


def test_messages_that_lead_to_messages_end(large: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next tick sends what was cut off too often; a chain of functions is never longer than eight."""
    messages = plan(large)
    monkeypatch.setattr("tidelog.chunking.DEEPEST", 1)
    monkeypatch.setattr("tidelog.opening.OpenTable.left", property(lambda _: 0.0))
    monkeypatch.setattr("tidelog.opening.OpenTable._follow_deadline", lambda _: None)
    assert len(large.read_chunks(messages[:1])) == 2
    assert not large.state().plans[0].sent
    monkeypatch.undo()
    large.ingest(limits=SMALL)
    assert large.state().plans[0].sent
    finish(large)
    large.read_chunks(messages)
    assert large.values("id") == list(range(1, 1001))


def test_what_a_chunk_left_is_sent_by_whoever_comes_next(large: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker died between the commit and the message."""
    messages = plan(large)
    monkeypatch.setattr("tidelog.opening.OpenTable.left", property(lambda _: 0.0))
    monkeypatch.setattr("tidelog.opening.OpenTable._follow_deadline", lambda _: None)
    process = Process()
    process.at("before", PUBLISH, process.kill)
    with pytest.raises(KilledError):
        large.read_chunks(messages[:1], s3=process.client(large.lake.s3))
    monkeypatch.undo()
    assert [run.outcome for run in large.read_chunks(messages[:1])] == ["covered", "read"]
    large.read_chunks(messages[1:])
    finish(large)
    assert large.values("id") == list(range(1, 1001))


def test_a_refused_commit_leaves_nothing_behind(large: Tide) -> None:
    """It is tried again."""
    messages = plan(large)
    process = Process()
    process.at("before", COMMIT, refusal("InternalError"))
    with pytest.raises(StoreUnreachable):
        large.read_chunks(messages[:1], s3=process.client(large.lake.s3))
    large.lake.expire_uploads()
    large.read_chunks(messages)
    finish(large)
    assert large.values("id") == list(range(1, 1001))


def test_a_bound_after_a_plan_lies_before_what_was_running(large: Tide) -> None:
    """Rows above the horizon are the next window's: with a transaction under way for ever, a day has to do."""
    large.run("CREATE INDEX ON t (created_at)", "CREATE INDEX ON t (updated_at)")
    bounded = replace(SMALL, time_bound_bytes=1)
    with large.database.session() as session, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidelog.ingesting._QUIET_SECONDS", 0.1)
        large.database.hold_horizon(session)
        large.run("INSERT INTO t VALUES (2000, 1, '', now() - interval '2 hours', now() - interval '2 hours')")
        assert large.ingest(limits=bounded).outcome == "planned"
        large.read_chunks(limits=bounded)
        assert large.ingest(limits=bounded).rows == 1
        session.run("ROLLBACK")
    assert large.values("id") == [*range(1, 1001), 2000]


def test_a_chunk_committed_while_messages_are_noted_is_published(large: Tide) -> None:
    """Its worker dies before it can; the run that has noted the messages must not take all for published."""
    killed = Process()
    killed.at("after", COMMIT, killed.kill)
    with pytest.raises(KilledError):
        large.ingest(limits=SMALL, s3=killed.client(large.lake.s3))
    [plan] = large.state().plans
    large.run("UPDATE t SET v = 1 WHERE id = 1")

    def commit_a_chunk() -> None:
        dying = Process()
        dying.at("before", PUBLISH, dying.kill)
        message = ReadChunk(version=1, type="backfill", table="public.t", plan=plan.number, chunk=1)
        with pytest.raises(KilledError):
            large.read_chunks([message], s3=dying.client(large.lake.s3), source=large.database.source())

    process = Process()
    process.at("before", COMMIT, commit_a_chunk)
    assert large.ingest(limits=SMALL, s3=process.client(large.lake.s3)).rows == 1
    large.check()
    finish(large)
    whole(large)


def test_a_chunk_does_not_make_a_table_fresh(large: Tide) -> None:
    """When its increments were read last is what the alarm on stale tables goes by."""
    messages = plan(large)
    before = large.parameters.read(NAME)
    later = datetime.now(UTC) + timedelta(days=1)
    large.now = lambda: later
    large.read_chunks(messages)
    after = large.parameters.read(NAME)
    assert before
    assert after
    assert after.offset > before.offset
    assert after.checked_at == before.checked_at


def test_pieces_that_come_while_messages_are_sent_are_not_taken_for_sent(large: Tide) -> None:
    """The run that sends what is unsent has not seen them; the next one has."""
    killed = Process()
    killed.at("after", COMMIT, killed.kill)
    with pytest.raises(KilledError):
        large.ingest(limits=SMALL, s3=killed.client(large.lake.s3))
    [plan] = large.state().plans

    def leave_a_rest() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tidelog.chunking.DEEPEST", 0)
            patch.setattr("tidelog.opening.OpenTable.left", property(lambda _: 0.0))
            patch.setattr("tidelog.opening.OpenTable._follow_deadline", lambda _: None)
            message = ReadChunk(version=1, type="backfill", table="public.t", plan=plan.number, chunk=1)
            parts = large.parts(limits=SMALL, source=large.database.source())
            assert Chunking(parts).read(NAME, message.plan, message.chunk, seconds=SECONDS).outcome == "read"

    process = Process()
    process.at("before", COMMIT, leave_a_rest)
    large.ingest(limits=SMALL, s3=process.client(large.lake.s3))
    assert not large.state().plans[0].sent
    large.ingest(limits=SMALL)
    assert large.state().plans[0].sent
    finish(large)
    assert large.values("id") == list(range(1, 1001))


def test_a_table_renamed_away_and_back_is_read_whole(large: Tide) -> None:
    """Its plan has ended meanwhile: who it was can't be told from a table that is gone for good."""
    messages = plan(large)
    large.read_chunks(messages[:2])
    large.run("ALTER TABLE t RENAME TO elsewhere")
    assert large.read_chunks(messages[2:3])[0].outcome == "dropped"
    large.run("ALTER TABLE elsewhere RENAME TO t")
    finish(large)
    assert set(large.values("id")) == set(range(1, 1001))


def test_rows_of_an_attached_leaf_that_a_known_transaction_wrote_are_read(tide: Tide) -> None:
    """It wrote to the table too, above a held horizon, so the table's next window leaves it out."""
    tide.run("CREATE TABLE t (id int, part int, text text) PARTITION BY LIST (part)")
    tide.run("CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)", "CREATE TABLE t1 (LIKE t)")
    tide.run("INSERT INTO t VALUES (1, 0)")
    tide.ingest()
    with tide.database.session() as holder, tide.database.session() as writer:
        tide.database.hold_horizon(holder)
        writer.run("BEGIN")
        writer.run("INSERT INTO t VALUES (2, 0)")
        writer.run("INSERT INTO t1 SELECT n, 1, repeat('x', 200) FROM generate_series(3, 1000) n")
        writer.run("COMMIT")
        assert tide.ingest().rows == 1
        tide.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)", "INSERT INTO t VALUES (1001, 0)")
        # Chunks read below the horizon. What lies above is the next window's, for the leaf all of it.
        assert sum(run.rows for run in tide.read_chunks(plan(tide))) == 0
        assert tide.ingest(limits=SMALL).rows == 999
        holder.run("ROLLBACK")
    finish(tide)
    assert tide.values("id") == list(range(1, 1002))


def test_a_large_new_leaf_is_read_though_some_transaction_is_always_older_than_a_tick(tide: Tide) -> None:
    """The table emits new ids above the horizon at each tick, and the horizon moves at each."""
    tide.run("CREATE TABLE t (id int, part int, text text) PARTITION BY LIST (part)")
    tide.run("CREATE TABLE t0 PARTITION OF t FOR VALUES IN (0)", "CREATE TABLE t1 (LIKE t)")
    tide.run(
        "INSERT INTO t1 SELECT n, 1, repeat('x', 200) FROM generate_series(1, 1000) n", "INSERT INTO t VALUES (0, 0)"
    )
    tide.database.pass_horizon()
    tide.ingest()
    with ExitStack() as stack:
        older = stack.enter_context(tide.database.session())
        older.run("BEGIN; SELECT pg_current_xact_id()")
        for tick in range(5):
            tide.run(f"INSERT INTO t VALUES ({1001 + tick}, 0)")
            tide.ingest(limits=SMALL)
            if not tick:
                tide.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)")
            later = stack.enter_context(tide.database.session())
            later.run("BEGIN; SELECT pg_current_xact_id()")
            older.run("COMMIT")
            older = later
    tide.read_chunks(limits=SMALL)
    assert tide.values("id") == list(range(1006))
    finish(tide)


def test_an_attached_leaf_with_rows_of_a_known_transaction_alone_is_read_beside_a_plan(tide: Tide) -> None:
    """All that it has lies above the held horizon: the plan of the others must not take it for read."""
    tide.run("CREATE TABLE t (id int, part int, text text) PARTITION BY LIST (part)")
    tide.run(*(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES IN ({n})" for n in range(2)), "CREATE TABLE t2 (LIKE t)")
    tide.run("INSERT INTO t VALUES (0, 0), (0, 1)")
    tide.ingest()
    with tide.database.session() as large, tide.database.session() as holder:
        large.run("BEGIN")
        large.run("INSERT INTO t SELECT n, 1, repeat('x', 200) FROM generate_series(3, 1000) n")
        holder.run("BEGIN")
        holder.run("SELECT pg_current_xact_id()")
        tide.run("BEGIN; INSERT INTO t VALUES (1, 0); INSERT INTO t2 VALUES (2, 2); COMMIT")
        assert tide.ingest().rows == 1
        [[passed]] = large.run("SELECT pg_current_xact_id()::text::bigint")
        large.run("COMMIT")
        wait_for(lambda: tide.database.one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint") > passed)
        tide.run("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)")
        plan(tide)
        holder.run("ROLLBACK")
    tide.read_chunks(
        [
            ReadChunk(version=1, type="backfill", table="public.t", plan=p.number, chunk=c)
            for p in tide.state().plans
            for c in p.pending
        ]
    )
    finish(tide)
    assert tide.values("id") == [0, *range(1001)]


def test_nothing_is_planned_where_chunks_would_find_nothing(large: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the horizon where it was, all that is new lies above it: one run reads that, however large the table is."""
    large.ingest()
    monkeypatch.setattr("tidelog.planning.LOOKING", 1)
    with large.database.session() as session:
        large.database.hold_horizon(session)
        large.database.run("INSERT INTO t VALUES (2000)")
        large.ingest()
        large.run("INSERT INTO t VALUES (3000)")
        assert large.ingest(limits=SMALL).rows == 1
