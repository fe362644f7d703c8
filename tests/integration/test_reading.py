"""What a run reads: every row version once, whatever transactions do."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from pg8000.exceptions import DatabaseError

from tests.tide import Tide, wait_for
from tidelog import glancing, ingesting, planning
from tidelog.errors import AccessDenied, DatabaseBusy
from tidelog.readings import undelta
from tidelog.tables import TableName
from tidelog.windows import Window

DATABASE = (Path(__file__).parents[2] / "docs" / "database.md").read_text(encoding="utf-8")
CREATE = "CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 0)"


@pytest.fixture
def filled(tide: Tide) -> Tide:
    """A table of three rows that is in the lake."""
    tide.run(CREATE, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    assert tide.ingest().outcome == "snapshotted"
    return tide


def new(tide: Tide, **parts: Any) -> list[int]:
    """Run the table; return the `v` of each line that came of it, sorted."""
    before = tide.segments().keys()
    run = tide.ingest(**parts)
    lines = [row["v"] for row in tide.rows()]
    assert run.rows == sum(len(lines) for key, lines in tide.segments().items() if key not in before)
    return sorted(lines[len(lines) - run.rows :]) if run.rows else []


def test_a_run_without_a_change_writes_nothing(filled: Tide) -> None:
    """No object, no event: an idle table costs nothing."""
    before = filled.lake.keys()
    run = filled.ingest()
    assert (run.outcome, run.rows, run.bytes, run.key) == ("unchanged", 0, 0, None)
    assert filled.lake.keys() == before


def test_an_empty_table_is_in_the_lake_from_its_first_row_on(tide: Tide) -> None:
    """Until then there is nothing but its schema document."""
    tide.run(CREATE)
    assert [tide.ingest().outcome, tide.ingest().outcome] == ["unchanged", "unchanged"]
    assert tide.lake.keys("data/") == tide.lake.keys("ledger/") == []
    tide.run("INSERT INTO t VALUES (1)")
    assert (tide.ingest().outcome, tide.values("id")) == ("snapshotted", [1])


def test_a_run_says_what_it_did(filled: Tide) -> None:
    """Rows, bytes, sequential id, key and how the rows were found."""
    filled.run("INSERT INTO t VALUES (4, 4)")
    run = filled.ingest()
    assert (run.table, run.outcome, run.rows, run.sequential_id, run.timestamp) == ("public.t", "ingested", 1, 1, None)
    assert run.key in filled.segments()
    assert run.bytes == len(filled.lake.body(run.key or ""))
    assert run.strategy == "xmin: it has no timestamp column"


def test_the_horizon_of_a_quiet_table_is_moved_up_before_it_is_out_of_reach(
    filled: Tide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an event that has no segment; nothing is lost or repeated by it."""
    monkeypatch.setattr(ingesting, "LAG", 20)
    monkeypatch.setattr(glancing, "LAG", 20)
    before = filled.state()
    filled.run(*["SELECT pg_current_xact_id()"] * 25)
    filled.database.pass_horizon()
    assert filled.ingest().outcome == "unchanged"
    assert filled.kinds() == ["snapshotted", "advanced"]
    assert filled.state().horizon > before.horizon
    assert filled.state().sequential_id == 0
    filled.run("INSERT INTO t VALUES (4, 4)")
    assert new(filled) == [4]
    assert filled.values("id") == [1, 2, 3, 4]


def test_inserts_and_updates_come_once_and_deletes_not_at_all(filled: Tide) -> None:
    """A row updated twice between two runs comes as it is last."""
    filled.run(
        "INSERT INTO t VALUES (4, 40)",
        "UPDATE t SET v = 10 WHERE id = 1",
        "UPDATE t SET v = 11 WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
    )
    assert new(filled) == [11, 40]
    assert new(filled) == []


WRITES: dict[str, tuple[list[str], list[int]]] = {
    "a no-op update is a new version": (["UPDATE t SET v = v WHERE id < 3"], [1, 2]),
    "on conflict do update": (["INSERT INTO t VALUES (1, 7), (4, 8) ON CONFLICT (id) DO UPDATE SET v = 7"], [7, 8]),
    "on conflict do nothing": (["INSERT INTO t VALUES (1, 7), (4, 8) ON CONFLICT DO NOTHING"], [8]),
    "merge": (
        [
            """MERGE INTO t USING (VALUES (1), (9)) s(id) ON s.id = t.id
               WHEN MATCHED THEN UPDATE SET v = 5 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 6)"""
        ],
        [5, 6],
    ),
    "a rollback": (["BEGIN; INSERT INTO t VALUES (4, 4); ROLLBACK"], []),
    "savepoints, kept and rolled back": (
        [
            """BEGIN; SAVEPOINT a; UPDATE t SET v = 7 WHERE id = 1; ROLLBACK TO a;
               SAVEPOINT b; UPDATE t SET v = 8 WHERE id = 2; RELEASE b; INSERT INTO t VALUES (4, 9); COMMIT"""
        ],
        [8, 9],
    ),
    "a plpgsql exception block": (
        [
            """DO $$BEGIN
                 INSERT INTO t VALUES (4, 4);
                 BEGIN INSERT INTO t VALUES (5, 5); INSERT INTO t VALUES (1, 1);
                 EXCEPTION WHEN unique_violation THEN INSERT INTO t VALUES (6, 6); END;
               END$$"""
        ],
        [4, 6],
    ),
    "truncate and reload at once": (["BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, 1), (5, 5); COMMIT"], [1, 5]),
    "two-phase commit": (
        ["BEGIN; INSERT INTO t VALUES (4, 4); PREPARE TRANSACTION '{database}'", "COMMIT PREPARED '{database}'"],
        [4],
    ),
    "a table rewrite by a changed type": (["ALTER TABLE t ALTER v TYPE bigint"], [1, 2, 3]),
    "locked rows": (["SELECT * FROM t FOR UPDATE", "SELECT * FROM t FOR SHARE"], []),
    "vacuum": (["VACUUM t"], []),
    "vacuum full": (["VACUUM FULL t"], []),
    "vacuum freeze": (["VACUUM FREEZE t"], []),
    "cluster": (["CLUSTER t USING t_pkey"], []),
    "reindex and analyze": (["REINDEX TABLE t", "ANALYZE t"], []),
    "a dropped column": (["ALTER TABLE t ADD w int", "ALTER TABLE t DROP w"], []),
}


@pytest.mark.parametrize("write", WRITES)
def test_exactly_the_new_row_versions_are_read(filled: Tide, write: str) -> None:
    """Of whatever kind the write is; maintenance and locks make no versions."""
    statements, expected = WRITES[write]
    filled.run(*(statement.format(database=filled.database.name) for statement in statements))
    assert new(filled) == expected
    assert new(filled) == []
    assert {row["v"] for row in filled.latest().values()} >= {row["v"] for row in filled.table().values()}


def test_rows_of_copy_freeze_come_once(filled: Tide) -> None:
    """They are born frozen, and seen by snapshots that are older than they."""
    with filled.database.session() as session:
        session.run("BEGIN; TRUNCATE t")
        session.run("COPY t FROM STDIN WITH (FREEZE)", stream=[b"7\t7\n", b"8\t8\n"])
        session.run("COMMIT")
    assert new(filled) == [7, 8]
    assert new(filled) == []


def test_several_rows_of_one_locker_and_updater_come_as_updated(filled: Tide) -> None:
    """A row locked by others while it is updated has a multixact; its xmin is the writer's all the same."""
    with filled.database.session() as one, filled.database.session() as other:
        one.run("BEGIN; SELECT * FROM t FOR KEY SHARE")
        other.run("BEGIN; UPDATE t SET v = 50 WHERE id = 1")
        other.run("COMMIT")
        assert new(filled) == [50]
        one.run("COMMIT")
    assert new(filled) == []


def test_commits_out_of_order_lose_nothing(filled: Tide) -> None:
    """The transaction that began first commits last, after a run has read past it."""
    with filled.database.session() as early, filled.database.session() as prepared:
        early.run("BEGIN; INSERT INTO t VALUES (10, 10)")
        prepared.run("BEGIN; INSERT INTO t VALUES (11, 11)")
        filled.run("INSERT INTO t VALUES (12, 12)")
        assert new(filled) == [12]
        prepared.run(f"PREPARE TRANSACTION '{filled.database.name}'")
        filled.run("INSERT INTO t VALUES (13, 13)")
        assert new(filled) == [13]
        early.run("COMMIT")
        assert new(filled) == [10]
        filled.run(f"COMMIT PREPARED '{filled.database.name}'")
        assert new(filled) == [11]
    assert new(filled) == []
    assert filled.values("id") == [1, 2, 3, 10, 11, 12, 13]


def test_a_long_transaction_holds_up_nobodys_rows_but_its_own(filled: Tide) -> None:
    """The others' are remembered as ahead while it runs, and forgotten once it has ended."""
    with filled.database.session() as long:
        [[held]] = long.run("BEGIN; SELECT pg_current_xact_id()::text::bigint")
        long.run("INSERT INTO t VALUES (100, 100)")
        for number in range(10, 15):
            filled.run(f"INSERT INTO t VALUES ({number}, {number})")
            assert new(filled) == [number]
        xids = {
            xid + 2**32 * (held >> 32)
            for xid in filled.database.column("SELECT xmin::text::bigint FROM t WHERE id >= 10")
        }
        assert xids <= set(undelta(filled.state().ahead))
        assert filled.state().horizon <= held
        long.run("COMMIT")
    assert new(filled) == [100]
    assert held not in undelta(filled.state().ahead) or filled.state().horizon <= held
    assert new(filled) == []


@pytest.fixture
def small_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ids ahead of the horizon are too many to remember."""
    monkeypatch.setattr(planning, "AHEAD_CAP", 2)


def test_with_too_much_ahead_only_what_is_below_the_horizon_is_read(filled: Tide, small_cap: None) -> None:
    """It says so; nothing is lost and nothing is written twice before, in or after that."""
    with filled.database.session() as long:
        long.run("BEGIN; SELECT pg_current_xact_id()")
        for number in range(10, 15):
            filled.run(f"INSERT INTO t VALUES ({number}, {number})")
            new(filled)
        assert filled.values("id") != [1, 2, 3, *range(10, 15)]
        long.run("COMMIT")
        filled.run("INSERT INTO t VALUES (20, 20)")
    filled.database.pass_horizon()
    new(filled)
    assert filled.values("id") == [1, 2, 3, *range(10, 15), 20]


def test_a_reading_below_the_horizon_says_so(filled: Tide, small_cap: None) -> None:
    """Its event has `below`, and the ids that it skipped are not taken for emitted."""
    with filled.database.session() as long, filled.database.session() as longer:
        [[early]] = longer.run("BEGIN; SELECT pg_current_xact_id()::text::bigint")
        longer.run("INSERT INTO t VALUES (99, 99)")
        filled.run("INSERT INTO t VALUES (10, 10)")
        assert new(filled) == [10]
        long.run("BEGIN; SELECT pg_current_xact_id()")
        filled.run("UPDATE t SET v = 11 WHERE id = 10", *(f"INSERT INTO t VALUES ({n}, {n})" for n in (12, 13)))
        longer.run("COMMIT")
        # Other tests' transactions may hold the horizon for a moment.
        wait_for(lambda: filled.database.one(f"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > {early}"))
        assert new(filled) == [99]
        reading = filled.events()[-1].reading
        assert reading is not None
        assert reading.below
        long.run("COMMIT")
    filled.database.pass_horizon()
    assert new(filled) == [11, 12, 13]
    assert filled.values("v") == [1, 2, 3, 10, 11, 12, 13, 99]


def test_a_partition_attached_while_too_much_is_ahead_is_read_once(tide: Tide, small_cap: None) -> None:
    """Also the rows in it of transactions that were emitted from other partitions."""
    tide.run(
        "CREATE TABLE t (id int, v int) PARTITION BY LIST (v)",
        "CREATE TABLE one PARTITION OF t FOR VALUES IN (1)",
        "CREATE TABLE two (id int, v int)",
        "INSERT INTO t VALUES (0, 1)",
    )
    tide.ingest()
    with tide.database.session() as long:
        long.run("BEGIN; SELECT pg_current_xact_id()")
        tide.run("BEGIN; INSERT INTO t VALUES (1, 1); INSERT INTO two VALUES (2, 2); COMMIT")
        tide.ingest()
        assert tide.values("id") == [0, 1]
        tide.run(
            "ALTER TABLE t ATTACH PARTITION two FOR VALUES IN (2)",
            *(f"INSERT INTO t VALUES ({i}, {i % 2 + 1})" for i in range(3, 9)),
        )
        tide.ingest()
        assert tide.events()[-1].reading.below  # type: ignore[union-attr] # it is a reading
        assert tide.values("id") == [0, 1, 2]
        long.run("COMMIT")
    tide.database.pass_horizon()
    tide.ingest()
    assert tide.values("id") == list(range(9))


@pytest.mark.parametrize("leave", ["DROP TABLE t", "ALTER TABLE t RENAME TO was"])
def test_a_table_that_was_created_anew_is_read_whole_on_a_new_timeline(filled: Tide, leave: str) -> None:
    """Dropped, or swapped by renaming: its rows may be older than the horizon."""
    filled.run(
        "CREATE TABLE next (LIKE t INCLUDING ALL)",
        "INSERT INTO next VALUES (1, 21), (2, 22)",
        "INSERT INTO t VALUES (4, 4)",
    )
    filled.ingest()
    filled.run(f"BEGIN; {leave}; ALTER TABLE next RENAME TO t; COMMIT")
    run = filled.ingest()
    assert (run.outcome, run.rows) == ("snapshotted", 2)
    assert filled.kinds() == ["snapshotted", "ingested", "timeline_started", "snapshotted"]
    assert "created anew" in filled.events()[2].what.reason  # type: ignore[union-attr] # it is a TimelineStarted
    assert filled.state().timeline == 2
    assert {key: filled.latest()[key] for key in (1, 2)} == filled.table()
    filled.run("INSERT INTO t VALUES (5, 5)")
    assert new(filled) == [5]
    assert filled.state().sequential_id == 2


def test_changed_columns_are_an_event_and_a_new_document(filled: Tide) -> None:
    """With the difference in words; the lines after it have the new keys."""
    filled.run("ALTER TABLE t ADD note text DEFAULT 'none', ALTER v DROP NOT NULL", "INSERT INTO t VALUES (4, 4, 'x')")
    filled.ingest()
    assert filled.kinds() == ["snapshotted", "schema_changed", "ingested"]
    assert filled.events()[1].what.difference == "column note added; column v changed (not_null True to False)"  # type: ignore[union-attr] # it is a SchemaChanged
    assert filled.rows()[-1] == {"id": 4, "v": 4, "note": "x"}
    assert len(filled.lake.keys("schema/")) == 2
    filled.run("ALTER TABLE t DROP note")
    assert filled.ingest().outcome == "unchanged"
    assert filled.kinds()[-1] == "schema_changed"
    assert filled.ingest().outcome == "unchanged"
    assert len(filled.events()) == 4


def test_a_renamed_enum_value_is_a_changed_column(tide: Tide) -> None:
    """Old rows change what they say without a new version; also where the enum is inside of another type."""
    tide.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN mine AS mood",
        "CREATE TYPE pair AS (m mood, n int)",
        *(
            f"CREATE TABLE t_{name} AS SELECT NULL::{kind} AS x"
            for name, kind in [("e", "mood"), ("a", "mood[]"), ("d", "mine"), ("c", "pair")]
        ),
    )
    for name in "eadc":
        tide.ingest(f"public.t_{name}")
    tide.run("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'")
    for name in "eadc":
        tide.ingest(f"public.t_{name}")
        assert tide.kinds(f"public.t_{name}") == ["snapshotted", "schema_changed", "ingested"]
    tide.run("ALTER TYPE pair RENAME ATTRIBUTE n TO renamed")
    tide.ingest("public.t_c")
    assert tide.kinds("public.t_c")[-2:] == ["schema_changed", "ingested"]


def test_a_role_without_select_is_told_which_grant_it_needs(filled: Tide, role: str) -> None:
    """A grant on some columns is not enough: the transaction ids are no column."""
    source = filled.database.source(role)
    with pytest.raises(
        AccessDenied, match=rf'read public\.t: permission denied .*GRANT SELECT ON "public"."t" TO "{role}"$'
    ):
        filled.ingest(source=source)
    filled.run(f"GRANT SELECT (id, v) ON t TO {role}", "INSERT INTO t VALUES (4, 4)")
    with pytest.raises(AccessDenied):
        filled.ingest(source=source)
    filled.run(f"GRANT SELECT ON t TO {role}")
    assert new(filled, source=source) == [4]


def test_the_grants_of_a_refusal_are_all_that_it_takes(tide: Tide, role: str) -> None:
    """Of a schema that nobody may look into, a partitioned table and its partitions, under names of their own kind."""
    schema, table = '"My ""Shop"""', '"a; table"'
    tide.run(
        f"CREATE SCHEMA {schema}",
        f"CREATE TABLE {schema}.{table} (id int) PARTITION BY LIST (id)",
        *(f"CREATE TABLE {schema}.part_{n} PARTITION OF {schema}.{table} FOR VALUES IN ({n})" for n in (1, 2)),
        f"INSERT INTO {schema}.{table} VALUES (1), (2)",
    )
    name, source = f"{schema}.{table}", tide.database.source(role)
    with pytest.raises(AccessDenied) as refused:
        tide.ingest(name, source=source)
    assert refused.value.hint.count("GRANT ") == 4
    assert not refused.value.hint.endswith(";")
    tide.run(refused.value.hint.removeprefix("Run "))
    tide.ingest(name, source=source)
    assert tide.values("id", name) == [1, 2]


def test_the_documented_role_can_do_all_that_is_needed_and_nothing_else(tide: Tide, role: str) -> None:
    """Its statements are run as they stand: a run, a sweep, a tick, a verification; no write."""
    [create, *grants] = re.findall(r"[^;]+;", re.findall(r"```sql\n(.*?)```", DATABASE, re.DOTALL)[0])
    assert create.strip() == "CREATE ROLE tidelog LOGIN PASSWORD 'a long one' CONNECTION LIMIT 20;"
    tide.run("CREATE TABLE before (id int PRIMARY KEY, updated_at timestamptz)")
    tide.run(*(grant.replace("tidelog", role) for grant in grants))
    tide.run("CREATE TABLE later (id int PRIMARY KEY, updated_at timestamptz) PARTITION BY LIST (id)")
    tide.run("CREATE TABLE part PARTITION OF later DEFAULT", "CREATE SCHEMA kept CREATE TABLE secret (id int)")
    source = tide.database.source(role)
    for ask in (source.tallied, source.horizon, source.relations):
        assert ask()
    for table in ("public.before", "public.later"):
        tide.run(f"INSERT INTO {table} VALUES (1, now()), (2, NULL)")
        tide.database.pass_horizon()
        tide.ingest(table, source=source)
        tide.sweep(table, source=source)
        assert tide.values("id", table) == [1, 2]
        assert tide.verify(table, user=role).is_right
    with pytest.raises(AccessDenied, match='GRANT USAGE ON SCHEMA "kept"'):
        tide.ingest("kept.secret", source=source)
    with tide.database.session(role) as session:
        for statement in (
            "INSERT INTO before VALUES (3)",
            "DELETE FROM before",
            "CREATE TABLE mine ()",
            "DROP TABLE later",
        ):
            with pytest.raises(DatabaseError, match="42501"):
                session.run(statement)


def test_of_many_partitions_that_may_not_be_read_some_are_named(tide: Tide, role: str) -> None:
    """The message stays short."""
    tide.run(
        "CREATE TABLE t (id int) PARTITION BY LIST (id)",
        *(f"CREATE TABLE part_{n} PARTITION OF t FOR VALUES IN ({n})" for n in range(20)),
    )
    with pytest.raises(AccessDenied, match=r"(GRANT [^;]*; ?){5}and 16 more of the kind"):
        tide.ingest(source=tide.database.source(role))


def test_an_error_that_may_quote_a_row_does_not(tide: Tide) -> None:
    """The server's message does; neither ours, nor the traceback that a log prints of it."""
    tide.run(
        "CREATE TABLE t (id int, v text, n int GENERATED ALWAYS AS (v::int) VIRTUAL)",
        "INSERT INTO t (id, v) VALUES (1, 'canary')",
    )
    with pytest.raises(DatabaseBusy, match=r"may quote a row.*\(SQLSTATE 22P02\)") as failed:
        tide.ingest()
    assert "canary" not in "".join(traceback.format_exception(failed.value))


def test_row_level_security_never_hides_a_row_silently(filled: Tide, role: str) -> None:
    """A role that would not see all rows is refused, and told which attribute it needs; one with it sees all."""
    filled.run(
        f"GRANT SELECT ON t TO {role}",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY mine ON t TO {role} USING (id = 1)",
        "UPDATE t SET v = v",
    )
    with pytest.raises(AccessDenied, match=f'ALTER ROLE "{role}" BYPASSRLS$'):
        filled.ingest(source=filled.database.source(role))
    filled.run(f"ALTER ROLE {role} BYPASSRLS")
    assert new(filled, source=filled.database.source(role)) == [1, 2, 3]


def test_a_run_needs_no_more_than_select(filled: Tide, role: str) -> None:
    """No function, setting or table that it uses asks for another privilege, nor for one on the schema pg_catalog."""
    filled.run(f"GRANT SELECT ON t TO {role}", "INSERT INTO t VALUES (4, 4)")
    assert new(filled, source=filled.database.source(role)) == [4]


def test_rows_stream_and_may_be_left_half_way(filled: Tide) -> None:
    """The connection is good for the next question, whether the lines were taken to the end or not."""
    filled.run("INSERT INTO t SELECT n, n FROM generate_series(10, 200_000) n")
    for _ in range(2):
        with filled.source.open(TableName("public", "t"), seconds=60) as opened:
            blocks = opened.lines(opened.table.leaves[0], Window())
            assert next(blocks).startswith(b'{"id":')
            blocks.close()
    with filled.source.open(TableName("public", "t"), seconds=60) as opened:
        [leaf] = opened.table.leaves
        assert sum(block.count(b"\n") for block in opened.lines(leaf, Window())) == 199_994
        assert opened.find(leaf, Window(), []).rows == 199_994
