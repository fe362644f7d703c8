"""Backfills: rows of a range in time, or all, read again in chunks beside the increments and never in their way."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace
from msgspec.structs import replace as changed

from tests.faults import COMMIT, PUBLISH, KilledError, Process
from tests.tide import LIMITS, SECONDS, Database, Tide
from tidelog import ranges
from tidelog.chunking import Chunking
from tidelog.credentials import Credentials
from tidelog.errors import (
    DatabaseUnreachable,
    InvalidMessage,
    NotIngestible,
    Permanent,
    UnknownColumn,
    UnknownTable,
)
from tidelog.lake import read_segment_key
from tidelog.letters import Received
from tidelog.limits import Limits
from tidelog.messages import Backfill, ReadChunk, read
from tidelog.plans import ChunkRead, ChunkSplit, Planned
from tidelog.quoting import literal
from tidelog.requesting import Requests
from tidelog.runs import Run
from tidelog.selection import Selection
from tidelog.source import Source
from tidelog.state import State
from tidelog.tables import TableName

PAGE = 8192
SMALL = replace(LIMITS, chunk_bytes=8 * PAGE)
RANGE = {"from": "2024-03-01", "to": "2024-03-04T06:00Z"}
"""Three days and a quarter."""
NAME = TableName("public", "t")


def asked(table: str = "public.t", **fields: Any) -> dict[str, Any]:
    """Return a message that asks for a backfill, of `RANGE` unless it says otherwise."""
    chosen = fields if "all" in fields or "from" in fields else RANGE | fields
    return {"version": 1, "type": "backfill", "table": table} | chosen


def backfill(
    tide: Tide,
    wanted: dict[str, Any] | Backfill | None = None,
    *,
    message: str = "a message",
    tries: int = 1,
    **parts: Any,
) -> Run:
    """Work off a message that asks for a backfill."""
    work = wanted if isinstance(wanted, Backfill) else read(wanted or asked())
    first_seen = datetime.now(UTC).isoformat()
    received = Received(message, "receipt", "", "backfill.fifo", work.group, tries, first_seen)
    return tide.jobs(**parts).do(work, received, seconds=SECONDS)


def emitted(tide: Tide, plan: int) -> list[Any]:
    """Return the ids in the segments of a plan, sorted."""
    found = ((key, read_segment_key(key)[1]) for key in tide.lake.keys("data/public.t/"))
    keys = [key for key, position in found if not position.increment and position.number == plan]
    return sorted(json.loads(line)["id"] for key in keys for line in gzip.decompress(tide.lake.body(key)).splitlines())


def plan_of(tide: Tide, run: Run) -> Planned:
    """Return the plan that a run has made."""
    planned = tide.ledger.read(NAME, run.plan).what
    assert isinstance(planned, Planned)
    return planned


def plans(tide: Tide) -> list[Planned]:
    """Return every plan of the ledger."""
    return [event.what for event in tide.events() if isinstance(event.what, Planned)]


def window(tide: Tide) -> State:
    """Return the state but for what a backfill may change."""
    return changed(tide.state(), offset=0, plans=(), wal_position=None, rows=0, bytes=0, digest="")


def whole(tide: Tide) -> None:
    """Hold the lake against the table."""
    latest = tide.latest()
    assert {key: latest.get(key) for key in tide.table()} == tide.table()


FILL = (
    "INSERT INTO t SELECT n, 0, repeat('x', 200), timestamptz '2024-03-01 00:00Z' + n * interval '5 min', "
    "timestamptz '2024-03-01 00:00Z' + n * interval '6 min' FROM generate_series(0, 999) n"
)
"""A thousand rows of some forty pages: most of them in `RANGE`, many with columns in different pieces of it."""
IN_RANGE = range(78 * 12)
INDEXES = ("CREATE INDEX ON t (created_at)", "CREATE INDEX ON t (updated_at)")
COLUMNS = ("created_at", "updated_at")
EVERYTHING = Selection()
WAYS = ["small", "indexed", "unindexed", "all"]


@pytest.fixture
def filled(tide: Tide) -> Tide:
    """A table that was ingested, all of it below the horizon."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, text text, created_at timestamptz, updated_at timestamptz)",
        FILL,
        "ANALYZE t",
    )
    assert tide.ingest().outcome == "snapshotted"
    tide.database.pass_horizon()
    return tide


def prepared(tide: Tide, way: str) -> tuple[dict[str, Any], Limits]:
    """Have the table read in some way; return the message and the limits that lead to it."""
    if way == "indexed":
        tide.run(*INDEXES)
    if way == "all":
        return asked(all=True), SMALL
    return asked(step="1d" if way == "small" else ""), LIMITS if way == "small" else SMALL


def read_halfway(tide: Tide, way: str) -> Run:
    """Plan a backfill in some way, and read some of its chunks; the others wait in the outbox."""
    wanted, limits = prepared(tide, way)
    run = backfill(tide, wanted, limits=limits)
    assert run.outcome == "planned"
    messages = tide.outbox.take()
    assert len(messages) == run.chunks > 2
    tide.read_chunks(messages[:2])
    tide.outbox.messages = messages[2:]
    return run


def texts(rng: random.Random) -> list[tuple[str | None, str | None]]:
    """Return pairs of timestamps: at cuts and beside them, anywhere, at the ends of time, and none at all."""
    start = datetime(2024, 2, 28, tzinfo=UTC)
    cuts = [start + timedelta(hours=6 * number) for number in range(30)]
    near = [cut + timedelta(microseconds=rng.randint(-1, 1)) for cut in cuts for _ in range(4)]
    anywhere = [start + timedelta(microseconds=rng.randrange(8 * 86_400 * 10**6)) for _ in range(120)]
    ends = [None, None, "infinity", "-infinity", "0044-03-15 BC", "20000-01-01"]

    def one() -> str | None:
        text = rng.choice([rng.choice(near).isoformat(), rng.choice(anywhere).isoformat(), rng.choice(ends)])
        return text.replace("+00:00", "") if text else None

    return [(one(), one()) for _ in range(400)]


def random_range(rng: random.Random) -> tuple[str, str]:
    """Return a range that begins and ends at midnight, at a full hour or anywhere."""
    start = datetime(2024, 2, 28, tzinfo=UTC)
    unit = rng.choice([86_400 * 10**6, 3600 * 10**6, 1])
    day = 86_400 * 10**6
    moments = [rng.randrange(2 * day, 4 * day), rng.randrange(4 * day, 6 * day)]
    since, until = (start + timedelta(microseconds=moment // unit * unit) for moment in moments)
    return since.isoformat(), until.isoformat()


@pytest.mark.parametrize(
    ("created", "updated", "partitions"),
    [
        ("timestamptz", "timestamptz", 0),
        ("timestamp", "timestamp", 0),
        ("date", "timestamptz", 0),
        ("timestamp", "date", 3),
    ],
)
def test_a_range_gives_each_row_of_it_once(tide: Tide, created: str, updated: str, partitions: int) -> None:
    """Those with either column in [from, to), as a query says, whichever way they are read and in whatever pieces."""
    rng = random.Random(f"{created} {updated}")  # noqa: S311 - the same each time
    part = "PARTITION BY HASH (id)" if partitions else ""
    pairs = enumerate(texts(rng))
    rows = (", ".join([str(n), *("NULL" if text is None else literal(text) for text in pair)]) for n, pair in pairs)
    tide.run(
        f"CREATE TABLE t (id int, created_at {created}, updated_at {updated}, x text DEFAULT repeat('x', 200)) {part}",
        *(
            f"CREATE TABLE t{n} PARTITION OF t FOR VALUES WITH (MODULUS {partitions}, REMAINDER {n})"
            for n in range(partitions)
        ),
        f"INSERT INTO t VALUES {', '.join(f'({row})' for row in rows)}",
        "ANALYZE t",
        "SET TimeZone = 'UTC'",
    )
    tide.ingest()
    tide.database.pass_horizon()
    before = window(tide)
    ways = [(LIMITS, ""), (LIMITS, "1d"), (LIMITS, "13h"), (SMALL, ""), (SMALL, ""), (SMALL, "1d")]
    for number, (limits, step) in enumerate(ways):
        if number == 4:
            tide.run(*INDEXES, "ANALYZE t")
        since, until = random_range(rng)
        run = backfill(tide, asked(**{"from": since, "to": until}, step=step), limits=limits)
        tide.read_chunks()
        within = " OR ".join(f"{c}::timestamptz >= '{since}' AND {c}::timestamptz < '{until}'" for c in COLUMNS)
        assert emitted(tide, run.plan) == tide.database.column(f"SELECT id FROM t WHERE {within} ORDER BY id")
        assert bool(plan_of(tide, run).leaves) == (number == 3)
    assert window(tide) == before


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_a_range_is_open_at_its_end(tide: Tide, kind: str) -> None:
    """A row at its begin is in, one at its end is not; nor is one without a timestamp, or at the end of time."""
    day = kind == "date"
    inside = (
        ["2024-03-01", "2024-03-02"]
        if day
        else ["2024-03-01", "2024-03-01 00:00:00.000001", "2024-03-02 23:59:59.999999"]
    )
    outside = ["2024-02-29", "2024-03-03", "infinity", "-infinity", "10000-01-01"] + (
        [] if day else ["2024-02-29 23:59:59.999999", "2024-03-03 00:00:00.000001"]
    )
    tide.run("SET TimeZone = 'UTC'", f"CREATE TABLE t (id text, created_at {kind})", "INSERT INTO t VALUES ('none')")
    tide.run(*(f"INSERT INTO t VALUES ('{text}', '{text}')" for text in [*inside, *outside]))
    tide.ingest()
    tide.database.pass_horizon()
    run = backfill(tide, asked(**{"from": "2024-03-01", "to": "2024-03-03"}))
    last = backfill(tide, asked(**{"from": "2024-03-03T12:00", "to": "9999-12-31T23:59"}), message="another")
    tide.read_chunks()
    assert emitted(tide, run.plan) == inside
    assert emitted(tide, last.plan) == []


def test_a_date_is_its_midnight(tide: Tide) -> None:
    """So a range that begins in the middle of a day holds the next day's date first."""
    tide.run("CREATE TABLE t (id serial, created_at date)")
    tide.run("INSERT INTO t (created_at) SELECT date '2024-03-01' + n FROM generate_series(0, 3) n")
    tide.ingest()
    tide.database.pass_horizon()
    run = backfill(tide, asked(**{"from": "2024-03-01T12:00", "to": "2024-03-03T00:01"}, step="6h"))
    assert run.chunks == 7
    tide.read_chunks()
    assert emitted(tide, run.plan) == [2, 3]


@pytest.mark.parametrize(("column", "ids"), [("both", [1, 2, 3]), ("created_at", [1, 2]), ("born", [4])])
def test_a_column_restricts_the_range(tide: Tide, column: str, ids: list[int]) -> None:
    """One of any name, or both of those that say when a row was created or updated."""
    tide.run(
        "CREATE TABLE t (id int, created_at timestamptz, updated_at timestamptz, born date)",
        "INSERT INTO t VALUES (1, '2024-03-01 12:00Z', '2024-03-02 12:00Z', NULL), (2, '2024-03-02Z', NULL, NULL), "
        "(3, '2023-03-02Z', '2024-03-02Z', '1990-01-01'), (4, NULL, NULL, '2024-03-02'), (5, NULL, NULL, NULL)",
    )
    tide.ingest()
    tide.database.pass_horizon()
    run = backfill(tide, asked(column=column, step="1d"))
    tide.read_chunks()
    assert emitted(tide, run.plan) == ids


def test_a_small_table_is_read_in_pieces_of_time(filled: Tide) -> None:
    """As many as were asked for; in one where nobody has asked."""
    for step, chunks in (("", 1), ("1d", 4), ("1mo", 1)):
        run = backfill(filled, asked(step=step), message=step)
        planned = plan_of(filled, run)
        assert (run.outcome, run.chunks, len(planned.cuts) - 1, planned.leaves) == ("planned", chunks, chunks, ())
        filled.read_chunks()
        assert emitted(filled, run.plan) == list(IN_RANGE)


def test_indexes_lead_to_pieces_of_time(filled: Tide) -> None:
    """As many as there are chunks in it, as the planner estimates; each of the columns needs an index."""
    filled.run(INDEXES[0])
    both = backfill(filled, limits=SMALL)
    assert "no index leads to them all, so every page is looked through" in both.strategy
    created = backfill(filled, asked(column="created_at"), message="created", limits=SMALL)
    assert "no index" not in created.strategy
    filled.run(INDEXES[1])
    indexed = backfill(filled, message="indexed", limits=SMALL)
    first, second, third = (plan_of(filled, run) for run in (both, created, indexed))
    assert first.leaves
    assert not second.leaves
    assert not third.leaves
    assert third.chunks == indexed.chunks > 3
    filled.read_chunks()
    for run in (both, created, indexed):
        assert emitted(filled, run.plan) == list(IN_RANGE)


@pytest.mark.parametrize("way", ["indexed", "unindexed"])
def test_progress_never_passes_the_whole(filled: Tide, way: str) -> None:
    """Large values that are kept apart included: not all pages that are looked through hold any."""
    filled.run(
        "ALTER TABLE t ALTER text SET STORAGE EXTERNAL",
        "UPDATE t SET text = repeat('y', 5000) WHERE id % 20 = 0",
        "ANALYZE t",
    )
    filled.ingest()
    filled.database.pass_horizon()
    wanted, limits = prepared(filled, way)
    run = backfill(filled, wanted, limits=limits)
    for done, message in enumerate(filled.outbox.take()):
        [progress] = filled.state().plans
        assert (progress.done_chunks, progress.chunks) == (done, run.chunks)
        assert 0 <= progress.done_bytes <= progress.bytes
        filled.read_chunks([message], limits=limits)
    assert filled.state().plans == ()
    shares = sum(event.what.bytes for event in filled.events() if isinstance(event.what, ChunkRead))
    planned = plan_of(filled, run)
    assert planned.bytes - run.chunks < shares <= planned.bytes


def test_all_rows_come_once_a_plan(filled: Tide) -> None:
    """Also those without a timestamp, as often as somebody asks."""
    filled.run("INSERT INTO t (id) VALUES (5000)")
    filled.ingest()
    filled.database.pass_horizon()
    before = window(filled)
    for message in ("one", "two"):
        run = backfill(filled, asked(all=True), message=message, limits=SMALL)
        assert plan_of(filled, run).span is None
        filled.read_chunks(limits=SMALL)
        assert emitted(filled, run.plan) == [*range(1000), 5000]
    assert window(filled) == before
    assert filled.ingest().outcome == "unchanged"


def test_a_table_of_no_timestamp_column_has_all_rows(tide: Tide) -> None:
    """And nothing is to be done for one that is empty."""
    tide.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    tide.database.pass_horizon()
    run = backfill(tide, asked(all=True))
    tide.read_chunks()
    assert emitted(tide, run.plan) == [1]
    tide.run("TRUNCATE t")
    before = tide.state()
    assert backfill(tide, asked(all=True), message="another").outcome == "unchanged"
    assert tide.state() == before
    assert tide.outbox.take() == []


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("way", WAYS[1:])
def test_a_backfill_never_hides_a_newer_version(filled: Tide, way: str, held: bool) -> None:
    """Rows change, go and come between plan and chunks, and increments are committed before, between and behind."""
    rng = random.Random(f"{way} {held}")  # noqa: S311 - the same each time
    wanted, limits = prepared(filled, way)
    changes = [
        "UPDATE t SET v = v + 1, updated_at = '2024-03-02' WHERE id % {n} = 0",
        "UPDATE t SET updated_at = updated_at + interval '1 day' WHERE id % {n} = 1",
        "UPDATE t SET v = v + 1, created_at = NULL WHERE id % {n} = 2",
        "DELETE FROM t WHERE id % {n} = 3",
        "INSERT INTO t SELECT n, 1, '', '2024-03-02', now() FROM generate_series({m}, {m} + 9) n",
    ]
    fresh = count(5000, 10)

    def change() -> None:
        filled.run(rng.choice(changes).format(n=rng.randint(3, 9), m=next(fresh)))

    acts: list[Callable[[], object]] = [change, filled.ingest, lambda: None]
    with filled.database.session() as session:
        if held:
            filled.database.hold_horizon(session)
        change()
        assert filled.ingest().outcome == "ingested"
        change()
        backfill(filled, wanted, limits=limits)
        messages = filled.outbox.take()
        rng.shuffle(messages)
        for message in messages:
            for act in rng.choices(acts, k=2):
                act()
            filled.read_chunks([message], limits=limits)
        session.run("ROLLBACK")
    filled.ingest()
    whole(filled)
    assert not filled.state().plans


@pytest.mark.parametrize("way", ["small", "unindexed"])
def test_what_is_written_after_the_plan_is_the_increments(filled: Tide, way: str) -> None:
    """No version of it comes with the chunks too, though it lies in the range."""
    wanted, limits = prepared(filled, way)
    run = backfill(filled, wanted, limits=limits)
    filled.run(
        "UPDATE t SET v = 1 WHERE id < 100",
        "DELETE FROM t WHERE id BETWEEN 200 AND 299",
        "INSERT INTO t VALUES (5000, 1, '', '2024-03-02', '2024-03-02')",
    )
    assert filled.ingest().rows == 101
    filled.read_chunks(limits=limits)
    assert emitted(filled, run.plan) == [n for n in IN_RANGE if n >= 100 and not 200 <= n <= 299]
    assert filled.ingest().outcome == "unchanged"


@pytest.mark.parametrize("way", ["small", "unindexed"])
def test_a_backfill_moves_no_watermark(filled: Tide, way: str) -> None:
    """Nor the sequential id, the horizon or the bound, though rows lie dated in the future and are not ingested yet."""
    before = window(filled)
    filled.run("UPDATE t SET updated_at = '2077-01-01' WHERE id < 500")
    filled.database.pass_horizon()
    wanted, limits = prepared(filled, way)
    backfill(filled, wanted, limits=limits)
    for message in filled.outbox.take():
        assert window(filled) == before
        filled.read_chunks([message], limits=limits)
    assert window(filled) == before
    assert filled.ingest().rows == 500


def test_a_message_that_comes_again_finds_its_plan(filled: Tide) -> None:
    """While it is under way and when it is over; another message makes another plan."""
    run = backfill(filled)
    assert backfill(filled, tries=2).outcome == "covered"
    assert len(filled.outbox.messages) == run.chunks
    filled.read_chunks()
    assert filled.state().plans == ()
    filled.run("INSERT INTO t (id) VALUES (5000)")
    filled.ingest()
    assert backfill(filled, tries=3).outcome == "covered"
    assert filled.outbox.take() == []
    assert len(plans(filled)) == 1
    assert backfill(filled, message="another", tries=2).outcome == "planned"
    filled.read_chunks()
    assert len(plans(filled)) == 2


def test_a_request_has_one_plan_whatever_message_it_comes_in(filled: Tide) -> None:
    """Its id is what counts where it has one."""
    wanted = asked(request="r")
    assert backfill(filled, wanted).outcome == "planned"
    assert backfill(filled, wanted, message="another", tries=2).outcome == "covered"
    assert [plan.request for plan in plans(filled)] == ["r"]


def test_a_crash_between_the_plan_and_its_messages_is_mended_when_the_message_comes_again(filled: Tide) -> None:
    """All chunks are sent then."""
    process = Process()
    process.at("after", COMMIT, process.kill)
    with pytest.raises(KilledError):
        backfill(filled, asked(step="1d"), s3=process.client(filled.lake.s3))
    assert filled.outbox.messages == []
    assert not filled.state().plans[0].sent
    assert backfill(filled, asked(step="1d"), tries=2).outcome == "covered"
    assert filled.state().plans[0].sent
    filled.read_chunks()
    assert emitted(filled, filled.events()[1].offset) == list(IN_RANGE)


WRONG: list[tuple[dict[str, Any], type[Permanent], str]] = [
    (asked("public.nosuch"), UnknownTable, 'relation "public.nosuch" does not exist'),
    (asked("public.gone"), UnknownTable, 'relation "public.gone" does not exist'),
    (asked("public.v"), NotIngestible, "v: a view, which has no row versions of its own"),
    (asked("public.new"), NotIngestible, "new: nothing was ingested of it yet. Wait for its first tick"),
    (asked(column="created"), UnknownColumn, "it has no column 'created'; of type date, timestamp or timestamptz: "),
    (asked(column="created"), UnknownColumn, "timestamptz: created_at, updated_at. Name one of those, or both"),
    (asked(column="text"), UnknownColumn, "column 'text' is of type text; of type date, timestamp or timestamptz: cr"),
    (asked("public.undated"), UnknownColumn, "none of its columns says by its name when a row was created or updated"),
    (asked("public.undated"), UnknownColumn, "timestamptz: born. Name one of those as the column, or ask for all rows"),
    (asked("public.timeless"), UnknownColumn, "of type date, timestamp or timestamptz: none."),
]


@pytest.fixture
def others(filled: Tide) -> Tide:
    """Tables beside that can't be read again, each for a reason of its own."""
    ingested = ["undated (id int, born date)", "timeless (id int)", "gone (created_at date)"]
    filled.run(*(f"CREATE TABLE {each}" for each in [*ingested, "new (created_at date)"]))
    filled.run("CREATE VIEW v AS SELECT * FROM t")
    for table in ("undated", "timeless", "gone"):
        filled.run(f"INSERT INTO {table} DEFAULT VALUES")
        filled.ingest(f"public.{table}")
    filled.run("DROP TABLE gone")
    return filled


def test_what_cannot_be_read_again_is_refused_and_leaves_no_trace(others: Tide) -> None:
    """In words that name what there is instead; nothing is in the ledger, nothing is sent, asked by whatever way."""
    before = {table: others.kinds(table) for table in others.tables()}
    for wanted, error, words in WRONG:
        for ask in (backfill, lambda tide, asked: requests(tide).take(asked, EVERYTHING)):
            with pytest.raises(error) as refused:
                ask(others, wanted)
            assert words in str(refused.value)
    assert {table: others.kinds(table) for table in others.tables()} == before
    assert others.outbox.take() == []


@pytest.mark.parametrize("way", ["indexed", "unindexed"])
def test_a_rewritten_table_loses_nothing(filled: Tide, way: str) -> None:
    """Pieces of time do not care; pages are planned again, and what was read of them comes twice, as an event says."""
    run = read_halfway(filled, way)
    early, before = emitted(filled, run.plan), window(filled)
    filled.run("VACUUM FULL t")
    outcomes = [run.outcome for run in filled.read_chunks()]
    if way == "indexed":
        assert set(outcomes) == {"read"}
        assert emitted(filled, run.plan) == list(IN_RANGE)
    else:
        assert outcomes[0] == "replanned"
        assert emitted(filled, run.plan) == early
        again = filled.events()[-1].what
        assert isinstance(again, ChunkRead)
        assert emitted(filled, again.plan) == list(IN_RANGE)
        assert "was rewritten" in plans(filled)[-1].reason
        before = changed(before, rewritten=again.plan)
    assert window(filled) == before
    assert not filled.state().plans


@pytest.mark.parametrize("way", ["small", "unindexed"])
def test_an_emptied_table_ends_its_backfill(filled: Tide, way: str) -> None:
    """Rows that came since are the next increment's."""
    run = read_halfway(filled, way)
    early = emitted(filled, run.plan)
    filled.run("TRUNCATE t")
    if way == "small":
        filled.run("INSERT INTO t VALUES (5000, 0, '', '2024-03-02', '2024-03-02')")
    filled.read_chunks()
    assert emitted(filled, run.plan) == early
    assert not filled.state().plans
    assert ("chunks_dropped" in filled.kinds()) == (way == "unindexed")


def test_a_partition_that_is_attached_meanwhile_is_the_next_increments(tide: Tide) -> None:
    """One that is detached is left out; both whether a backfill is of pages or of time."""
    tide.run(
        "CREATE TABLE t (id int, part int, created_at date) PARTITION BY LIST (part)",
        *(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES IN ({n})" for n in range(2)),
        "CREATE TABLE t2 (LIKE t)",
        "INSERT INTO t SELECT n, n % 2, '2024-03-02' FROM generate_series(1, 10) n",
        "INSERT INTO t2 VALUES (11, 2, '2024-03-02')",
    )
    tide.ingest()
    tide.database.pass_horizon()
    runs = [backfill(tide), backfill(tide, asked(all=True), message="all", limits=replace(SMALL, chunk_bytes=1))]
    tide.run("ALTER TABLE t DETACH PARTITION t0", "ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)")
    tide.read_chunks()
    for run in runs:
        assert emitted(tide, run.plan) == [1, 3, 5, 7, 9]
    assert not tide.state().plans
    assert tide.ingest().rows == 1
    tide.run("ALTER TABLE t ATTACH PARTITION t0 FOR VALUES IN (0)")
    assert tide.ingest().outcome == "unchanged"


def test_an_upload_that_is_gone_is_made_again_from_the_same_time(filled: Tide) -> None:
    """Even where the table was rewritten meanwhile."""
    run = backfill(filled, asked(step="1d"))
    messages = filled.outbox.take()
    for message in messages[:2]:
        process = Process()
        process.at("before", PUBLISH, process.kill)
        with pytest.raises(KilledError):
            filled.read_chunks([message], s3=process.client(filled.lake.s3))
        filled.lake.expire_uploads()
    filled.run("VACUUM FULL t")
    filled.read_chunks(messages)
    assert emitted(filled, run.plan) == list(IN_RANGE)


def test_a_piece_of_time_that_cannot_be_read_in_time_is_halved(filled: Tide) -> None:
    """And the halves are its rows, and its share of what is done."""
    run = backfill(filled, asked(step="1d"))
    messages = filled.outbox.take()
    assert isinstance(messages[0], ReadChunk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidelog.opening.json_values", lambda _, row: f"pg_sleep(9)::text || {row}.id::text")
        chunking = Chunking(filled.parts())
        assert chunking.read(NAME, messages[0].plan, messages[0].chunk, seconds=0.3).outcome == "split"
    [split] = [event.what for event in filled.events() if isinstance(event.what, ChunkSplit)]
    first, second = split.halves
    assert (first.since, second.until) == plan_of(filled, run).cuts[:2]
    assert first.until == second.since
    filled.read_chunks(messages[1:])
    assert filled.outbox.take() == []
    assert emitted(filled, run.plan) == list(IN_RANGE)
    shares = [event.what.bytes for event in filled.events() if isinstance(event.what, ChunkRead)]
    assert sum(shares) <= plan_of(filled, run).bytes


def requests(tide: Tide, limits: Limits = LIMITS, source: Source | None = None) -> Requests:
    """Return what takes requests; what it sends lies in the outbox."""
    numbers = count(1)
    return Requests(
        source=source or tide.source,
        queue=tide.outbox,
        parameters=tide.parameters,
        chunk_bytes=limits.chunk_bytes,
        new_id=lambda: f"request {next(numbers)}",
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_dry_run_foretells_what_the_worker_plans(filled: Tide, way: str) -> None:
    """Rows, bytes and chunks, and how they are read; it sends nothing. The same request, sent, is planned so."""
    wanted, limits = prepared(filled, way)
    wanted |= {"column": "created_at"} if way == "indexed" else {}
    before = filled.state()
    [foretold] = requests(filled, limits).take(wanted | {"dry_run": True}, EVERYTHING)
    assert (filled.outbox.take(), filled.state(), foretold.request) == ([], before, "")
    [answer] = requests(filled, limits).take(wanted, EVERYTHING)
    assert answer == replace(foretold, request="request 1")
    [message] = filled.outbox.take()
    assert isinstance(message, Backfill)
    run = backfill(filled, message, limits=limits)
    planned = plan_of(filled, run)
    assert (run.chunks, planned.chunks, planned.bytes) == (answer.chunks, answer.chunks, answer.bytes)
    assert (planned.request, planned.reason, run.strategy) == ("request 1", answer.reason, answer.reason)
    filled.read_chunks(limits=limits)
    rows = len(emitted(filled, run.plan))
    assert rows * 0.8 <= answer.rows <= rows * 1.2
    assert (answer.since, answer.until) == (("", "") if way == "all" else (planned.span.since, planned.span.until))  # type: ignore[union-attr] # it has one


def test_a_request_names_several_tables(others: Tide) -> None:
    """Each of them once, with an id of its own."""
    wanted = {field: value for field, value in asked(all=True).items() if field != "table"}
    answers = requests(others).take(wanted | {"tables": ["public.t", "public.timeless", "public.t"]}, EVERYTHING)
    assert [(answer.table, answer.request) for answer in answers] == [
        ("public.t", "request 1"),
        ("public.timeless", "request 2"),
    ]
    assert [(m.table, m.request) for m in others.outbox.take() if isinstance(m, Backfill)] == [
        (answer.table, answer.request) for answer in answers
    ]


def test_nothing_is_sent_if_anything_is_wrong_with_any_table(others: Tide) -> None:
    """Half a request would be hard to send again."""
    wanted = {field: value for field, value in asked().items() if field != "table"}
    for table in ("nosuch", "gone", "v", "new", "undated", "timeless", "a.b"):
        with pytest.raises(Permanent, match=table):
            requests(others).take(wanted | {"tables": ["public.t", f"public.{table}"]}, EVERYTHING)
    assert others.outbox.take() == []


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"from": "2024-02-30"}, "from '2024-02-30' is not a date"),
    ({"to": "2024-02-01"}, "to '2024-02-01' must be later than 2024-03-01T00:00:00+00:00"),
    ({"step": "1y"}, "step '1y' is not a length"),
    ({"dry_run": "yes"}, "dry_run 'yes' must be true or false"),
    ({"tables": ["public.t"]}, "tables ['public.t'] must be a list of names, and the only one beside no table"),
    ({"table": ..., "tables": []}, "tables [] must be a list of names"),
    ({"table": ..., "tables": "public.t"}, "tables 'public.t' must be a list of names"),
    ({"table": ..., "tables": [7]}, "table 7 must be text"),
    ({"table": ...}, "table"),
    ({"type": "ingest", "from": ..., "to": ...}, "it is no backfill. Give from and to, or all"),
    ({"from": ..., "to": ..., "plan": 1, "chunk": 1}, "it is no backfill. Give from and to, or all"),
]


def test_a_table_that_is_excluded_is_not_read_again(others: Tide) -> None:
    """It was ingested once; the others of a request are not read either."""
    selection = Selection(exclude=("public.t",))
    wanted = {"version": 1, "type": "backfill", "tables": ["public.timeless", "public.t"], "all": True}
    with pytest.raises(UnknownTable, match=r"backfill public\.t: it is none of the stack's tables"):
        requests(others).take(wanted, selection)
    assert others.outbox.take() == []


def test_a_wrong_request_is_answered_before_the_database_is_asked(tide: Tide) -> None:
    """Which may be far, or busy; a right one asks it."""

    def unreachable() -> Credentials:
        raise DatabaseUnreachable("connect to", "the database", "it is far")

    taking = requests(tide, source=Source(unreachable, "disable", lock_seconds=1))
    for change, words in WRONG_FIELDS:
        taken = {field: value for field, value in (asked() | change).items() if value is not ...}
        with pytest.raises(InvalidMessage) as refused:
            taking.take(taken, EVERYTHING)
        assert words in str(refused.value)
    with pytest.raises(DatabaseUnreachable, match="it is far"):
        taking.take(asked(), EVERYTHING)


def test_moments_are_read_as_postgresql_reads_them(database: Database) -> None:
    """In UTC, from whatever it takes; what tidelog takes besides would be another moment, or none."""
    rng = random.Random(1)  # noqa: S311 - the same each time
    part = rng.choice
    written = [
        f"{part(['0001', '1582', '2000', '2024', '9999'])}-{rng.randint(0, 13):02}-{rng.randint(0, 32):02}"
        + part(["", f"{part('T ')}{rng.randint(0, 24):02}:{rng.randint(0, 60):02}"])
        + part(["", f":{rng.randint(0, 60):02}", f":{rng.randint(0, 60):02}.{rng.randint(0, 10**7)}"])
        + part(
            [
                "",
                "Z",
                f"{part('+-')}{rng.randint(0, 17):02}",
                f"{part('+-')}{rng.randint(0, 16):02}:{rng.randint(0, 70):02}",
            ]
        )
        for _ in range(4000)
    ]
    taken = {}
    for text in written:
        try:
            taken[text] = ranges.moment(text)
        except ValueError:
            continue
    assert 1000 < len(taken) < 3000
    pairs = ", ".join(f"('{text}', '{moment}')" for text, moment in taken.items())
    database.run("SET TimeZone = 'UTC'")
    [[checked, right]] = database.run(
        "SELECT count(*), count(*) FILTER (WHERE a::timestamptz = b::timestamptz AND "
        "to_char(b::timestamptz, 'YYYY-MM-DD\"T\"HH24:MI:SS') = left(b, 19)) "
        f"FROM (VALUES {pairs}) AS pair (a, b)"
    )
    assert checked == right == len(taken)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati"])
def test_what_postgresql_shows_may_be_named(database: Database, zone: str) -> None:
    """An operator copies a timestamp from a query, in whatever zone his session is."""
    database.run(f"SET TimeZone = '{zone}'")
    shown = (
        "SELECT t::text, to_json(t)#>>'{}', extract(epoch FROM t)::float FROM (SELECT to_timestamp(n * 12345678.901) t"
    )
    for text, in_json, seconds in database.run(f"{shown} FROM generate_series(0, 140) n) s"):
        moment = datetime.fromisoformat(ranges.moment(text))
        assert moment.timestamp() == pytest.approx(seconds, abs=1e-5)
        assert ranges.moment(in_json) == moment.isoformat()
