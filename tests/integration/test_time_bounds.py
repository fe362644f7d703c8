"""Large tables with indexed timestamps: read through the index, bounded in time, and what that may not lose."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from tests.tide import LIMITS, SECONDS, Tide, wait_for
from tidelog import timestamps
from tidelog.limits import Limits
from tidelog.planning import plan_windows
from tidelog.tables import TableName

BOUNDED = Limits(look_back=3600, time_bound_bytes=1, chunk_bytes=2**30, failover_margin=3600, fresh=450)
OLD = 5000


@pytest.fixture
def large(tide: Tide) -> Tide:
    """A table of old rows with both timestamps indexed, in the lake; and a bound, whatever other tests have open."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, created_at timestamptz DEFAULT now(), updated_at timestamptz)",
        f"INSERT INTO t SELECT n, now() - interval '2 days', now() - interval '1 day' FROM generate_series(1, {OLD}) n",
        f"INSERT INTO t VALUES ({OLD + 1}, now(), now())",
        "CREATE INDEX ON t (created_at)",
        "CREATE INDEX ON t (updated_at DESC, id)",
        "VACUUM ANALYZE t",
    )
    assert tide.ingest(limits=BOUNDED).rows == OLD + 1
    set_bound(tide)
    return tide


def set_bound(tide: Tide) -> None:
    """Have a bound in time: there is none while it is not known since when other tests' transactions are running."""
    while tide.state().bound is None:
        tide.database.pass_horizon()
        tide.run("UPDATE t SET updated_at = now() WHERE id = (SELECT max(id) FROM t)")
        assert tide.ingest(limits=BOUNDED).rows == 1


def test_a_first_run_reads_everything_and_sets_the_bound(large: Tide) -> None:
    """The look-back before the watermark, or before those ids were given out; both as the database writes them."""
    state = large.state()
    latest = large.database.one("SELECT to_json(max(updated_at))#>>'{}' FROM t")
    assert state.timestamp == latest
    assert state.began is not None
    assert state.bound == timestamps.before(min(latest, state.began, key=timestamps.order), 3600)
    reading = large.events()[0].reading
    assert reading is not None
    assert (reading.bound, reading.leaves[0].bounded) == (None, False)


def whole_reads(tide: Tide) -> int:
    """Return how often the table was read without an index so far."""
    # The counts of a connection are complete once it has ended.
    tide.source.close()
    open_yet = "FROM pg_stat_activity WHERE application_name = 'tidelog' AND datname = current_database()"
    wait_for(lambda: tide.database.one(f"SELECT count(*) {open_yet}") == 0)
    tide.run("SELECT pg_stat_force_next_flush()")
    return int(tide.database.one("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 't'"))


def test_later_runs_use_the_index(large: Tide) -> None:
    """Not one of them looks at every row."""
    before = whole_reads(large)
    large.run(f"INSERT INTO t VALUES ({OLD + 2}, now(), now())")
    assert large.ingest(limits=BOUNDED).rows == 1
    assert large.ingest(limits=BOUNDED).rows == 0
    assert whole_reads(large) == before > 0
    reading = large.events()[-1].reading
    assert reading is not None
    assert reading.strategy.startswith("timestamp: created_at and updated_at lead an index")
    assert (reading.columns, reading.leaves[0].bounded) == (("created_at", "updated_at"), True)


def test_each_of_the_columns_finds_a_row(large: Tide) -> None:
    """A row updated now and created long ago, one created now and never updated, one with a future date."""
    large.run(
        "UPDATE t SET updated_at = now() WHERE id = 1",
        "UPDATE t SET created_at = now(), updated_at = NULL WHERE id = 2",
        "UPDATE t SET updated_at = 'infinity' WHERE id = 3",
        "UPDATE t SET created_at = NULL, updated_at = now() + interval '1 year' WHERE id = 4",
    )
    assert large.ingest(limits=BOUNDED).rows == 4
    assert large.state().timestamp == "infinity"
    large.run("UPDATE t SET updated_at = now() WHERE id = 5")
    assert large.ingest(limits=BOUNDED).rows == 1


def test_what_the_bound_hides_is_left_to_a_sweep(large: Tide) -> None:
    """Back-dated rows and rows without a timestamp; the event says which bound it had, so a sweep can tell them."""
    large.run(
        "UPDATE t SET updated_at = now() - interval '7 hours' WHERE id = 1",
        "UPDATE t SET created_at = NULL, updated_at = NULL WHERE id = 2",
        "UPDATE t SET updated_at = now() WHERE id = 3",
    )
    assert large.ingest(limits=BOUNDED).rows == 1
    reading = large.events()[-1].reading
    assert reading is not None
    missed = large.database.column(
        f"SELECT id FROM t WHERE xmin::text::bigint >= {reading.leaves[0].start} AND "
        f"(created_at >= '{reading.bound}' OR updated_at >= '{reading.bound}') IS NOT TRUE AND id <= 3 ORDER BY id"
    )
    assert missed == [1, 2]


def test_the_bound_is_inclusive(large: Tide) -> None:
    """A row exactly at it is read, one a microsecond before it is not."""
    bound = large.state().bound
    large.run(
        f"UPDATE t SET updated_at = '{bound}' WHERE id = 1",
        f"UPDATE t SET updated_at = timestamptz '{bound}' - interval '1 microsecond' WHERE id = 2",
    )
    assert large.ingest(limits=BOUNDED).rows == 1
    assert large.rows()[-1]["id"] == 1


def test_a_late_commit_within_the_look_back_is_read(large: Tide) -> None:
    """The hole of every watermark: stamped at its start, visible after others' later stamps were ingested."""
    with large.database.session() as late:
        late.run(f"BEGIN; INSERT INTO t VALUES ({OLD + 10}, now(), now())")
        large.run(f"INSERT INTO t VALUES ({OLD + 11}, clock_timestamp(), clock_timestamp())")
        assert large.ingest(limits=BOUNDED).rows == 1
        late.run("COMMIT")
    assert large.ingest(limits=BOUNDED).rows == 1
    assert large.rows()[-1]["id"] == OLD + 10


def test_a_transaction_open_for_longer_than_the_look_back_is_read(large: Tide) -> None:
    """Others go on and move the watermark: the bound stays before the time at which the oldest one got its id."""
    limits = replace(BOUNDED, look_back=0.2)
    with large.database.session() as late:
        late.run(f"BEGIN; INSERT INTO t VALUES ({OLD + 10}, now(), now())")
        for number in range(3):
            time.sleep(0.3)
            large.run(f"INSERT INTO t VALUES ({OLD + 20 + number}, clock_timestamp(), clock_timestamp())")
            assert large.ingest(limits=limits).rows == 1
        late.run("COMMIT")
    assert large.ingest(limits=limits).rows == 1
    assert large.rows()[-1]["id"] == OLD + 10
    # Once it has ended the bound follows again.
    for number in range(2):
        time.sleep(0.3)
        large.database.pass_horizon()
        large.run(f"INSERT INTO t VALUES ({OLD + 30 + number}, clock_timestamp(), clock_timestamp())")
        assert large.ingest(limits=limits).rows == 1
    bound = large.state().bound
    assert bound is not None
    assert timestamps.order(bound) > timestamps.order(large.latest()[OLD + 22]["updated_at"])


def test_a_bound_never_goes_back_in_the_ledger(large: Tide) -> None:
    """Though the table's latest timestamp does."""
    large.run("DELETE FROM t WHERE updated_at > now() - interval '1 hour'")
    large.run(f"INSERT INTO t VALUES ({OLD + 5}, now() - interval '30 minutes', NULL)")
    before = large.state().bound
    assert large.ingest(limits=BOUNDED).rows == 1
    assert large.state().bound == before


def test_a_table_that_grew_over_the_limit_is_bounded_from_then_on(tide: Tide) -> None:
    """And one that lost its index is read whole again by transaction ids: nothing is read twice either way."""
    tide.run(
        "CREATE TABLE t (id int, updated_at timestamptz DEFAULT now())",
        "CREATE INDEX i ON t (updated_at)",
        "INSERT INTO t VALUES (1)",
    )
    for number, (limits, change, name) in enumerate(
        [
            (LIMITS, None, "xmin"),
            (BOUNDED, None, "timestamp"),
            (BOUNDED, "DROP INDEX i", "xmin"),
            (BOUNDED, "CREATE INDEX i ON t (updated_at)", "timestamp"),
        ],
        2,
    ):
        if change:
            tide.run(change)
        tide.run(f"INSERT INTO t VALUES ({number})")
        run = tide.ingest(limits=limits)
        assert run.strategy.split(":")[0] == name
    assert tide.values("id") == [1, 2, 3, 4, 5]


def test_the_bound_after_a_large_read_is_before_what_clocks_of_another_zone_have_written(tide: Tide) -> None:
    """Timestamps without a zone, in local time, as an application eight hours behind UTC writes them."""
    local = "now() AT TIME ZONE 'UTC' - interval '8 hours'"
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, text text, updated_at timestamp NOT NULL)",
        f"INSERT INTO t SELECT n, repeat('x', 200), {local} - n * interval '1 min' FROM generate_series(1, 1000) n",
        "CREATE INDEX ON t (updated_at)",
        "VACUUM ANALYZE t",
    )
    limits = replace(BOUNDED, chunk_bytes=2**15)
    assert tide.ingest(limits=limits).outcome == "planned"
    tide.read_chunks(limits=limits)
    assert tide.state().bound is not None
    tide.run(f"INSERT INTO t VALUES (2000, 'x', {local})")
    assert tide.ingest(limits=limits).rows == 1


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_bounds_work_on_every_type_of_timestamp(tide: Tide, kind: str) -> None:
    """Without a zone they count as UTC; a date is the start of its day."""
    tide.run(
        f"CREATE TABLE t (id int, updated_at {kind})",
        "CREATE INDEX ON t (updated_at)",
        "INSERT INTO t VALUES (1, now() AT TIME ZONE 'UTC')",
    )
    tide.ingest(limits=BOUNDED)
    set_bound(tide)
    before = len(tide.rows())
    for number in range(2, 4):
        tide.run(
            f"INSERT INTO t VALUES ({number}, now() AT TIME ZONE 'UTC'), ({number + 10}, now() - interval '9 days')"
        )
        assert tide.ingest(limits=BOUNDED).rows == 1
    assert sorted(row["id"] for row in tide.rows()[before:]) == [2, 3]


def test_timestamps_sort_as_the_server_sorts_them(tide: Tide) -> None:
    """Over all that PostgreSQL can store: BC, five-digit years, infinities, zones."""
    draw = random.Random(7)  # noqa: S311 - it has to be the same each time
    seconds = [draw.randrange(-210_866_803_200, 9_224_318_016_000) for _ in range(200)] + [
        draw.randrange(-62_200_000_000, -62_100_000_000) for _ in range(100)
    ]
    tide.run(
        "CREATE TABLE t (x timestamptz)",
        *(
            f"INSERT INTO t VALUES (to_timestamp({second}) + interval '{draw.randrange(10**6)} us')"
            for second in seconds
        ),
        "INSERT INTO t VALUES ('infinity'), ('-infinity')",
    )
    for zone in ("UTC", "America/St_Johns", "Asia/Kathmandu"):
        with tide.database.session() as session:
            session.run(f"SET TimeZone = '{zone}'")
            texts = [text for (text,) in session.run("SELECT to_json(x)#>>'{}' FROM t ORDER BY x")]
        assert sorted(texts, key=timestamps.order) == texts
        assert timestamps.latest(texts) == "infinity"


def test_a_plan_is_the_same_however_often_it_is_made(large: Tide) -> None:
    """Planning reads, and writes nothing."""
    large.run(f"INSERT INTO t VALUES ({OLD + 2}, now(), now())")
    with large.source.open(TableName("public", "t"), seconds=SECONDS) as opened:
        plans = [plan_windows(opened, large.state(), BOUNDED) for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].rows == 1
    assert datetime.now(UTC) - datetime.fromisoformat(plans[0].reading.read_at) < timedelta(minutes=1)
