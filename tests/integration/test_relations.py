"""Which relations a run reads: leaves of partitioned tables, parents without their children, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import replace
from pg8000.exceptions import DatabaseError

from tests.tide import LIMITS, SECONDS, Tide, wait_for
from tidelog.catalog import read_relations
from tidelog.errors import DatabaseBusy, NotIngestible, UnknownTable
from tidelog.opening import OpenTable
from tidelog.selection import Selection
from tidelog.tables import TableName

MEASURES = [
    "CREATE TABLE t (id int, at date, v text) PARTITION BY RANGE (at)",
    # Created with its columns in another order, and with one dropped.
    "CREATE TABLE y1 (v text, gone int, at date, id int)",
    "ALTER TABLE y1 DROP gone",
    "ALTER TABLE t ATTACH PARTITION y1 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "CREATE TABLE y2 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (v)",
    "CREATE TABLE y2_a PARTITION OF y2 FOR VALUES IN ('a')",
    "CREATE TABLE y2_rest PARTITION OF y2 DEFAULT",
    "CREATE TABLE rest PARTITION OF t DEFAULT",
    "INSERT INTO t VALUES (1, '2025-06-01', 'a'), (2, '2026-06-01', 'a'), (3, '2026-06-01', 'b')",
    "INSERT INTO t VALUES (4, '1999-01-01', NULL)",
]


@pytest.fixture
def partitioned(tide: Tide) -> Tide:
    """A partitioned table with a leaf of other column order, sub-partitions and default partitions, in the lake."""
    tide.run(*MEASURES)
    assert tide.ingest().rows == 4
    return tide


def test_every_leaf_is_read_in_the_parents_column_order(partitioned: Tide) -> None:
    """However deep it is, and as one segment."""
    assert [list(row) for row in partitioned.rows()] == [["id", "at", "v"]] * 4
    assert partitioned.latest() == partitioned.table()
    assert len(partitioned.segments()) == 1
    assert len(partitioned.state().leaves) == 4


def test_a_virtual_column_is_computed_as_the_partitioned_table_says(tide: Tide) -> None:
    """A partition may have another expression; whoever asks the table does not see that."""
    tide.run(
        'CREATE TABLE t (id int, part int, "a""b" text, g text GENERATED ALWAYS AS ("a""b" || id) VIRTUAL, '
        "flag bool GENERATED ALWAYS AS (id > 1) VIRTUAL) PARTITION BY LIST (part)",
        'CREATE TABLE t1 (id int, part int, "a""b" text, g text GENERATED ALWAYS AS (\'other\') VIRTUAL, '
        "flag bool GENERATED ALWAYS AS (true) VIRTUAL)",
        "ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1)",
        "INSERT INTO t VALUES (1, 1, 'x'), (2, 1, NULL)",
    )
    tide.ingest()
    assert tide.latest() == tide.table()
    assert [row["g"] for row in tide.rows()] == ["x1", None]
    assert tide.verify().is_right


def test_a_virtual_column_of_a_partitioned_table_has_its_own_type(tide: Tide) -> None:
    """Whatever type its expression is of, which is cast on assignment."""
    tide.run(
        "CREATE TABLE t (id int, at timestamp, a text GENERATED ALWAYS AS (id) VIRTUAL, "
        "b date GENERATED ALWAYS AS (at) VIRTUAL, c numeric(8, 2) GENERATED ALWAYS AS (id / 3.0) VIRTUAL, "
        "d character(3) GENERATED ALWAYS AS ('x') VIRTUAL, e timestamp(0) GENERATED ALWAYS AS (at) VIRTUAL, "
        "f text GENERATED ALWAYS AS (id > 1) VIRTUAL, g real GENERATED ALWAYS AS (id / 3.0) VIRTUAL, "
        "h varchar(9)[] GENERATED ALWAYS AS (ARRAY[id]) VIRTUAL) PARTITION BY LIST (id)",
        "CREATE TABLE t1 PARTITION OF t DEFAULT",
        "INSERT INTO t (id, at) VALUES (1, '2024-01-01 10:00:00.6'), (2, NULL)",
    )
    tide.ingest()
    assert tide.latest() == tide.table()
    assert [(row["a"], row["c"], row["f"]) for row in tide.rows()] == [("1", 0.33, "false"), ("2", 0.67, "true")]
    assert tide.verify().is_right


def test_a_row_that_moves_to_another_partition_comes_once(partitioned: Tide) -> None:
    """It is deleted there and inserted here."""
    partitioned.run("UPDATE t SET at = '2025-02-02', v = 'moved' WHERE id = 3", "UPDATE t SET v = 'c' WHERE id = 2")
    assert partitioned.ingest().rows == 2
    assert partitioned.latest() == partitioned.table()


def test_a_filled_table_is_read_whole_once_when_it_is_attached(partitioned: Tide) -> None:
    """Its rows may be older than the horizon; later runs read only what is new in it."""
    partitioned.run(
        "CREATE TABLE y0 (LIKE t)", "INSERT INTO y0 SELECT n, '2024-05-05', 'x' FROM generate_series(10, 14) n"
    )
    partitioned.run("INSERT INTO t VALUES (5, '2025-06-01', 'a')")
    partitioned.ingest()
    partitioned.run("ALTER TABLE t ATTACH PARTITION y0 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    assert partitioned.ingest().rows == 5
    partitioned.run("INSERT INTO t VALUES (15, '2024-06-06', 'x')")
    assert partitioned.ingest().rows == 1
    assert partitioned.ingest().outcome == "unchanged"
    assert partitioned.values("id") == [*range(1, 6), *range(10, 16)]


def test_a_partition_that_comes_back_goes_on_where_it_was_left(partitioned: Tide) -> None:
    """What was written to it while it was away is read, nothing else; also where it comes back a second time."""
    bounds = "FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')"
    for number in range(2):
        partitioned.run("ALTER TABLE t DETACH PARTITION y1", f"INSERT INTO t VALUES ({10 + number}, '2026-06-01', 'a')")
        assert partitioned.ingest().rows == 1
        assert len(partitioned.state().past) == 1
        partitioned.run(
            f"INSERT INTO y1 (id, at) VALUES ({20 + number}, '2025-03-03')",
            f"INSERT INTO t VALUES ({30 + number}, '2026-06-01', 'a')",
        )
        assert partitioned.ingest().rows == 1
        partitioned.run(f"ALTER TABLE t ATTACH PARTITION y1 {bounds}")
        assert partitioned.ingest().rows == 1
        assert partitioned.state().past == {}
    assert partitioned.values("id") == [1, 2, 3, 4, 10, 11, 20, 21, 30, 31]


def test_a_partition_detached_while_others_ran_ahead_loses_and_repeats_nothing(partitioned: Tide) -> None:
    """Ids above the horizon that were emitted of it are remembered with it."""
    with partitioned.database.session() as long:
        long.run("BEGIN; INSERT INTO t VALUES (50, '2025-05-05', 'late')")
        partitioned.run("INSERT INTO t VALUES (10, '2025-06-01', 'a')")
        assert partitioned.ingest().rows == 1
        long.run("COMMIT")
    partitioned.run("ALTER TABLE t DETACH PARTITION y1", "INSERT INTO t VALUES (11, '2026-06-01', 'a')")
    assert partitioned.ingest().rows == 1
    partitioned.run("ALTER TABLE t ATTACH PARTITION y1 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')")
    assert partitioned.ingest().rows == 1
    assert partitioned.values("id") == [1, 2, 3, 4, 10, 11, 50]


def test_a_dropped_partition_leaves_its_rows_in_the_lake(partitioned: Tide) -> None:
    """And the others go on."""
    partitioned.run("DROP TABLE y2_a")
    assert partitioned.ingest().outcome == "unchanged"
    partitioned.run("INSERT INTO t VALUES (9, '2025-01-01', 'x')")
    assert partitioned.ingest().rows == 1
    assert partitioned.values("id") == [1, 2, 3, 4, 9]


def test_a_partitioned_table_without_partitions_has_no_rows(tide: Tide) -> None:
    """It is taken as soon as it has one."""
    tide.run("CREATE TABLE t (id int) PARTITION BY LIST (id)")
    assert tide.ingest().outcome == "unchanged"
    tide.run("CREATE TABLE one PARTITION OF t FOR VALUES IN (1)", "INSERT INTO t VALUES (1)")
    assert tide.ingest().rows == 1


def test_an_inheritance_parent_is_read_without_its_children(tide: Tide) -> None:
    """They are tables of their own, with columns of their own."""
    tide.run("CREATE TABLE t (id int)", "CREATE TABLE child (more text) INHERITS (t)")
    tide.run("INSERT INTO t VALUES (1)", "INSERT INTO child VALUES (2, 'x')")
    tide.ingest()
    tide.ingest("public.child")
    assert (tide.rows(), tide.rows("public.child")) == ([{"id": 1}], [{"id": 2, "more": "x"}])


def test_a_foreign_partition_is_refused_by_name(partitioned: Tide) -> None:
    """Its rows have no transaction ids, and would silently never come."""
    partitioned.run(
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE FOREIGN TABLE \"far away\" PARTITION OF t FOR VALUES FROM ('2030-01-01') TO ('2031-01-01') SERVER far",
    )
    with pytest.raises(NotIngestible, match=r'its partition public\."far away" is a foreign table. Detach it'):
        partitioned.ingest()


RELATIONS = {
    "a view": ["CREATE VIEW t AS SELECT 1 AS xmin"],
    "a foreign table": [
        "CREATE EXTENSION file_fdw",
        "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
        "CREATE FOREIGN TABLE t (x text) SERVER files OPTIONS (filename '/dev/null')",
    ],
    "a sequence": ["CREATE SEQUENCE t"],
    "an index": ["CREATE TABLE x (id int)", "CREATE INDEX t ON x (id)"],
    "a type": ["CREATE TYPE t AS (x int)"],
    "a materialized view that was never refreshed": ["CREATE MATERIALIZED VIEW t AS SELECT 1 AS id WITH NO DATA"],
}


@pytest.mark.parametrize("what", RELATIONS)
def test_what_has_no_row_versions_of_its_own_is_refused_with_the_reason(tide: Tide, what: str) -> None:
    """No retry would help, and nothing is written."""
    tide.run(*RELATIONS[what])
    with pytest.raises(NotIngestible, match=f"read public.t: {what}"):
        tide.ingest()
    assert tide.lake.keys() == []
    tide.run("CREATE TABLE fine (id int)", "INSERT INTO fine VALUES (1)")
    assert tide.ingest("public.fine").rows == 1


@pytest.mark.parametrize("name", ["public.nosuch", "nosuch.t", "public.T", "pg_catalog.nosuch"])
def test_a_table_that_is_not_there_is_a_key_error(tide: Tide, name: str) -> None:
    """Whether the schema is there or not; case counts."""
    tide.run("CREATE TABLE t (id int)")
    with pytest.raises(UnknownTable) as missing:
        tide.ingest(name)
    assert isinstance(missing.value, KeyError)
    assert str(missing.value).startswith(f"read {name}: ")


def test_a_materialized_view_comes_whole_with_each_refresh(tide: Tide) -> None:
    """Its rows are new versions then; a concurrent refresh makes only those that changed."""
    tide.run(
        "CREATE TABLE base (id int, v int)",
        "INSERT INTO base VALUES (1, 1), (2, 2)",
        "CREATE MATERIALIZED VIEW t AS SELECT * FROM base",
        "CREATE UNIQUE INDEX ON t (id)",
    )
    assert tide.ingest().rows == 2
    assert tide.ingest().rows == 0
    tide.run("UPDATE base SET v = 20 WHERE id = 2", "REFRESH MATERIALIZED VIEW t")
    assert tide.ingest().rows == 2
    tide.run("UPDATE base SET v = 10 WHERE id = 1", "REFRESH MATERIALIZED VIEW CONCURRENTLY t")
    assert tide.ingest().rows == 1
    assert tide.latest() == tide.table()


def test_a_materialized_view_that_is_refreshed_as_its_first_run_begins_is_read_once(tide: Tide) -> None:
    """Its rows come frozen, so that a snapshot sees them that is older than they are: another one is taken."""
    tide.run("CREATE MATERIALIZED VIEW t AS SELECT n AS id, 0 AS v FROM generate_series(1, 10) n")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with tide.database.session() as other, ThreadPoolExecutor(1) as pool:
        other.run("BEGIN; REFRESH MATERIALIZED VIEW t")
        run = pool.submit(tide.ingest)
        wait_for(lambda: tide.database.one(waiting))
        other.run("COMMIT")
        assert run.result().rows == 10
    tide.database.pass_horizon()
    tide.ingest()
    assert tide.values("id") == list(range(1, 11))


def test_nothing_rewrites_a_materialized_view_that_is_read(tide: Tide) -> None:
    """From its description on it is locked, as a table is."""
    tide.run("CREATE MATERIALIZED VIEW t AS SELECT 1 AS id")
    with tide.source.open(TableName("public", "t"), seconds=SECONDS), tide.database.session() as other:
        other.run("SET lock_timeout = 100")
        for statement in ("VACUUM FULL t", "REFRESH MATERIALIZED VIEW t"):
            with pytest.raises(DatabaseError, match="lock timeout"):
                other.run(statement)


def test_the_relations_of_a_database_are_its_users_own(tide: Tide) -> None:
    """No partition, no temporary table, nothing of the system; each with its kind."""
    tide.run(
        *MEASURES,
        'CREATE SCHEMA "S.x"',
        'CREATE UNLOGGED TABLE "S.x"."T t" (id int)',
        "CREATE TEMPORARY TABLE hidden (id int)",
        "CREATE VIEW v AS SELECT 1 AS one",
        "CREATE MATERIALIZED VIEW filled AS SELECT 1 AS one",
        "CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA",
        "CREATE SEQUENCE s",
    )
    relations = tide.source.relations()
    assert {(str(relation.table_name), relation.kind, relation.populated) for relation in relations} == {
        ("public.t", "p", True),
        ('"S.x"."T t"', "r", True),
        ("public.v", "v", True),
        ("public.filled", "m", True),
        ("public.unfilled", "m", False),
    }
    selected = Selection().apply(relations)
    assert [str(name) for name in selected.tables] == ['"S.x"."T t"', "public.filled", "public.t"]
    for name in selected.tables:
        tide.ingest(str(name))


def test_an_empty_database_has_no_relations(tide: Tide) -> None:
    """Which is no error."""
    assert tide.source.relations() == ()
    assert read_relations("[]") == ()


def test_a_table_that_is_locked_for_long_is_tried_again_later(tide: Tide) -> None:
    """A rewrite under way is waited for, but not for ever."""
    impatient = tide.database.source(lock_seconds=0.05)
    tide.run("CREATE TABLE t (id int)")
    with tide.database.session() as session:
        session.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseBusy, match=r"read public\.t: .*SQLSTATE 55P03.*end it, or wait"):
            tide.ingest(source=impatient)
    assert tide.ingest().outcome == "unchanged"


def test_a_table_truncated_before_it_is_opened_is_never_seen_empty(tide: Tide) -> None:
    """The lock is taken before the snapshot: what waits for a rewrite sees what it made."""
    tide.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    with tide.database.session() as session, tide.source.open(TableName("public", "t"), seconds=SECONDS) as opened:
        session.run("SET lock_timeout = '20ms'")
        with pytest.raises(Exception, match="lock timeout"):
            session.run("TRUNCATE t")
        assert opened.table.leaves[0].locked


def test_a_connection_that_broke_is_opened_again(tide: Tide) -> None:
    """A worker lives for hours; the server or the network may end its connection between two runs."""
    tide.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    tide.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'tidelog' AND datname = current_database()"
    )
    tide.run("INSERT INTO t VALUES (2)")
    assert tide.ingest(limits=LIMITS).rows == 1


SWAPPED = (
    "ALTER SCHEMA parts RENAME TO other",
    "ALTER SCHEMA spare RENAME TO parts",
    "ALTER SCHEMA other RENAME TO spare",
)


@pytest.mark.parametrize("step", ["find", "copy"])
def test_a_partition_whose_schema_is_exchanged_while_it_is_read_is_read_again(
    tide: Tide, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """No lock on a table keeps its schema from being renamed: another table of the same shape has its name by then."""
    tide.run(
        *("CREATE SCHEMA parts", "CREATE SCHEMA spare", "CREATE TABLE spare.p1 (id int, part int)"),
        "CREATE TABLE t (id int, part int) PARTITION BY LIST (part)",
        "CREATE TABLE p0 PARTITION OF t FOR VALUES IN (0)",
        "CREATE TABLE parts.p1 PARTITION OF t FOR VALUES IN (1)",
        "INSERT INTO t VALUES (0, 0), (1, 1)",
    )
    tide.ingest()
    tide.run("INSERT INTO t VALUES (2, 0), (3, 1)")
    real, swaps = getattr(OpenTable, step), list(SWAPPED)

    def swapping(self: OpenTable, *arguments: Any) -> Any:
        tide.run("SELECT 1", *swaps)
        swaps.clear()
        return real(self, *arguments)

    monkeypatch.setattr(OpenTable, step, swapping)
    with pytest.raises(DatabaseBusy):
        tide.ingest()
    assert tide.ingest().rows == 2
    assert tide.values("id") == [0, 1, 2, 3]


def test_a_chunk_of_a_partition_whose_schema_is_exchanged_is_read_again(
    tide: Tide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the other table gets into the lake."""
    tide.run(
        *("CREATE SCHEMA parts", "CREATE SCHEMA spare", "CREATE TABLE spare.p1 (id int, part int, text text)"),
        "CREATE TABLE t (id int, part int, text text) PARTITION BY LIST (part)",
        "CREATE TABLE parts.p1 PARTITION OF t FOR VALUES IN (1)",
        "INSERT INTO t SELECT n, 1, repeat('x', 200) FROM generate_series(1, 1000) n",
        "INSERT INTO spare.p1 SELECT n, 1, repeat('y', 200) FROM generate_series(5001, 6000) n",
    )
    tide.database.pass_horizon()
    limits = replace(LIMITS, chunk_bytes=16 * 8192)
    assert tide.ingest(limits=limits).outcome == "planned"
    messages, real, swaps = tide.outbox.take(), OpenTable.copy, list(SWAPPED)

    def swapping(self: OpenTable, *arguments: Any) -> Any:
        tide.run("SELECT 1", *swaps)
        swaps.clear()
        return real(self, *arguments)

    monkeypatch.setattr(OpenTable, "copy", swapping)
    with pytest.raises(DatabaseBusy, match="a schema was renamed meanwhile"):
        tide.read_chunks(messages, limits=limits)
    tide.read_chunks(messages, limits=limits)
    assert tide.values("id") == list(range(1, 1001))
