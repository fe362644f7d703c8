"""The two functions of the template, deployed on this machine under AWS's runtime client."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CreateDatabase
from tests.sandbox.conftest import taken
from tests.tide import Database
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
SECONDS = 120
PARAMETERS = {"AdminEmail": "admin@example.com", "DatabaseTls": "disable", "Schedule": "rate(1 day)"}


class Stack:
    """A deployed template, its database, and what its functions did."""

    def __init__(self, sandbox: Sandbox, database: Database) -> None:
        self.sandbox = sandbox
        self.database = database
        self.invocations: list[Invocation] = []
        sandbox.on_invocation(self.invocations.append)

    def tick(self, due: str | None = None) -> Any:
        """Run a tick to its end and return what the scheduler answered."""
        self.invocations.clear()
        payload = {"scheduled_time": due} if due else {}
        scheduled = self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], payload)
        assert scheduled.succeeded, scheduled
        self.sandbox.wait_until_idle(SECONDS)
        return scheduled.response

    def work(self, body: str) -> Invocation:
        """Give the worker one record, as an event source mapping does."""
        attributes = {
            "ApproximateReceiveCount": "1",
            "ApproximateFirstReceiveTimestamp": "1763899200000",
            "MessageGroupId": "g",
        }
        arn = "arn:aws:sqs:eu-west-2:123456789012:tidelog-work.fifo"
        record = {"messageId": uuid.uuid4().hex, "receiptHandle": "r", "body": body, "attributes": attributes}
        event = {"Records": [record | {"eventSourceARN": arn}]}
        return self.sandbox.invoke(self.sandbox.outputs["WorkerFunction"], event)

    def runs(self) -> list[Invocation]:
        """Return the worker's invocations since the last tick began."""
        return [invocation for invocation in self.invocations if invocation.record]


def logged(invocation: Invocation) -> list[dict[str, Any]]:
    """Return what an invocation logged."""
    return [json.loads(line) for line in invocation.log if line.startswith("{")]


def done(invocation: Invocation) -> dict[str, Any]:
    """Return the line that says what a run did."""
    [record] = [record for record in logged(invocation) if record.get("message") == "run done"]
    return record


@pytest.fixture(scope="module")
def stack(create_database: CreateDatabase) -> Iterator[Stack]:
    """The template over a database of two tables."""
    with create_database() as database:
        database.run(
            "CREATE TABLE orders (id int PRIMARY KEY, created_at timestamptz DEFAULT now())",
            "CREATE TABLE staff (id int)",
            "INSERT INTO orders SELECT generate_series(1, 5)",
            "INSERT INTO staff VALUES (1)",
            "SELECT pg_stat_force_next_flush()",
        )
        secret = database.server.credentials(database.name)
        content = {"host": secret.host, "port": secret.port, "dbname": secret.dbname, "engine": "postgres"}
        content |= {"username": secret.username, "password": secret.password}
        with Sandbox(TEMPLATE, parameters=PARAMETERS, database=content) as sandbox:
            sandbox.start_mappings()
            yield Stack(sandbox, database)


def test_a_tick_sends_one_message_per_table_however_often_it_is_delivered(stack: Stack) -> None:
    """EventBridge delivers at least once: the same tick again sends nothing; nor does one at which nothing is new."""
    first = stack.tick("2026-11-23T12:00:00Z")
    assert first["tables"] == ["public.orders", "public.staff"]
    assert len(stack.runs()) == 2
    stack.tick("2026-11-23T12:00:00Z")
    assert stack.runs() == []
    assert stack.tick("2026-11-23T12:05:00Z")["unchanged"] == 2
    assert stack.runs() == []
    assert stack.tick()["unchanged"] == 0
    assert len(stack.runs()) == 2


def test_a_run_is_logged_and_measured_with_its_table(stack: Stack) -> None:
    """Start and end as structured JSON, and metrics of the stack beside the table; the password nowhere."""
    stack.tick()
    stack.database.run("INSERT INTO orders VALUES (6)")
    stack.tick()
    run = next(run for run in stack.runs() if run.record and "orders" in run.record["body"])
    records, ended = logged(run), done(run)
    [started] = [record for record in records if record.get("message") == "run started"]
    assert "public.orders" in started["body"]
    assert ended["table"] == "public.orders"
    assert (ended["outcome"], ended["rows"]) == ("ingested", 1)
    assert ended["segment"].startswith("data/public.orders/dt=")
    assert ended["timestamp_ingested"]
    assert {"bytes", "sequential_id", "seconds", "strategy"} <= ended.keys()
    [metric] = [r for r in records if "_aws" in r]
    assert metric["table"] == "public.orders"
    assert metric["stack"] == "tidelog"
    assert metric["Rows"] == [1]
    [directive] = metric["_aws"]["CloudWatchMetrics"]
    assert {m["Name"] for m in directive["Metrics"]} == {"Rows", "Bytes", "Duration"}
    assert directive["Dimensions"] == [["stack"]]  # what the alarms have; each table would cost by the month
    assert not any(stack.database.server.password in line for i in stack.invocations for line in i.log)


def test_a_message_delivered_twice_writes_its_rows_once(stack: Stack) -> None:
    """SQS delivers at least once."""
    stack.tick()
    stack.database.run("INSERT INTO staff VALUES (2), (3)")
    body = '{"version":1,"type":"ingest","table":"public.staff"}'
    outcomes = [done(stack.work(body)) for _ in range(2)]
    assert [(record["outcome"], record["rows"]) for record in outcomes] == [("ingested", 2), ("unchanged", 0)]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "is not JSON"),
        ('{"version":2}', "version"),
        ('{"version":1,"type":"ingest","table":"public.nothing"}', "nothing"),
    ],
)
def test_a_message_that_can_not_be_worked_off_is_buried_with_its_reason(stack: Stack, body: str, words: str) -> None:
    """The function itself does not fail; the log says why, and the message may be deleted: a dead letter has it."""
    run = stack.work(body)
    assert run.succeeded
    assert run.response == {"batchItemFailures": []}
    [failed] = [record for record in logged(run) if record.get("message") == "run failed"]
    assert words in failed["reason"]
    assert failed["then"] == "buried"
    [buried] = [m for m in taken(stack.sandbox, stack.sandbox.outputs["DeadLettersUrl"]) if m["Body"] == body]
    assert words in buried["MessageAttributes"]["reason"]["StringValue"]


def test_a_worker_stays_small_whatever_the_table(stack: Stack) -> None:
    """Rows stream: a table of 120 MB of lines is read by a process under 150 MB, which held another 90 before."""
    stack.database.run(
        "CREATE TABLE large AS SELECT g AS id, md5(g::text) || md5((-g)::text) AS a, now() AS created_at "
        "FROM generate_series(1, 800000) g"
    )
    run = stack.work('{"version":1,"type":"ingest","table":"public.large"}')
    assert done(run)["rows"] == 800_000
    assert run.peak_memory < 150 * 2**20
    stack.database.run("DROP TABLE large")
