"""A stack operated from the command line: how it stands, what happened, run now, its parameters made again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.stack.command import TIDELOG, environment
from tests.stack.office import PARAMETERS, Office
from tests.tide import wait_for
from tidelog.parameters import Summary
from tidelog.tables import TableName
from tidelog_cli.main import app
from tidelog_sandbox.sandbox import Sandbox

ORDERS, STAFF, EMPTY = "public.orders", "public.staff", "public.empty"
_WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'staff'::regclass AND NOT granted"
"""Of this office's, not of other tests'."""


@pytest.fixture(scope="module")
def office(create_database: CreateDatabase, server_role: str) -> Iterator[Office]:
    """Three tables, one of them empty, of which nothing was ingested yet; and a role that may read them."""
    with create_database() as database:
        database.run(
            "CREATE TABLE orders AS SELECT n AS id, now() AS updated_at FROM generate_series(1, 10) n",
            "CREATE TABLE staff AS SELECT 1 AS id",
            "CREATE TABLE empty (id int)",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {server_role}",
        )
        to = database.server.credentials(database.name, server_role)
        content = {name: getattr(to, name) for name in to.__struct_fields__} | {"engine": "postgres", "role": "r"}
        parameters = {**PARAMETERS, "LockSeconds": "1", "RetrySeconds": "1", "Tries": "3"}
        with Sandbox(ROOT / "template.yaml", parameters=parameters, database=content) as sandbox:
            sandbox.start_mappings()
            yield Office(sandbox, database)
        database.run(f"DROP OWNED BY {server_role}")


def role(office: Office) -> str:
    """Return the role that the stack connects as."""
    found: str = office.tide.database.one(
        "SELECT grantee FROM information_schema.role_table_grants WHERE grantee LIKE 'reader%' LIMIT 1"
    )
    return found


def failing(office: Office, *command: str) -> Result:
    """Run a command that does not succeed."""
    variables: dict[str, Any] = {**office.sandbox.environment, "TIDELOG_STACK": "tidelog", "COLUMNS": "200"}
    done = CliRunner().invoke(app, command, env=variables)
    assert done.exit_code != 0
    return done


def status(office: Office) -> dict[str, Any]:
    """Return what `tidelog status` says."""
    told: dict[str, Any] = json.loads(office.tidelog("status", "--json"))
    return told


def standing(office: Office, table: str = ORDERS) -> Any:
    """Return what it says of a table."""
    return {each["table"]: each for each in status(office)["tables"]}[table]


def ran(office: Office, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run tables and wait; return what became of each."""
    told = json.loads(office.tidelog("run", *arguments, "--wait", "--json"))
    return {each["table"]: each for each in told["tried"]}


def test_a_stack_without_a_tick_says_so_and_a_tick_is_run_by_hand(office: Office) -> None:
    """With --wait until each table was tried, the empty one too; a second one brings nothing, and ends all the same."""
    before = office.tidelog("status")
    assert "none yet" in before
    assert "No table was ingested yet" in before
    first = ran(office)
    assert {table: (each["rows"], each["failed"]) for table, each in first.items()} == {
        EMPTY: (0, None),
        ORDERS: (10, None),
        STAFF: (1, None),
    }
    assert {table: each["events"] for table, each in ran(office).items()} == {EMPTY: 0, ORDERS: 0, STAFF: 0}
    assert f"unchanged: {EMPTY}, {ORDERS}, {STAFF}" in office.tidelog("run", "--wait")


def test_named_tables_are_run_however_soon_and_unknown_ones_refuse_all(office: Office) -> None:
    """SQS would drop the same message within five minutes; nothing is sent if one name is wrong."""
    for number in (11, 12):
        office.tide.run(f"INSERT INTO orders VALUES ({number}, now())")
        assert ran(office, ORDERS, ORDERS)[ORDERS]["rows"] == 1
    office.tide.run("INSERT INTO orders VALUES (13, now())")
    refused = failing(office, "run", ORDERS, "public.nothing")
    assert "ingest public.nothing: it is none of the stack's tables" in str(refused.exception)
    office.settle()
    assert office.tide.values("id", ORDERS) == list(range(1, 13))
    assert "Sent for 1 table." in office.tidelog("run", ORDERS)
    office.settle()
    assert office.tide.values("id", ORDERS) == list(range(1, 14))


def test_a_table_that_fails_ends_the_wait_with_status_1(office: Office) -> None:
    """Be it buried at once or tried again; and it is in the status, with what became of it."""
    office.tide.run(f"REVOKE SELECT ON staff FROM {role(office)}")
    with office.tide.database.session() as migration:
        migration.run("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        done = failing(office, "run", ORDERS, STAFF, "--wait", "--json")
        tried = {each["table"]: each["failed"] for each in json.loads(done.stdout)["tried"]}
        assert "permission denied for table staff" in tried[STAFF]
        assert "tidelog dead-letters show" in tried[STAFF]
        assert "55P03" in tried[ORDERS]
        assert done.exit_code == 1
    office.settle()
    told = status(office)
    failures = {each["table"]: each["last_failure"] for each in told["tables"]}
    assert (failures[STAFF]["error"], failures[STAFF]["dead_letter"]) == ("AccessDenied", True)
    assert (failures[ORDERS]["error"], failures[EMPTY]) == ("DatabaseBusy", None)
    assert told["queues"]["dead_letters"]["waiting"] >= 1
    shown = office.tidelog("status")
    assert "tidelog dead-letters list --stack tidelog" in shown
    assert "AccessDenied" in shown
    office.tide.run(f"GRANT SELECT ON staff TO {role(office)}")
    office.tidelog("dead-letters", "redrive")
    office.settle()
    assert "none" in next(line for line in office.tidelog("status").splitlines() if line.startswith("dead letters"))
    assert "read since" in office.tidelog("status")


def test_a_summary_that_a_chunk_has_written_is_no_run(office: Office) -> None:
    """Nor is one that publishes what was left: who waits for a run that fails is told that."""
    ran(office, ORDERS)
    name, over = TableName.parse(ORDERS), threading.Event()

    def write() -> None:
        while not over.wait(0.1):
            summary = office.tide.parameters.read(name)
            assert summary
            office.tide.parameters.write(name, summary)

    with office.tide.database.session() as migration, ThreadPoolExecutor(1) as pool:
        migration.run("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        writing = pool.submit(write)
        try:
            done = failing(office, "run", ORDERS, "--wait", "--json")
        finally:
            over.set()
            writing.result()
    assert "55P03" in json.loads(done.stdout)["tried"][0]["failed"]
    office.settle()


def test_the_status_tells_of_ticks_queues_the_horizon_and_each_table(office: Office) -> None:
    """As the ledger and CloudWatch have it; what is more than a day old is not counted."""
    office.tick()
    now = datetime.now(UTC)
    office.sandbox.client("cloudwatch").put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": "tidelog-work.fifo"}],
                "Timestamp": now - timedelta(minutes=2),
                "Value": 75,
            }
        ],
    )
    told, state = status(office), office.tide.state(ORDERS)
    assert (told["tick"]["tables"], told["tick"]["refused"]) == (3, 0)
    assert 0 <= told["tick"]["seconds"] < 60
    assert told["queues"]["work"] == {"waiting": 0, "in_flight": 0, "oldest_seconds": 75}
    assert told["queues"]["missed_ticks"]["waiting"] == 0
    assert told["unknown"] == {}
    orders = standing(office)
    assert (orders["strategy"], orders["sequential_id"]) == ("xmin", state.sequential_id)
    assert (orders["rows"], orders["rows_last_day"]) == (state.rows, state.rows)
    assert orders["bytes_last_day"] == state.bytes
    assert orders["timestamp"] == state.timestamp
    assert orders["complete_at"] == orders["fresh_as_of"]
    empty = standing(office, EMPTY)
    assert (empty["offset"], empty["rows"]) == (0, 0)
    assert empty["complete_at"] == empty["fresh_as_of"] > "2026"
    listed = {each["table"]: each for each in json.loads(office.tidelog("tables", "--json"))["tables"]}
    assert listed[EMPTY]["complete_at"] == listed[EMPTY]["checked_at"] > "2026"
    assert "it has no rows yet" in office.tidelog("tables")
    shown = office.tidelog("status")
    assert all(words in shown for words in ("last tick", "of 3 tables", "work queue", "horizon", ORDERS))
    with office.tide.database.session() as session:
        office.tide.database.hold_horizon(session)
        wait_for(lambda: "held for" in office.tidelog("status"))


def test_the_status_shows_the_rest_where_something_is_out_of_reach(office: Office) -> None:
    """The database, which the scheduler asks for the horizon; and a summary that is none."""
    lake, database = office.tide.lake, office.tide.database
    name, who = f"{lake.prefix}/tables/public/staff", role(office)
    lake.ssm.put_parameter(Name=name, Value="not a summary", Type="String", Overwrite=True)
    database.run(
        f"ALTER ROLE {who} NOLOGIN",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{who}'",
    )
    try:
        told = status(office)
        assert "is not permitted to log in" in told["unknown"]["horizon"]
        tables = {each["table"]: each for each in told["tables"]}
        assert "its parameter is not a summary" in tables[STAFF]["fault"]
        assert (tables[ORDERS]["fault"], tables[STAFF]["rows"]) == (None, 1)
        shown = office.tidelog("status")
        assert "horizon         not known: " in shown
        assert f"{STAFF}: read the state of {STAFF}: its parameter is not a summary" in shown
    finally:
        database.run(f"ALTER ROLE {who} LOGIN")
    assert "Written: 1" in office.tidelog("rebuild", STAFF, "--yes")


def test_the_history_has_each_event_in_words_and_the_rows_over_time(office: Office) -> None:
    """The newest first, from the stack or from the lake itself."""
    told = json.loads(office.tidelog("history", ORDERS, "--json"))
    events = office.tide.events(ORDERS)
    assert [each["offset"] for each in told["events"]] == [event.offset for event in reversed(events)]
    assert told["events"][-1]["what"] == "all rows were read"
    assert (told["events"][0]["rows"], told["events"][0]["sequential_id"]) == (1, 3)
    assert sum(each["rows"] for each in told["rows_over_time"]) == 13
    shown = office.tidelog("history", ORDERS, "--limit", "2")
    assert "new rows were read" in shown
    assert "all rows were read" not in shown
    assert "rows by the hour" in shown
    assert "█" in shown
    assert "it has no ledger" in str(failing(office, "history", "public.nothing").exception)


def test_parameters_are_made_again_from_the_ledger(office: Office) -> None:
    """One ahead of it, one missing, one that is none, one of a table without ledger; only what differs is written."""
    lake, parameters = office.tide.lake, office.tide.parameters
    orders, staff, gone = TableName.parse(ORDERS), TableName.parse(STAFF), TableName.parse("public.gone")
    assert "says of all 3 tables what their ledgers say" in office.tidelog("rebuild")
    before = {table: parameters.read(table) for table in (orders, staff)}
    untouched = parameters.kept(TableName.parse(EMPTY))
    parameters.write(orders, Summary(offset=99, sequential_id=99))
    parameters.forget(staff)
    parameters.write(gone, Summary(offset=3, sequential_id=2))
    shown = office.tidelog("rebuild", "--dry-run")
    assert all(words in shown for words in ("it is ahead of the ledger", "there is none", "there is no ledger"))
    assert "event 99, increment 99, no timestamp" in shown
    assert failing(office, "rebuild").exit_code == 1  # nobody is there to say yes
    assert parameters.read(orders) == Summary(offset=99, sequential_id=99)
    told = json.loads(office.tidelog("rebuild", "--yes", "--json"))
    assert {each["table"] for each in told if each["written"]} == {ORDERS, STAFF, "public.gone"}
    for table, known in before.items():
        now = parameters.read(table)
        assert now
        assert known
        assert (now.offset, now.timestamp, now.lacks) == (known.offset, known.timestamp, known.lacks)
        office.tide.check(str(table))
    assert parameters.read(gone) is None
    assert parameters.kept(TableName.parse(EMPTY)) == untouched
    assert "neither a ledger nor a summary" in failing(office, "rebuild", "public.gone").output.replace("\n", " ")
    assert lake.keys("data/public.gone") == []


def test_ctrl_c_ends_a_command_with_130_and_a_watch_with_0(office: Office) -> None:
    """Without a traceback."""
    variables = environment(**office.sandbox.environment, TIDELOG_STACK="tidelog")
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs the tests may have it ignored
    with office.tide.database.session() as migration:
        migration.run("BEGIN; LOCK TABLE staff IN ACCESS EXCLUSIVE MODE")
        for command, code, first in ((["run", STAFF, "--wait"], 130, ""), (["status", "--watch", "--json"], 0, "{")):
            process = subprocess.Popen(
                [TIDELOG, *command],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=heed,  # noqa: PLW1509 - no other thread of this process forks
            )
            assert process.stdout
            if first:
                assert process.stdout.readline().startswith(first)
            else:
                wait_for(lambda: office.tide.database.one(_WAITING))
            os.kill(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=30)
            assert process.returncode == code, errors
            assert "Traceback" not in errors
    office.settle()
