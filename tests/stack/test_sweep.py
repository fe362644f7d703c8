"""Sweeps as the stack runs them on its schedule, and as an operator does; and what `tidelog tables` says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.stack.office import PARAMETERS, Office
from tests.tide import wait_for
from tidelog_cli.main import app
from tidelog_sandbox.sandbox import Sandbox
from tidelog_sandbox.schedules import payload

ORDERS = "public.sales_order"


@pytest.fixture(scope="module")
def office(create_database: CreateDatabase) -> Iterator[Office]:
    """A table that is read through its timestamps, with a bound; and one without timestamps."""
    with create_database() as database:
        database.run(
            "CREATE TABLE sales_order (id int PRIMARY KEY, v int, last_updated timestamptz)",
            "CREATE INDEX ON sales_order (last_updated)",
            "INSERT INTO sales_order SELECT n, 0, now() FROM generate_series(1, 100) n",
            "CREATE TABLE plain AS SELECT 1 AS id",
        )
        server = database.server.credentials(database.name)
        content = {name: getattr(server, name) for name in server.__struct_fields__} | {"engine": "postgres"}
        parameters = {**PARAMETERS, "TimeBoundMegabytes": "0", "LookBackSeconds": "0"}
        with Sandbox(ROOT / "template.yaml", parameters=parameters, database=content) as sandbox:
            sandbox.start_mappings()
            office = Office(sandbox, database)
            office.tick()
            while office.tide.state(ORDERS).bound is None:
                touch(office)
            yield office


def touch(office: Office) -> None:
    """Let the table have a new row version, and ingest it."""
    office.tide.database.pass_horizon()
    office.tide.run("UPDATE sales_order SET v = v + 1, last_updated = now() WHERE id = 100")
    office.tick()


def hide(office: Office, v: int) -> None:
    """Change two rows so that increments do not see it."""
    office.tide.run(f"UPDATE sales_order SET v = {v}, last_updated = '2020-01-01' WHERE id IN (1, 2)")
    touch(office)
    assert not [row for row in office.tide.rows(ORDERS) if row["v"] == v and row["id"] < 3]


def hold(office: Office) -> None:
    """Hold the lake against the table."""
    assert office.tide.latest(ORDERS) == office.tide.table(ORDERS)
    lines = office.tide.lines(ORDERS)
    assert len(lines) == len(set(lines))
    office.tide.check(ORDERS)


def test_the_second_schedule_sweeps(office: Office) -> None:
    """With the input that the template gives it; a table that needs no sweep has none."""
    hide(office, 1000)
    [schedule] = [each for each in office.sandbox.deployment.schedules if "sweep" in each.input]
    assert schedule.expression == "rate(1 day)"
    invocation = office.sandbox.invoke(
        office.sandbox.outputs["SchedulerFunction"], payload(schedule, datetime(2026, 11, 23, tzinfo=UTC), "1")
    )
    assert invocation.response == {"tables": ["public.plain", ORDERS]}
    office.settle()
    hold(office)
    assert "planned" not in office.tide.kinds("public.plain")


def test_an_operator_sweeps_and_waits(office: Office) -> None:
    """A command that is over says how many rows it brought; with nothing hidden it says that."""
    hide(office, 2000)
    printed = office.tidelog("sweep", ORDERS, "--wait")
    assert f"{ORDERS}: 2 rows," in printed
    hold(office)
    again = json.loads(office.tidelog("sweep", "--wait", "--json"))
    assert again["sweeps"] == ["public.plain", ORDERS]
    assert [(each["table"], each["rows"], each["reason"]) for each in again["done"]] == [
        ("public.plain", 0, None),
        (ORDERS, 0, None),
    ]
    assert "2 of 2 tables had nothing hidden\n" in office.tidelog("sweep", "--wait")
    office.tide.run("CREATE TABLE vacant (id int)")
    try:
        said = office.tidelog("sweep", "--wait")
    finally:
        office.tide.run("DROP TABLE vacant")
    assert "2 of 3 tables had nothing hidden; of 1 nothing is in the lake yet" in said


def test_tables_are_listed_with_how_they_are_read(office: Office) -> None:
    """And up to when each is complete: one that was swept up to then, the other up to its last run."""
    hide(office, 3000)
    office.tidelog("sweep", ORDERS, "--wait")
    touch(office)
    plain, orders = json.loads(office.tidelog("tables", "--json"))["tables"]
    assert plain["strategy"] == "xmin: it has no timestamp column"
    assert plain["complete_at"] == plain["checked_at"]
    assert orders["strategy"].startswith("timestamp: last_updated lead")
    state = office.tide.state(ORDERS)
    assert state.swept is not None
    assert orders["complete_at"] == state.swept.at
    shown = office.tidelog("tables")
    assert "xmin: it has no timestamp column" in shown
    assert all(heading in shown for heading in ("table", "complete up to", "how it is read"))


def test_who_holds_the_horizon_stands_below_the_tables(office: Office) -> None:
    """With how to end it."""
    with office.tide.database.session() as session:
        session.run("SET application_name = 'nightly report'")
        office.tide.database.hold_horizon(session)
        horizon = json.loads(office.tidelog("tables", "--json"))["horizon"]
        assert horizon["seconds"] >= 0
        assert "(nightly report)" in horizon["holder"]
        assert horizon["remedy"].startswith("To end it: ")
        wait_for(lambda: "A transaction holds the horizon, for " in office.tidelog("tables"))
        assert "nightly report" in office.tidelog("tables")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["public.sales_orders"], "sweep public.sales_orders: it is none of the stack's tables"),
        (["sales_order"], "write schema.table"),
    ],
)
def test_a_table_that_is_none_is_told_and_nothing_is_sent(office: Office, arguments: list[str], said: str) -> None:
    """With what to do."""
    office.settle()
    offset = office.offset(ORDERS)
    variables: dict[str, Any] = {**office.sandbox.environment, "TIDELOG_STACK": "tidelog", "COLUMNS": "200"}
    done = CliRunner().invoke(app, ["sweep", *arguments], env=variables)
    assert done.exit_code != 0
    assert said in (done.output + str(done.exception))
    office.settle()
    assert office.offset(ORDERS) == offset
