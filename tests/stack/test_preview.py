"""`tidelog tables --database`: what would be ingested, before anything is deployed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from tests.conftest import CreateDatabase
from tests.stack.command import address, environment
from tests.tide import LIMITS, Database
from tidelog.configuration import Configuration
from tidelog.limits import Limits
from tidelog.planning import plan_windows
from tidelog.selection import Selection
from tidelog.state import State
from tidelog.surveying import Survey, survey
from tidelog.tables import TableName
from tidelog_cli.main import app
from tidelog_cli.preview import show

SMALL = Limits(look_back=600, time_bound_bytes=2**20, chunk_bytes=2**21, failover_margin=3600, fresh=450)
ROWS = "now(), g, repeat('x', 400) FROM generate_series(1, 20000) g"
MADE = f"""
    CREATE EXTENSION IF NOT EXISTS hstore;
    CREATE TABLE orders (updated_at timestamptz NOT NULL, id int PRIMARY KEY, note text);
    INSERT INTO orders SELECT {ROWS};
    CREATE TABLE parts (updated_at timestamptz, id int, note text) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (10000);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (10000) TO (30000);
    INSERT INTO parts SELECT {ROWS};
    CREATE TABLE log (at int, id int, note text); INSERT INTO log SELECT 1, g, repeat('x', 400)
      FROM generate_series(1, 20000) g;
    CREATE TABLE typed (id int PRIMARY KEY, tags hstore, doc jsonb, price numeric, words text[], fine text);
    CREATE TABLE secret (id int); CREATE VIEW seen AS SELECT 1 AS one; CREATE TABLE scratch (id int)
"""


@pytest.fixture(scope="module")
def shop(create_database: CreateDatabase) -> Iterator[Database]:
    """A database with all that there is to say something about."""
    with create_database() as database:
        database.run(*MADE.split(";"), "ANALYZE")
        yield database


@pytest.fixture
def reader(shop: Database, server_role: str) -> Iterator[str]:
    """A role that may read all but one table."""
    shop.run(
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {server_role}", f"REVOKE SELECT ON secret FROM {server_role}"
    )
    yield server_role
    shop.run(f"DROP OWNED BY {server_role}")


def preview(database: Database, *options: str, user: str = "postgres", **variables: str) -> Result:
    """Run `tidelog tables --database`."""
    command = ["tables", "--database", address(database, user), "--time-bound-megabytes", "1", "--chunk-megabytes", "2"]
    given = environment(PGPASSWORD=database.server.password, **variables)
    return CliRunner().invoke(app, [*command, *options], env=given)


def told(result: Result) -> dict[str, dict[str, Any]]:
    """Return what was said of each table."""
    return {each["table"]: each for each in json.loads(result.stdout)["tables"]}


def surveyed(database: Database, user: str = "postgres") -> Survey:
    """Look at a database with small limits."""
    return survey(
        database.server.credentials(database.name, user),
        "disable",
        selection=Selection(exclude=("public.scratch",)),
        configuration=Configuration(),
        limits=SMALL,
    )


def test_each_table_is_described_as_the_worker_would_read_it(shop: Database) -> None:
    """Its strategy and the chunks of its first read are those of a run; its types are told where they need help."""
    tables = told(preview(shop, "--json"))

    assert tables["public.orders"]["strategy"] == "xmin"
    assert (tables["public.orders"]["key"], tables["public.log"]["key"]) == (["id"], [])
    assert tables["public.parts"]["timestamp_columns"] == ["updated_at"]
    assert tables["public.typed"]["types"] == {
        "as PostgreSQL's own text": ["tags"],
        "JSON null reads back as SQL NULL": ["doc"],
        "NaN and the infinities are strings": ["price"],
        "as array text where the first index is not 1": ["words"],
    }
    source = shop.source()
    for name, said in tables.items():
        assert said["obstacles"] == []
        with source.open(TableName.parse(name), seconds=30) as opened:
            plan = plan_windows(opened, State(), SMALL)
        assert sum(leaf.chunks for leaf in plan.leaves) == said["chunks"], name
        assert said["chunks"] or plan.reading.strategy == f"{said['strategy']}: {said['reason']}"


def test_the_advised_indexes_have_the_table_read_through_its_timestamps(shop: Database) -> None:
    """They are run as they are printed, of each partition too; then there is none to advise."""
    tables = told(preview(shop, "--json"))
    assert tables["public.log"]["index"] is None
    assert any("no column tells" in remark for remark in tables["public.log"]["remarks"])
    statements = [s for name in ("public.orders", "public.parts") for s in tables[name]["index"]["statements"]]
    assert len(statements) == 3
    try:
        shop.run(*statements)
        after = told(preview(shop, "--json"))
        for name in ("public.orders", "public.parts"):
            assert (after[name]["strategy"], after[name]["index"]) == ("timestamp", None)
    finally:
        for index in shop.column(
            "SELECT indexrelid::regclass::text FROM pg_index i WHERE NOT indisprimary "
            "AND indrelid::regclass::text ~ '^(orders|parts)'"
        ):
            shop.run(f"DROP INDEX {index}")


def test_a_missing_privilege_comes_with_its_grant_and_status_1(shop: Database, reader: str) -> None:
    """Until it is granted; what is excluded needs none."""
    refused = preview(shop, "--json", user=reader)
    [obstacle] = told(refused)["public.secret"]["obstacles"]
    assert refused.exit_code == 1
    assert "lacks SELECT on public.secret" in obstacle["reason"]
    assert preview(shop, "--exclude", "public.secret", user=reader).exit_code == 0
    shop.run(*obstacle["statements"])
    assert preview(shop, user=reader).exit_code == 0


def test_a_schema_and_a_policy_that_keep_rows_from_the_role_are_told_of(database: Database, role: str) -> None:
    """A worker would fail at both, and does no more once the statements have been run."""
    database.run(
        "CREATE SCHEMA inner_one", "CREATE TABLE inner_one.guarded (id int)",
        "ALTER TABLE inner_one.guarded ENABLE ROW LEVEL SECURITY", "INSERT INTO inner_one.guarded VALUES (1)",
    )  # fmt: skip
    [first] = surveyed(database, role).tables
    assert not surveyed(database, role).complete
    database.run(*(statement for each in first.obstacles for statement in each.statements))
    assert surveyed(database, role).complete
    with database.source(role).open(first.table, seconds=30) as opened:
        assert plan_windows(opened, State(), LIMITS).rows == 1


def test_what_is_left_out_is_listed_with_its_reason(shop: Database, tmp_path: Path) -> None:
    """Views, what is excluded, and what the configuration does not include; a misspelt name is refused."""
    file = tmp_path / "tidelog.toml"
    file.write_text('exclude = ["public.scratch"]\n[tables."public.ordres"]\nstrategy = "xmin"\n')
    result = preview(shop, "--json", "--config", str(file))
    answer = json.loads(result.stdout)

    left = {each["table"]: each["reason"] for each in answer["left_out"]}
    assert left["public.scratch"] == "excluded"
    assert "view" in left["public.seen"]
    assert "did you mean public.orders" in answer["refused"][0]["reason"]
    assert (result.exit_code, answer["complete"]) == (1, False)
    assert [*told(preview(shop, "--json", "--tables", "public.orders"))] == ["public.orders"]


def test_a_pattern_that_meets_no_table_is_refused(shop: Database, tmp_path: Path) -> None:
    """It may be misspelt; one of the configuration may be of tables that are yet to come."""
    result = preview(shop, "--json", "--tables", "pubic.*", "--tables", "public.se*")
    assert json.loads(result.stdout)["refused"] == [{"table": "pubic.*", "reason": "no table meets it"}]
    assert result.exit_code == 1
    file = tmp_path / "tidelog.toml"
    file.write_text('include = ["public.s*", "later.*"]\n')
    assert preview(shop, "--config", str(file)).exit_code == 0


def test_the_screen_shows_it_within_120_columns(shop: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of tables is not cut off, and all that is to be done stands below it."""
    screen = Console(width=120, highlight=False)
    show(screen, surveyed(shop))
    printed = capsys.readouterr().out

    table = printed.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 120
    assert "…" not in table
    assert 'CREATE INDEX CONCURRENTLY ON "public"."orders" ("updated_at");' in printed
    assert re.search(r"PostgreSQL \d+.*, a primary; database", printed)
    assert "all of them can be" in printed


@pytest.mark.parametrize("options", [(), ("--stack", "a", "--database", "postgresql://u@h/d")])
def test_one_of_stack_and_database_has_to_be_named(options: tuple[str, ...]) -> None:
    """With neither or both the command says so."""
    result = CliRunner().invoke(app, ["tables", *options], env=dict.fromkeys(("TIDELOG_STACK", "TIDELOG_DATABASE")))
    assert result.exit_code == 2
    assert "--database" in result.output
