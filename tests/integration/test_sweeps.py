"""Sweeps: what bounds in time hide from increments is read later, once, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from tests.faults import COMMIT, PUBLISH, KilledError, Process
from tests.integration.test_backfills import asked, backfill
from tests.integration.test_time_bounds import BOUNDED, set_bound
from tests.tide import LIMITS, Tide
from tidelog.events import Event
from tidelog.history import History
from tidelog.limits import Limits
from tidelog.messages import Message, ReadChunk
from tidelog.plans import ChunksDropped, Planned
from tidelog.readings import undelta
from tidelog.runs import Run
from tidelog.sweeping import Sweeping
from tidelog.tables import TableName

OLD = 2000
NAME = TableName("public", "t")
TIGHT = replace(BOUNDED, look_back=0.2)
"""The bound follows at once."""
SMALL = replace(BOUNDED, chunk_bytes=4 * 8192)


@pytest.fixture
def bounded(tide: Tide) -> Tide:
    """A table that is read through its timestamps, in the lake."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, created_at timestamptz, updated_at timestamptz)",
        f"INSERT INTO t SELECT n, 0, now() - interval '2 days', now() - interval '1 day' "
        f"FROM generate_series(1, {OLD}) n",
        f"INSERT INTO t VALUES ({OLD + 1}, 0, now(), now())",
        "CREATE INDEX ON t (created_at)",
        "CREATE INDEX ON t (updated_at)",
        "VACUUM ANALYZE t",
    )
    tide.ingest(limits=BOUNDED)
    set_bound(tide)
    sweep(tide)
    return tide


def sweep(tide: Tide, limits: Limits = BOUNDED) -> int:
    """Sweep the table; return how many rows were written. With other tests' transactions open it could not see all."""
    tide.database.pass_horizon()
    tide.sweep(limits=limits)
    rows = sum(run.rows for run in tide.read_chunks(limits=limits))
    assert not tide.state().plans
    return rows


def whole(tide: Tide) -> None:
    """Hold that the lake has the table, and no row version twice."""
    latest = tide.latest()
    assert {key: latest.get(key) for key in tide.table()} == tide.table()
    lines = tide.lines()
    assert len(lines) == len(set(lines))
    tide.check()


def test_the_hole_of_the_look_back_is_closed(bounded: Tide) -> None:
    """BEGIN, idle for longer than the look-back, then the first write: stamped with a time that is past."""
    with bounded.database.session() as session:
        session.run("BEGIN")
        session.run("SELECT now()")
        for number in range(3):
            time.sleep(0.3)
            bounded.database.pass_horizon()
            bounded.run(f"INSERT INTO t VALUES ({OLD + 10 + number}, 0, clock_timestamp(), clock_timestamp())")
            assert bounded.ingest(limits=TIGHT).rows == 1
        session.run(f"INSERT INTO t VALUES ({OLD + 20}, 0, now(), now())")
        session.run("COMMIT")
    bounded.ingest(limits=TIGHT)
    assert OLD + 20 not in bounded.latest()
    assert sweep(bounded, limits=TIGHT) == 1
    whole(bounded)


def test_whatever_timestamps_do_not_tell_is_found_and_nothing_else(bounded: Tide) -> None:
    """Back-dated rows, updates that leave the timestamps alone, timestamps taken away; what was written stays."""
    bounded.run(
        f"INSERT INTO t VALUES ({OLD + 2}, 0, now() - interval '1 year', NULL)",
        f"INSERT INTO t VALUES ({OLD + 3}, 0, NULL, NULL)",
        "UPDATE t SET v = 1 WHERE id <= 10",
        "UPDATE t SET v = 1, created_at = NULL, updated_at = NULL WHERE id = 11",
        "UPDATE t SET v = 1, updated_at = now() WHERE id = 12",
        "UPDATE t SET updated_at = 'infinity' WHERE id = 13",
        f"INSERT INTO t VALUES ({OLD + 4}, 0, now(), now())",
    )
    assert bounded.ingest(limits=BOUNDED).rows == 3
    assert sweep(bounded) == 13
    whole(bounded)


def test_a_second_sweep_writes_nothing_and_says_up_to_when_all_is_there(bounded: Tide) -> None:
    """As of which transaction, and so as of when: a moment before which none of the later ones had its id."""
    bounded.run("UPDATE t SET v = 1 WHERE id = 1")
    assert sweep(bounded) == 1
    state = bounded.state()
    assert state.swept is not None
    assert state.swept.horizon == state.horizon
    assert state.complete_at == state.swept.at == state.began
    assert sweep(bounded) == 0
    later = bounded.state()
    assert later.swept is not None
    assert later.swept.horizon > state.swept.horizon
    whole(bounded)


def test_a_table_of_which_all_that_is_new_is_hidden_is_swept(bounded: Tide) -> None:
    """Its windows find nothing and leave no event: the sweep looks first up to where they would have."""
    for number in range(2):
        bounded.run(f"UPDATE t SET v = {number} + 1 WHERE id <= 3", f"INSERT INTO t VALUES ({OLD + 2 + number}, 0)")
        assert bounded.ingest(limits=BOUNDED).outcome == "unchanged"
        assert sweep(bounded) == 4
        assert bounded.kinds()[-4:] == ["advanced", "planned", "enqueued", "chunk_read"]
    whole(bounded)


def test_a_column_of_the_same_name_is_not_taken_for_that_of_the_bound(bounded: Tide) -> None:
    """It says something else of the rows that were hidden: all of that time are read again, and the event says so."""
    bounded.run("UPDATE t SET v = 1 WHERE id <= 3", "UPDATE t SET v = 1, updated_at = now() WHERE id = 4")
    assert bounded.ingest(limits=BOUNDED).rows == 1
    bounded.run("ALTER TABLE t DROP updated_at", "ALTER TABLE t ADD updated_at timestamptz NOT NULL DEFAULT now()")
    bounded.run("CREATE INDEX ON t (updated_at)")
    small = replace(BOUNDED, chunk_bytes=8192)  # so that it is not read again at once
    bounded.ingest(limits=small)
    sweep(bounded, limits=small)
    [*_, planned] = [event.what for event in bounded.events() if isinstance(event.what, Planned)]
    assert "updated_at any more: rows of that time come twice" in planned.reason
    assert {key: bounded.latest()[key]["v"] for key in range(1, 5)} == dict.fromkeys(range(1, 5), 1)


def test_hidden_rows_of_an_id_ahead_are_not_forgotten_when_their_partition_has_left(tide: Tide) -> None:
    """The id is below the horizon by then, though no window has looked at the partition since."""
    tide.run(
        "CREATE TABLE t (id int, part int, updated_at timestamptz) PARTITION BY LIST (part)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)",
        "CREATE INDEX ON t (updated_at)",
        "INSERT INTO t VALUES (1, 1, now()), (2, 2, now())",
    )
    tide.ingest(limits=BOUNDED)
    set_bound(tide)
    with tide.database.session() as holder:
        tide.database.hold_horizon(holder)
        tide.run("INSERT INTO t VALUES (3, 1, NULL), (4, 2, now())")
        assert tide.ingest(limits=BOUNDED).rows == 1
        tide.run("ALTER TABLE t DETACH PARTITION t1", "INSERT INTO t VALUES (5, 2, now())")
        tide.ingest(limits=BOUNDED)
        holder.run("ROLLBACK")
    tide.run("INSERT INTO t VALUES (6, 2, now())")
    tide.ingest(limits=BOUNDED)
    sweep(tide)
    tide.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)")
    tide.ingest(limits=BOUNDED)
    sweep(tide)
    assert {row["id"] for row in tide.rows()} == {1, 2, 3, 4, 5, 6}


def test_a_table_that_is_looked_at_row_by_row_needs_no_sweep(tide: Tide) -> None:
    """It is complete with each window."""
    tide.run("CREATE TABLE t (id int, updated_at timestamptz)", "INSERT INTO t VALUES (1, NULL)")
    tide.ingest()
    assert tide.sweep().outcome == "unchanged"
    assert tide.kinds() == ["snapshotted"]
    assert tide.state().complete_at == tide.state().read_at


def test_parameter_store_knows_of_a_sweep_without_chunks(tide: Tide) -> None:
    """One that a person asks for is an event in any case; no worker comes after it to tell of it."""
    tide.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    assert tide.sweep(request="r").outcome == "planned"
    assert tide.kinds() == ["snapshotted", "planned"]
    known = tide.parameters.read(NAME)
    assert known is not None
    assert known.offset == tide.state().offset == 2


def test_rows_of_ids_above_a_held_horizon_are_the_next_sweep_s(bounded: Tide) -> None:
    """Some of a transaction's rows were emitted ahead, the others hidden: they are swept once the horizon is past."""
    with bounded.database.session() as holder:
        bounded.database.hold_horizon(holder)
        bounded.run("UPDATE t SET v = 1, updated_at = CASE WHEN id = 1 THEN now() ELSE updated_at END WHERE id <= 5")
        assert bounded.ingest(limits=BOUNDED).rows == 1
        assert undelta(bounded.state().ahead)
        bounded.run("UPDATE t SET v = 2, updated_at = now() WHERE id = 6")
        assert bounded.ingest(limits=BOUNDED).rows == 1
        run = bounded.sweep(limits=BOUNDED)
        assert sum(run.rows for run in bounded.read_chunks()) == 0
        assert run.outcome in ("planned", "unchanged")
        holder.run("ROLLBACK")
    assert sweep(bounded) == 4
    whole(bounded)


def test_bounds_that_moved_hide_other_rows_each(bounded: Tide) -> None:
    """A row is hidden by the bound of the first window that saw its transaction, whatever later ones looked at."""
    for number in range(4):
        time.sleep(0.3)
        bounded.database.pass_horizon()
        bounded.run(
            f"INSERT INTO t SELECT {OLD} + 10 + {number} * 10 + n, 0, clock_timestamp() - n * interval '150 ms', NULL "
            "FROM generate_series(0, 9) n"
        )
        bounded.ingest(limits=TIGHT)
    seen = len({row["id"] for row in bounded.rows() if OLD + 10 <= row["id"] < OLD + 50})
    assert 4 <= seen < 40
    assert sweep(bounded, limits=TIGHT) == 40 - seen
    whole(bounded)


def test_windows_with_and_without_a_bound_take_turns(bounded: Tide) -> None:
    """An index comes and goes, and a column of the bound with it."""
    for number, change in enumerate(
        ["DROP INDEX t_updated_at_idx", "ALTER TABLE t ALTER updated_at SET NOT NULL", "SELECT"]
    ):
        bounded.run("UPDATE t SET updated_at = now() - interval '3 days' WHERE updated_at IS NULL", change)
        bounded.ingest(limits=BOUNDED)
        bounded.run(
            f"UPDATE t SET v = {number} + 1 WHERE id <= 5",
            f"UPDATE t SET v = {number} + 1, updated_at = now() WHERE id = 6",
            "CREATE INDEX IF NOT EXISTS t_updated_at_idx ON t (updated_at)",
        )
        bounded.ingest(limits=BOUNDED)
        if number == 1:
            bounded.run("DROP INDEX t_created_at_idx")
    sweep(bounded)
    whole(bounded)


def test_a_large_sweep_is_read_in_chunks_while_the_table_goes_on(
    bounded: Tide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Increments, writers, a rewrite of the table: what a sweep wrote never hides a newer version."""
    monkeypatch.setattr("tidelog.sweeping.LOOKING", 1)
    small = replace(BOUNDED, chunk_bytes=3 * 8192)
    bounded.run("UPDATE t SET v = 1 WHERE id % 2 = 0")
    bounded.database.pass_horizon()
    bounded.run("UPDATE t SET v = 1, updated_at = now() WHERE id = 1")
    bounded.ingest(limits=BOUNDED)
    run = bounded.sweep(limits=small)
    assert run.chunks > 4
    messages = bounded.outbox.take()
    bounded.run("UPDATE t SET v = 2, updated_at = now() WHERE id % 4 = 0", "DELETE FROM t WHERE id % 10 = 0")
    bounded.ingest(limits=BOUNDED)
    bounded.read_chunks(messages[:2])
    assert bounded.sweep(limits=small).outcome == "waiting"
    hide = "created_at = NULL, updated_at = NULL"
    bounded.run(f"UPDATE t SET v = 3, {hide} WHERE id % 8 = 0", "UPDATE t SET v = 3, updated_at = now() WHERE id = 1")
    bounded.ingest(limits=BOUNDED)
    bounded.read_chunks(messages[2:])
    latest = bounded.latest()
    assert all(latest[row["id"]]["v"] == row["v"] for row in bounded.table().values() if row["id"] % 8 or row["v"] < 3)
    assert sweep(bounded) > 0
    whole(bounded)


def test_a_sweep_of_a_table_that_is_rewritten_meanwhile_is_complete(bounded: Tide) -> None:
    """VACUUM FULL moves rows to other pages: it is planned again, and the event says that rows may come twice."""
    bounded.run("UPDATE t SET v = 1 WHERE id % 2 = 0")
    bounded.database.pass_horizon()
    bounded.run("UPDATE t SET v = 1, updated_at = now() WHERE id = 1")
    bounded.ingest(limits=BOUNDED)
    bounded.sweep(limits=BOUNDED)
    bounded.run("VACUUM FULL t")
    assert [run.outcome for run in bounded.read_chunks()] == ["replanned", "read"]
    state = bounded.state()
    assert not state.plans
    assert state.swept is not None
    assert state.swept.horizon == state.horizon
    whole(bounded)


def test_an_increment_that_is_committed_while_a_sweep_begins_hides_nothing_for_good(
    bounded: Tide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may pass a transaction that was looked at ahead of the horizon: that one is the next sweep's."""
    bounded.run("SELECT pg_current_xact_id()")  # The horizon is another than that of the last sweep.
    with bounded.database.session() as holder:
        bounded.database.hold_horizon(holder)
        bounded.run(
            f"INSERT INTO t VALUES ({OLD + 2}, 0, now() - interval '1 year', NULL), ({OLD + 3}, 0, now(), now())"
        )
        assert bounded.ingest(limits=BOUNDED).rows == 1

        def another() -> None:
            holder.run("COMMIT")
            bounded.database.pass_horizon()
            bounded.run(f"INSERT INTO t VALUES ({OLD + 4}, 0, now(), now())")
            assert bounded.ingest(limits=BOUNDED).rows == 1

        before_events(monkeypatch, another)
        bounded.sweep(limits=BOUNDED)
        bounded.read_chunks(limits=BOUNDED)
    assert OLD + 2 not in bounded.latest()
    sweep(bounded)
    whole(bounded)


def test_of_two_sweeps_that_begin_at_once_one_is_planned(bounded: Tide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the other one is over before this one has read the events."""
    bounded.run(f"INSERT INTO t VALUES ({OLD + 2}, 0, now() - interval '1 year', NULL), ({OLD + 3}, 0, now(), now())")
    bounded.database.pass_horizon()
    assert bounded.ingest(limits=BOUNDED).rows == 1
    before_events(monkeypatch, lambda: sweep(bounded))
    assert sweep(bounded) == 0
    whole(bounded)


def before_events(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something between the first look at a state and that at the events before it."""
    real, acts = History.events, [act]

    def events(history: History, table: TableName, after: int = 0) -> Iterator[Event]:
        if acts:
            acts.pop()()
        return real(history, table, after)

    monkeypatch.setattr(History, "events", events)


def test_what_a_cancelled_sweep_left_is_read_by_the_next(bounded: Tide) -> None:
    """The table does not count as complete."""
    bounded.run("UPDATE t SET v = 1 WHERE id % 2 = 0")
    bounded.database.pass_horizon()
    bounded.run("UPDATE t SET v = 1, updated_at = now() WHERE id = 1")
    bounded.ingest(limits=BOUNDED)
    before = bounded.state().swept
    bounded.sweep(limits=BOUNDED)
    bounded.outbox.take()
    state = bounded.state()
    [plan] = state.plans
    cancelled = ChunksDropped(plan.number, ((1, plan.chunks),), "it was cancelled", unread=True)
    bounded.ledger.append(NAME, state, cancelled, finished=state.offset)
    assert bounded.state().swept == before
    assert sweep(bounded) == OLD // 2
    whole(bounded)


def test_a_table_lacks_what_was_cancelled_until_all_is_read_again(tide: Tide) -> None:
    """A sweep is not enough, nor is a backfill of some dates: nobody knows any more which rows it was."""
    tide.run("CREATE TABLE t (id int, created_at timestamptz)")
    tide.run("INSERT INTO t SELECT n, now() FROM generate_series(1, 2000) n")
    tide.database.pass_horizon()
    run = tide.ingest(limits=replace(LIMITS, chunk_bytes=2 * 8192))
    assert tide.state().lacks == "under way"
    tide.read_chunks(tide.outbox.take()[:1])
    cancelled = ChunksDropped(run.plan, ((1, run.chunks),), "it was cancelled", unread=True)
    tide.ledger.append(NAME, tide.state(), cancelled, finished=tide.state().offset)
    assert (tide.state().lacks, tide.state().complete_at) == ("cancelled", None)
    tide.run("INSERT INTO t VALUES (3000, now())")
    tide.ingest()
    tide.sweep()
    backfill(tide, asked(**{"from": "2020-01-01", "to": "2021-01-01"}))
    tide.read_chunks()
    assert tide.state().lacks == "cancelled"
    backfill(tide, asked(all=True))
    tide.read_chunks()
    assert tide.state().lacks is None
    assert set(tide.values("id")) == {*range(1, 2001), 3000}


def test_without_the_column_of_its_bound_all_rows_of_that_time_come_again(bounded: Tide) -> None:
    """Nobody can tell any more which were hidden; the event says so."""
    bounded.run("UPDATE t SET v = 1 WHERE id <= 3", "UPDATE t SET v = 1, updated_at = now() WHERE id = 4")
    assert bounded.ingest(limits=BOUNDED).rows == 1
    bounded.run("ALTER TABLE t DROP updated_at")
    bounded.database.pass_horizon()
    bounded.run("INSERT INTO t VALUES (100000, 0, now())")
    bounded.ingest(limits=BOUNDED)
    bounded.sweep(limits=BOUNDED)
    assert sum(run.rows for run in bounded.read_chunks()) >= 4
    [*_, planned] = [event.what for event in bounded.events() if isinstance(event.what, Planned)]
    assert "There is no timestamp column updated_at any more: rows of that time come twice" in planned.reason
    assert {row["v"] for row in bounded.rows() if row["id"] <= 4} == {0, 1}


def test_a_partition_that_left_with_hidden_rows_is_read_whole_when_it_comes_back(tide: Tide) -> None:
    """Its hidden rows could not be swept meanwhile; the event of the sweep names it."""
    tide.run(
        "CREATE TABLE t (id int, part int, updated_at timestamptz) PARTITION BY LIST (part)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)",
        "CREATE INDEX ON t (updated_at)",
        "INSERT INTO t VALUES (1, 1, now()), (2, 2, now())",
    )
    tide.ingest(limits=BOUNDED)
    set_bound(tide)
    tide.run("INSERT INTO t VALUES (3, 1, NULL), (4, 2, NULL), (5, 2, now())")
    tide.ingest(limits=BOUNDED)
    tide.database.pass_horizon()
    tide.run("ALTER TABLE t DETACH PARTITION t1", "INSERT INTO t VALUES (6, 2, now())")
    tide.ingest(limits=BOUNDED)
    assert tide.sweep(limits=BOUNDED).outcome == "planned"
    tide.read_chunks()
    assert {row["id"] for row in tide.rows()} == {1, 2, 4, 5, 6}
    tide.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)")
    tide.ingest(limits=BOUNDED)
    assert {row["id"] for row in tide.rows()} == {1, 2, 3, 4, 5, 6}


def test_a_chunk_that_is_committed_while_a_sweep_sends_what_is_left_is_published(
    bounded: Tide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep's event says up to where all is published; the chunk's worker has died before it was."""
    sending, chunk, sweeper = Process(), Process(), Process()
    sending.at("after", COMMIT, sending.kill)
    chunk.at("before", PUBLISH, chunk.kill)
    real, chunks = Sweeping._sweep, list[Message]()

    def read_first() -> None:
        with pytest.raises(KilledError):
            bounded.read_chunks(chunks[:1], source=bounded.database.source(), s3=chunk.client(bounded.lake.s3))

    def meanwhile(sweeping: Sweeping, *arguments: Any) -> Run:
        other = {"source": bounded.database.source(), "s3": sending.client(bounded.lake.s3)}
        with pytest.raises(KilledError):  # The plan of a backfill is there, and nobody knows whether it was sent.
            backfill(bounded, asked(all=True), limits=SMALL, **other)
        [plan] = bounded.state().plans
        chunks.extend(
            ReadChunk(version=1, type="backfill", table="public.t", plan=plan.number, chunk=number)
            for number in plan.pending
        )
        sweeper.at("before", COMMIT, read_first)
        return real(sweeping, *arguments)

    monkeypatch.setattr(Sweeping, "_sweep", meanwhile)
    bounded.sweep(request="r", limits=SMALL, s3=sweeper.client(bounded.lake.s3))
    monkeypatch.undo()
    bounded.read_chunks([*chunks, *bounded.outbox.take()], limits=SMALL)
    bounded.ingest(limits=BOUNDED)
    committed = {event.segment.key for event in bounded.events() if event.segment}
    assert committed == set(bounded.lake.keys("data/"))
