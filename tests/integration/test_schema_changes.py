"""Tables that are altered: what is told of it, what is read again, and what somebody has to have read again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.faults import COMMIT, CREATE, PUBLISH, KilledError, Process, refusal
from tests.integration.conftest import Clock, Post
from tests.tide import LIMITS, SECONDS, Tide
from tidelog.errors import StoreUnreachable
from tidelog.events import Ingested, PartitionsChanged, SchemaChanged, TimelineStarted
from tidelog.ingesting import Ingestion
from tidelog.letters import Received
from tidelog.marks import Marks
from tidelog.messages import ReadChunk, decode
from tidelog.notices import Notices
from tidelog.plans import ChunkRead
from tidelog.schema import SchemaDocument
from tidelog.tables import TableName

NAME = TableName("public", "t")
LARGE = replace(LIMITS, chunk_bytes=4 * 8192)
CREATE_T = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "CREATE TYPE pair AS (a int, b text)",
    "CREATE DOMAIN plain AS int",
    "CREATE DOMAIN filled AS int DEFAULT 7",
    "CREATE TABLE parent (id int NOT NULL)",
    """CREATE TABLE t (id int PRIMARY KEY, v int, name varchar(40), mood mood, pair pair, at timestamp,
                       twice int GENERATED ALWAYS AS (v * 2) STORED)""",
)
ROWS = (
    "INSERT INTO t SELECT n, n, repeat('x', 30), 'ok', ROW(n, 'b')::pair, '2026-01-01' FROM generate_series({}, {}) n"
)


@pytest.fixture
def small(tide: Tide) -> Tide:
    """A table of three rows that is in the lake."""
    tide.run(*CREATE_T, ROWS.format(1, 3))
    assert tide.ingest().outcome == "snapshotted"
    return tide


@pytest.fixture
def large(tide: Tide) -> Tide:
    """A table of some chunks that is in the lake."""
    tide.run(*CREATE_T, ROWS.format(1, 1000))
    tide.database.pass_horizon()
    assert tide.ingest(limits=LARGE).outcome == "planned"
    tide.read_chunks(limits=LARGE)
    assert tide.values("id") == list(range(1, 1001))
    return tide


def changes(tide: Tide, table: str = "public.t") -> list[SchemaChanged]:
    """Return the changes that the ledger tells of."""
    return [event.what for event in tide.events(table) if isinstance(event.what, SchemaChanged)]


def moves(tide: Tide) -> list[str]:
    """Return what the ledger tells of partitions."""
    return [event.what.difference for event in tide.events() if isinstance(event.what, PartitionsChanged)]


def whole(tide: Tide, table: str = "public.t") -> None:
    """Hold the latest lines against the table: a column that they do not have is NULL."""
    latest = tide.latest(table)
    for key, row in tide.table(table).items():
        assert {name: latest[key].get(name) for name in row} == row


def document(tide: Tide, table: str = "public.t") -> SchemaDocument:
    """Return the schema document of the state."""
    return tide.parts().ledger.schema(TableName.parse(table), tide.state(table).schema or "")


# What is done; in words; what is outdated by it; how many rows the next run reads of three.
CHANGES: dict[str, tuple[list[str], str, str, int]] = {
    "a column added": (["ALTER TABLE t ADD x int"], "column x added", "", 0),
    "a column added with a default": (
        ["ALTER TABLE t ADD x int DEFAULT 7"],
        "column x added",
        "column x was added with a default",
        3,
    ),
    "a column added with a default that is dropped again": (
        ["ALTER TABLE t ADD x int DEFAULT 7", "ALTER TABLE t ALTER x DROP DEFAULT"],
        "column x added",
        "column x was added with a default",
        3,
    ),
    "a column added with a volatile default": (
        ["ALTER TABLE t ADD x float DEFAULT random()"],
        "column x added",
        "column x was added with a default",
        3,
    ),
    "a column added as an identity": (
        ["ALTER TABLE t ADD x int GENERATED ALWAYS AS IDENTITY"],
        "column x added",
        "column x was added maybe with a default, and the table was rewritten since",
        3,
    ),
    "a column added with a default that is dropped again before a rewrite": (
        ["ALTER TABLE t ADD x int DEFAULT 7", "ALTER TABLE t ALTER x DROP DEFAULT", "VACUUM FULL t"],
        "column x added",
        "column x was added maybe with a default, and the table was rewritten since",
        3,
    ),
    "a column added of a domain": (["ALTER TABLE t ADD x plain"], "column x added", "", 0),
    "a column added of a domain with a default": (
        ["ALTER TABLE t ADD x filled"],
        "column x added",
        "column x was added with a default",
        3,
    ),
    "a generated column added": (
        ["ALTER TABLE t ADD x int GENERATED ALWAYS AS (v + 1) STORED"],
        "column x added",
        "",
        3,
    ),
    "a column dropped": (["ALTER TABLE t DROP name"], "column name dropped", "", 0),
    "a column dropped and added": (
        ["ALTER TABLE t DROP name, ADD name varchar(40)"],
        "column name added; column name dropped",
        "column name was added under the name of another",
        3,
    ),
    "a column renamed": (
        ["ALTER TABLE t RENAME name TO title"],
        "column name renamed to title",
        "column name was renamed to title",
        3,
    ),
    "columns that change names": (
        ["BEGIN; ALTER TABLE t RENAME v TO w; ALTER TABLE t RENAME id TO v; ALTER TABLE t RENAME w TO id; COMMIT"],
        (
            "column id renamed to v; column v renamed to id; "
            "column twice changed (default '(v * 2)' to '(id * 2)'); primary key id to v"
        ),
        "column id was renamed to v; column v was renamed to id",
        3,
    ),
    "a longer text": (
        ["ALTER TABLE t ALTER name TYPE text"],
        "column name changed (type 'character varying(40)' to 'text')",
        "",
        0,
    ),
    "a type that rewrites": (
        ["ALTER TABLE t ALTER name TYPE bytea USING name::bytea"],
        "column name changed (type 'character varying(40)' to 'bytea')",
        "",
        3,
    ),
    "a type of the same bytes": (
        ["BEGIN; SET LOCAL timezone = 'UTC'; ALTER TABLE t ALTER at TYPE timestamptz; COMMIT"],
        "column at changed (type 'timestamp without time zone' to 'timestamp with time zone')",
        "column at went from type timestamp without time zone to timestamp with time zone",
        3,
    ),
    "a changed default": (["ALTER TABLE t ALTER v SET DEFAULT 9"], "column v changed (default none to '9')", "", 0),
    "not null": (["ALTER TABLE t ALTER v SET NOT NULL"], "column v changed (not_null False to True)", "", 0),
    "a key dropped": (["ALTER TABLE t DROP CONSTRAINT t_pkey"], "primary key id to none", "", 0),
    "a generated column that is one no more": (
        ["ALTER TABLE t ALTER twice DROP EXPRESSION"],
        "column twice changed (default '(v * 2)' to none, generated 's' to '')",
        "",
        0,
    ),
    "another expression": (
        ["ALTER TABLE t DROP twice, ADD twice int GENERATED ALWAYS AS (v * 3) STORED"],
        "column twice added; column twice dropped",
        "",
        3,
    ),
    "an enum label added": (
        ["ALTER TYPE mood ADD VALUE 'so' BEFORE 'ok'"],
        "column mood changed (labels 'so' added)",
        "",
        0,
    ),
    "an enum label renamed": (
        ["ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'"],
        "column mood changed (labels 'ok' to 'fine')",
        "labels of column mood were renamed",
        3,
    ),
    "an enum renamed": (
        ["ALTER TYPE mood RENAME TO humour"],
        "column mood changed (type 'public.mood' to 'public.humour')",
        "",
        0,
    ),
    "a field added": (
        ["ALTER TYPE pair ADD ATTRIBUTE c int"],
        "column pair changed (field c added)",
        "fields of column pair are others",
        3,
    ),
    "a field renamed": (
        ["ALTER TYPE pair RENAME ATTRIBUTE b TO c"],
        "column pair changed (field b renamed to c)",
        "fields of column pair are others",
        3,
    ),
    "a field dropped": (
        ["ALTER TYPE pair DROP ATTRIBUTE a"],
        "column pair changed (field a dropped)",
        "fields of column pair are others",
        3,
    ),
    "a parent": (["ALTER TABLE t INHERIT parent"], "inherits public.parent", "", 0),
    "two changes at once": (
        ["ALTER TABLE t RENAME name TO title", "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'"],
        "column name renamed to title; column mood changed (labels 'ok' to 'fine')",
        "column name was renamed to title; labels of column mood were renamed",
        3,
    ),
    "a change and a rewrite": (
        ["ALTER TABLE t RENAME name TO title", "ALTER TABLE t ADD x bigserial"],
        "column x added; column name renamed to title",
        "column x was added with a default; column name was renamed to title",
        3,
    ),
}
OUTDATING = [name for name, (_, _, outdated, _) in CHANGES.items() if outdated and "volatile" not in name]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_and_made_good(small: Tide, change: str) -> None:
    """In words, with a new document; a small table's rows are read again where lines of before are outdated."""
    statements, words, outdated, rows = CHANGES[change]
    before = document(small)
    small.run(*statements)
    run = small.ingest()
    assert (run.rows, run.sequential_id) == (rows, 1 if rows else 0)
    [changed] = changes(small)
    assert changed == SchemaChanged(document(small).fingerprint, words, outdated, again=bool(outdated))
    assert document(small) != before
    assert [column.name for column in document(small).columns] == list(next(iter(small.table().values())))
    whole(small)
    assert small.ingest().outcome == "unchanged"
    small.run("UPDATE t SET at = now() WHERE id = 1", "DELETE FROM t WHERE id = 2")
    assert small.ingest().rows == 1
    whole(small)
    assert len(changes(small)) == 1


@pytest.mark.parametrize("change", OUTDATING)
def test_a_change_of_a_large_table_is_flagged_and_a_backfill_makes_it_good(large: Tide, change: str) -> None:
    """The event names the command, somebody is told once, and rows are not read again by themselves."""
    statements, words, outdated, _ = CHANGES[change]
    told: list[object] = []
    ingestion = Ingestion(large.parts(limits=LARGE), lambda _, changed: told.append(changed))
    large.run(*statements)
    large.database.pass_horizon()
    assert ingestion.ingest(NAME, seconds=SECONDS).outcome in ("unchanged", "planned")  # the latter if rewritten
    [changed] = changes(large)
    assert (changed.difference, changed.outdated, changed.again) == (words, outdated, False)
    assert changed.remedy == "tidelog backfill public.t --all"
    assert ingestion.ingest(NAME, seconds=SECONDS).outcome == "unchanged"
    assert told == changes(large)
    backfill(large)
    whole(large)


def backfill(tide: Tide) -> None:
    """Do what the command does."""
    message = Received("m", "r", "", "backfill.fifo", "g", 1, "2026-11-23T12:00:00+00:00")
    wanted = decode('{"version":1,"type":"backfill","table":"public.t","all":true}')
    assert tide.jobs(limits=LARGE).do(wanted, message, seconds=SECONDS).outcome == "planned"
    tide.read_chunks(limits=LARGE)
    assert not tide.state().plans


def test_a_harmless_change_of_a_large_table_is_an_event_and_no_more(large: Tide) -> None:
    """Nobody is told."""
    told: list[object] = []
    large.run("ALTER TABLE t ADD x int", "ALTER TABLE t DROP name")
    ingestion = Ingestion(large.parts(limits=LARGE), lambda _, changed: told.append(changed))
    assert ingestion.ingest(NAME, seconds=SECONDS).outcome == "unchanged"
    assert [(changed.again, changed.remedy) for changed in changes(large)] == [(False, "")]
    assert told == []
    whole(large)


def test_a_change_comes_with_new_rows_in_one_increment(small: Tide) -> None:
    """Each row once, as it is now."""
    small.run(
        "INSERT INTO t VALUES (4, 4)",
        "ALTER TABLE t RENAME name TO title",
        "UPDATE t SET title = 'new' WHERE id = 1",
        "INSERT INTO t VALUES (5, 5)",
    )
    assert small.ingest().rows == 5
    assert small.values("id") == [1, 1, 2, 2, 3, 3, 4, 5]
    assert small.kinds() == ["snapshotted", "schema_changed", "ingested"]
    whole(small)


def test_a_label_within_a_range_is_one_of_the_column(tide: Tide) -> None:
    """Or within a multirange, or an array of either."""
    tide.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TYPE moods AS RANGE (subtype = mood, multirange_type_name = many)",
        "CREATE TABLE t (id int PRIMARY KEY, a moods, b many, c moods[])",
        "INSERT INTO t VALUES (1, '[sad,ok]', '{[sad,ok]}', '{\"[sad,ok]\"}')",
    )
    tide.ingest()
    tide.run("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    assert tide.ingest().rows == 1
    [changed] = changes(tide)
    assert changed.outdated == "; ".join(f"labels of column {name} were renamed" for name in "abc")
    whole(tide)


def test_rows_above_a_held_horizon_are_read_again_once(small: Tide) -> None:
    """Also those that were emitted before; none of them is left out of the next window that should not be."""
    with small.database.session() as long:
        long.run("BEGIN; SELECT pg_current_xact_id()")
        small.run("INSERT INTO t VALUES (4, 4)")
        assert small.ingest().rows == 1
        small.run("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'", "INSERT INTO t VALUES (5, 5)")
        assert small.ingest().rows == 5
        assert small.ingest().outcome == "unchanged"
        small.run("INSERT INTO t VALUES (6, 6)")
        assert small.ingest().rows == 1
        long.run("INSERT INTO t VALUES (7, 7)")
        long.run("COMMIT")
    assert small.ingest().rows == 1
    assert small.values("id") == [*sorted([1, 2, 3, 4] * 2), 5, 6, 7]
    whole(small)


def test_with_too_much_ahead_an_altered_table_is_read_again_in_two_steps(
    small: Tide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is below the horizon, and what was emitted above it, at once; the rest when the horizon has moved."""
    monkeypatch.setattr("tidelog.planning.AHEAD_CAP", 2)
    with small.database.session() as long:
        long.run("BEGIN; SELECT pg_current_xact_id()")
        small.run("INSERT INTO t VALUES (4, 4)")
        assert small.ingest().rows == 1
        small.run(
            "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'", *(f"INSERT INTO t VALUES ({n}, 0)" for n in range(5, 9))
        )
        assert small.ingest().rows == 4
        long.run("COMMIT")
    small.database.pass_horizon()
    assert small.ingest().rows == 4
    assert small.values("id") == sorted([*range(1, 5), *range(1, 9)])
    whole(small)


def test_a_table_that_is_read_by_its_timestamps_is_read_again_whole(tide: Tide) -> None:
    """The bound in time is for what is new; it is there again in the next window."""
    limits = replace(LIMITS, time_bound_bytes=0)
    tide.run("CREATE TABLE t (id int PRIMARY KEY, v int, created_at timestamptz)", "CREATE INDEX ON t (created_at)")
    tide.run("INSERT INTO t SELECT n, n, now() - n * interval '1 day' FROM generate_series(1, 9) n")
    assert tide.ingest(limits=limits).rows == 9
    tide.run("ALTER TABLE t RENAME v TO w")
    assert tide.ingest(limits=limits).rows == 9
    for n in range(10, 15):  # The server may be so busy that a window or two have to do without a bound.
        tide.run(f"INSERT INTO t VALUES ({n}, {n}, now())")
        assert tide.ingest(limits=limits).rows == 1
    whole(tide)
    bounded = [event.reading.leaves[0].bounded for event in tide.events()[2:] if event.reading]
    assert (bounded[0], bounded[-1]) == (False, True)


def test_a_change_and_its_undoing_are_two_changes(small: Tide) -> None:
    """Each with the rows as they were then; the document of before is the one of afterwards."""
    before = document(small)
    small.run("ALTER TABLE t RENAME name TO title")
    assert small.ingest().rows == 3
    small.run("ALTER TABLE t RENAME title TO name")
    assert small.ingest().rows == 3
    assert [changed.difference for changed in changes(small)] == [
        "column name renamed to title",
        "column title renamed to name",
    ]
    assert document(small) == before
    whole(small)


def test_an_emptied_table_is_not_read_again_and_again(small: Tide) -> None:
    """What comes later comes once."""
    small.run("TRUNCATE t", "ALTER TABLE t RENAME name TO title")
    assert [small.ingest().outcome, small.ingest().outcome] == ["unchanged", "unchanged"]
    for number in (4, 5):
        small.run(f"INSERT INTO t VALUES ({number}, 0)")
        assert small.ingest().rows == 1
    assert small.values("id") == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("when", "step"), [("after", COMMIT), ("before", CREATE), ("before", PUBLISH)])
def test_a_run_that_dies_after_it_told_of_a_change_is_made_up_for(small: Tide, when: str, step: object) -> None:
    """The next one reads the table whole, or publishes what was read."""
    small.run("ALTER TABLE t RENAME name TO title")
    process = Process()
    process.at(when, step, process.kill)  # type: ignore[arg-type] # a Step
    with pytest.raises(KilledError):
        small.ingest(s3=process.client(small.lake.s3))
    assert small.kinds()[1] == "schema_changed"
    small.run("UPDATE t SET v = 0 WHERE id = 1")
    small.ingest()
    assert small.kinds()[:3] == ["snapshotted", "schema_changed", "ingested"]
    assert len(small.lines()) - 3 == (4 if step == PUBLISH else 3)
    whole(small)
    assert small.ingest().outcome == "unchanged"
    small.lake.expire_uploads()


def test_a_table_that_has_grown_since_the_event_is_read_again_in_chunks(small: Tide) -> None:
    """The worker died in between."""
    small.run("ALTER TABLE t RENAME name TO title")
    process = Process()
    process.at("after", COMMIT, process.kill)
    with pytest.raises(KilledError):
        small.ingest(s3=process.client(small.lake.s3))
    small.run(ROWS.format(4, 1000))
    small.database.pass_horizon()
    assert small.ingest(limits=LARGE).outcome == "planned"
    small.read_chunks(limits=LARGE)
    assert small.ingest(limits=LARGE).outcome == "unchanged"
    assert small.values("id") == sorted([*range(1, 1001), 1, 2, 3])
    whole(small)


def test_two_workers_read_an_altered_table_once(small: Tide) -> None:
    """Whoever comes second finds it done, whether it lost the change or the increment."""
    for step in (COMMIT, CREATE):
        small.run("ALTER TABLE t RENAME name TO title" if step == COMMIT else "ALTER TABLE t RENAME title TO name")
        before = len(small.lines())
        other, process = small.ingestion(source=small.database.source()), Process()
        process.at("before", step, lambda other=other: other.ingest(NAME, seconds=SECONDS))  # type: ignore[misc] # its own
        assert small.ingest(s3=process.client(small.lake.s3)).outcome in ("unchanged", "covered")
        assert len(small.lines()) - before == 3
        whole(small)


def test_an_increment_that_was_read_before_the_change_was_told_is_thrown_away(small: Tide) -> None:
    """All that it holds is in the one that reads the table whole."""
    small.run("UPDATE t SET v = 9 WHERE id = 1")

    def alter() -> None:
        small.run("ALTER TABLE t RENAME name TO title")
        assert small.ingest(source=small.database.source()).rows == 3

    process = Process()
    process.at("before", COMMIT, alter)
    assert small.ingest(s3=process.client(small.lake.s3)).outcome == "covered"
    assert len(small.lines()) == 6
    whole(small)


def planned(tide: Tide) -> list[ReadChunk]:
    """Make a large table and plan it; return the messages of its chunks."""
    tide.run(*CREATE_T, ROWS.format(1, 1000))
    tide.database.pass_horizon()
    assert tide.ingest(limits=LARGE).outcome == "planned"
    return [message for message in tide.outbox.take() if isinstance(message, ReadChunk)]


def test_a_plan_under_way_ends_where_the_table_is_read_again(tide: Tide) -> None:
    """It has become small, or the limit was raised: no chunk is read that the increment holds."""
    messages = planned(tide)
    [first, *rest] = messages
    rows = tide.read_chunks([first])[0].rows
    tide.run("ALTER TABLE t RENAME name TO title")
    process = Process()
    process.at("before", CREATE, lambda: tide.read_chunks(rest[:1], source=tide.database.source()))
    assert tide.ingest(s3=process.client(tide.lake.s3)).rows == 1000
    assert not tide.state().plans
    assert {run.outcome for run in tide.read_chunks(messages)} == {"covered"}
    assert len(tide.lines()) == rows + 1000
    whole(tide)


def test_a_chunk_that_is_committed_while_the_change_is_told_comes_first(tide: Tide) -> None:
    """The change is told behind it."""
    [first, *_] = planned(tide)
    tide.run("ALTER TABLE t RENAME name TO title")
    process = Process()
    process.at("before", COMMIT, lambda: tide.read_chunks([first], source=tide.database.source()))
    assert tide.ingest(s3=process.client(tide.lake.s3)).rows == 1000
    assert [kind for kind in tide.kinds() if kind != "enqueued"] == [
        "planned",
        "chunk_read",
        "schema_changed",
        "ingested",
    ]
    whole(tide)


def test_a_plan_under_way_goes_on_where_the_table_is_too_large(tide: Tide) -> None:
    """Its chunks say which schema they have; the backfill makes the earlier ones good."""
    messages = planned(tide)
    tide.read_chunks(messages[:2])
    tide.run("ALTER TABLE t RENAME name TO title")
    tide.ingest(limits=LARGE)
    tide.read_chunks(messages[2:])
    assert tide.values("id") == list(range(1, 1001))
    read = [event.segment.schema for event in tide.events() if isinstance(event.what, ChunkRead) and event.segment]
    assert read[1] != read[2] == tide.state().schema
    backfill(tide)
    whole(tide)


@pytest.mark.parametrize("leave", ["DROP TABLE t", "ALTER TABLE t RENAME TO was"])
def test_a_table_created_anew_is_compared_by_the_names_of_its_columns(small: Tide, leave: str) -> None:
    """It is read whole for that reason alone; nothing was renamed."""
    small.run(
        f"BEGIN; {leave}; CREATE TABLE t (v int, id int CONSTRAINT anew PRIMARY KEY, y int DEFAULT 1); COMMIT",
        "INSERT INTO t VALUES (9, 8)",
    )
    assert small.ingest().outcome == "snapshotted"
    assert small.kinds() == ["snapshotted", "timeline_started", "schema_changed", "snapshotted"]
    assert isinstance(small.events()[1].what, TimelineStarted)
    [changed] = changes(small)
    assert "renamed" not in changed.difference
    assert changed.difference.startswith("column y added; column name dropped; column mood dropped; ")
    assert (changed.outdated, changed.again, changed.remedy) == ("", False, "")
    whole(small)


PARTED = [
    "CREATE TABLE t (id int, part int) PARTITION BY LIST (part)",
    *(f"CREATE TABLE t{n} PARTITION OF t FOR VALUES IN ({n})" for n in range(3)),
    "INSERT INTO t SELECT n, n % 3 FROM generate_series(1, 9) n",
]


@pytest.fixture
def parted(tide: Tide) -> Tide:
    """A table of three partitions that is in the lake."""
    tide.run(*PARTED)
    assert tide.ingest().rows == 9
    return tide


MOVES: dict[str, tuple[list[str], str, int]] = {
    "created": (["CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3)"], "partition public.t3 attached", 0),
    "attached": (
        [
            "CREATE TABLE t3 (LIKE t)",
            "INSERT INTO t3 VALUES (10, 3)",
            "ALTER TABLE t ATTACH PARTITION t3 FOR VALUES IN (3)",
        ],
        "partition public.t3 attached",
        1,
    ),
    "detached": (["ALTER TABLE t DETACH PARTITION t1"], "partition public.t1 detached", 0),
    "dropped": (["DROP TABLE t1"], "partition public.t1 dropped", 0),
    "renamed": (["ALTER TABLE t1 RENAME TO first"], "partition public.t1 renamed to public.first", 0),
    "exchanged": (
        [
            "CREATE TABLE next (LIKE t)",
            "INSERT INTO next VALUES (10, 1), (11, 1)",
            """BEGIN; ALTER TABLE t DETACH PARTITION t1; DROP TABLE t1; ALTER TABLE next RENAME TO t1;
               ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1); COMMIT""",
        ],
        "partition public.t1 attached; partition public.t1 dropped",
        2,
    ),
    "all detached": (
        [f"ALTER TABLE t DETACH PARTITION t{n}" for n in range(3)],
        "partition public.t0 detached; partition public.t1 detached; partition public.t2 detached",
        0,
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_partitions_that_come_and_go_are_told_once(parted: Tide, move: str) -> None:
    """Whether there is a new row or not; an attached one is read whole, and all that follows comes once."""
    statements, words, rows = MOVES[move]
    parted.run(*statements)
    assert parted.ingest().rows == rows
    assert moves(parted) == [words]
    assert not changes(parted)
    assert parted.ingest().outcome == "unchanged"
    assert moves(parted) == [words]
    assert parted.values("id") == list(range(1, 10 + rows))


def test_a_partition_that_is_away_for_some_events_goes_on_where_it_was_left(parted: Tide) -> None:
    """What was written to it meanwhile is read, and nothing else."""
    parted.run("ALTER TABLE t DETACH PARTITION t1")
    parted.ingest()
    parted.run("INSERT INTO t1 VALUES (10, 1)", "INSERT INTO t VALUES (11, 0)")
    assert parted.ingest().rows == 1
    parted.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)")
    assert parted.ingest().rows == 1
    assert moves(parted) == ["partition public.t1 detached", "partition public.t1 attached"]
    assert parted.values("id") == list(range(1, 12))


AWAY = {
    "a column added with a value": ["ALTER TABLE t ADD x int", "ALTER TABLE t1 ADD x int DEFAULT 5"],
    "a column added with a value, and written anew": [
        "ALTER TABLE t ADD x int",
        "ALTER TABLE t1 ADD x int DEFAULT 5",
        "VACUUM FULL t1",
    ],
    "a column of the same name": ["SELECT", "ALTER TABLE t1 DROP name", "ALTER TABLE t1 ADD name text"],
}


@pytest.mark.parametrize("change", AWAY)
@pytest.mark.parametrize("event", [False, True])
def test_a_partition_that_is_altered_while_it_is_away_is_read_whole(parted: Tide, change: str, event: bool) -> None:
    """Its rows have no new versions; whether there was a reading meanwhile or not. The event says so."""
    parted.run("ALTER TABLE t ADD name text")
    of_table, *of_partition = AWAY[change]
    parted.run("UPDATE t SET name = 'name'")
    assert parted.ingest().rows == 9
    parted.run("ALTER TABLE t DETACH PARTITION t1", of_table)
    if event:
        parted.run("INSERT INTO t (id, part) VALUES (11, 0)")
    assert parted.ingest().rows == event
    parted.run(*of_partition, "ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)")
    assert parted.ingest().rows == 3
    whole(parted)
    assert moves(parted) == [
        "partition public.t1 detached",
        "partition public.t1 attached; read whole, as it may have been altered: public.t1",
    ]
    assert parted.ingest().outcome == "unchanged"
    assert parted.verify().is_right


def test_a_thousand_partitions_make_no_event_longer(parted: Tide) -> None:
    """They are named in an object of their own, and in words only as far as anybody reads."""
    parted.run(
        "DO $$BEGIN FOR n IN 3..119 LOOP "
        "EXECUTE format('CREATE TABLE t%s PARTITION OF t FOR VALUES IN (%s)', n, n); END LOOP; END$$"
    )
    assert parted.ingest().outcome == "unchanged"
    [words] = moves(parted)
    assert words.startswith("partition public.t3 attached; partition public.t4 attached; ")
    assert words.endswith("partition public.t22 attached … and 97 more")
    assert len(parted.lake.body(parted.lake.keys("ledger/")[-1])) < 3000
    [schema] = [key for key in parted.lake.keys("schema/") if "partitions-" not in key]
    assert "t3" not in parted.lake.body(schema).decode()


def test_columns_and_partitions_that_change_at_once_are_two_events(parted: Tide) -> None:
    """And the table is read again, with the new partition."""
    parted.run(
        "ALTER TABLE t ADD x int DEFAULT 7",
        "CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3)",
        "INSERT INTO t VALUES (10, 3)",
    )
    assert parted.ingest().rows == 10
    assert parted.kinds() == ["snapshotted", "schema_changed", "partitions_changed", "ingested"]
    whole(parted)
    assert parted.ingest().outcome == "unchanged"


def test_a_run_that_saw_other_partitions_does_not_have_them_told_again(parted: Tide) -> None:
    """A slower worker's increment, of before the change, is committed behind it."""
    parted.run("INSERT INTO t VALUES (10, 0)")

    def attach() -> None:
        parted.run("CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3)")
        state = parted.state()
        with parted.database.source().open(NAME, seconds=SECONDS) as opened:
            Ingestion(parted.parts())._altering.record(opened, state, finished=0)

    process = Process()
    process.at("before", COMMIT, attach)
    assert parted.ingest(s3=process.client(parted.lake.s3)).rows == 1
    parted.run("INSERT INTO t VALUES (11, 3)")
    assert parted.ingest().rows == 1
    assert moves(parted) == ["partition public.t3 attached"]
    assert parted.values("id") == list(range(1, 12))


def test_a_partitioned_table_created_anew_tells_of_no_partitions(parted: Tide) -> None:
    """Those of before were another table's; those that follow are told."""
    parted.run("DROP TABLE t", *PARTED)
    assert parted.ingest().rows == 9
    parted.run("DROP TABLE t0")
    parted.ingest()
    assert parted.kinds() == ["snapshotted", "timeline_started", "snapshotted", "partitions_changed"]


def test_inheritance_is_told(small: Tide) -> None:
    """It changes no row of the table itself."""
    for statement in ("INHERIT parent", "NO INHERIT parent"):
        small.run(f"ALTER TABLE t {statement}")
        assert small.ingest().outcome == "unchanged"
    assert [changed.difference for changed in changes(small)] == [
        "inherits public.parent",
        "no longer inherits public.parent",
    ]


@pytest.fixture
def notices(post: Post, tide: Tide, clock: Clock) -> Callable[..., Notices]:
    """Return what makes the notices of another process."""
    return lambda process: Notices(
        process.client(post.sns), post.topic, "prod", Marks(tide.lake.ssm, tide.lake.prefix), clock
    )


def test_an_administrator_is_told_of_outdated_lines_once(
    large: Tide, post: Post, notices: Callable[..., Notices]
) -> None:
    """By whichever worker; with the reason and the command. It is told before the event, so never only there."""
    large.run("ALTER TABLE t RENAME name TO title")
    process = Process()
    process.at("before", COMMIT, process.kill)
    parts = large.parts(limits=LARGE, s3=process.client(large.lake.s3))
    with pytest.raises(KilledError):
        Ingestion(parts, notices(Process()).of_outdated).ingest(NAME, seconds=SECONDS)
    for _ in range(2):
        Ingestion(large.parts(limits=LARGE), notices(Process()).of_outdated).ingest(NAME, seconds=SECONDS)
    [(subject, text)] = post.notices()
    assert subject == "[prod] lines of public.t are outdated"
    assert "Because:   column name was renamed to title\n" in text
    assert "\n    tidelog backfill public.t --all --stack prod\n" in text


def test_a_notice_that_can_not_be_sent_fails_no_run(large: Tide, post: Post, notices: Callable[..., Notices]) -> None:
    """The event is there, and the rows come."""
    large.run("ALTER TABLE t RENAME name TO title", "INSERT INTO t VALUES (2000, 1)")
    process = Process()
    for _ in range(9):
        process.at("before", PUBLISH._replace(operation="publish"), refusal("InternalError"))
    unreachable = notices(process)
    with pytest.raises(StoreUnreachable):
        unreachable.send("something", "subject", "text")
    assert Ingestion(large.parts(limits=LARGE), unreachable.of_outdated).ingest(NAME, seconds=SECONDS).rows == 1
    assert changes(large)[0].remedy
    assert post.notices() == []


def test_a_table_of_an_odd_name_is_quoted_for_the_shell(tide: Tide) -> None:
    """The command can be copied as it stands."""
    tide.run('CREATE TABLE "it\'s" AS SELECT 1 AS id')
    tide.ingest('public."it\'s"')
    tide.run('ALTER TABLE "it\'s" RENAME id TO key')
    tide.ingest('public."it\'s"', limits=replace(LIMITS, chunk_bytes=1))
    [changed] = changes(tide, 'public."it\'s"')
    assert shlex.split(changed.remedy) == ["tidelog", "backfill", 'public."it\'s"', "--all"]


def test_lines_of_before_can_be_read_by_the_schema_of_their_event(small: Tide) -> None:
    """Each segment names its document, and numbers tell which column is which."""
    small.run("ALTER TABLE t RENAME name TO title")
    small.ingest()
    names = []
    for event in small.events():
        if isinstance(event.what, Ingested) or event.offset == 1:
            assert event.segment
            body = small.lake.body(f"schema/public.t/{event.segment.schema}.json")
            names += [column["name"] for column in json.loads(body)["columns"] if column["number"] == 3]
    assert names == ["name", "title"]
