"""What an operator sees of a real stack: the dashboard, the saved queries run over its log lines, what it costs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CreateDatabase
from tests.stack.command import kill_waiting, tidelog
from tests.tide import Database, wait_for
from tidelog_sandbox import insights
from tidelog_sandbox.deployment import translate
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
PARAMETERS = {
    "AdminEmail": "admin@example.com",
    "DatabaseTls": "disable",
    "Schedule": "rate(1 day)",
    "ChunkMegabytes": "1",
    "ExcludeTables": "public.log",
    "IncludeTables": "public.*,public.gone",
}
SECONDS = 60
OF_REPORTS = {"@maxMemoryUsed", "@memorySize", "@initDuration", "@duration"}
OF_LINES = {"@timestamp", "@message", "@log", "@requestId", "@type"}
"""What Insights finds in every line of Lambda's.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html"""


def lines(invocations: list[Invocation], memory: int) -> Iterator[dict[str, Any]]:
    """Yield what CloudWatch would have of invocations, with the fields that Insights finds in each."""
    for at, each in enumerate(invocations, 1_800_000_000):
        common = {"@timestamp": at, "@requestId": each.request_id, "@log": each.function}
        for line in [*each.log, *([str((each.error or {}).get("errorMessage"))] if each.error else [])]:
            found = json.loads(line) if line.startswith("{") else {}
            yield {**common, "@message": line, **found}
        report = {"@type": "REPORT", "@maxMemoryUsed": each.peak_memory, "@memorySize": memory * 1_000_000}
        start = {"@initDuration": 300.0} if each.cold else {}
        yield {**common, "@message": "REPORT", **report, "@duration": each.duration * 1000, **start}


class Seen:
    """What a stack shows of itself, and what its functions have logged."""

    def __init__(self, sandbox: Sandbox, invocations: list[Invocation]) -> None:
        self.sandbox = sandbox
        cloudwatch = sandbox.client("cloudwatch")
        [entry] = cloudwatch.list_dashboards()["DashboardEntries"]
        body = json.loads(cloudwatch.get_dashboard(DashboardName=entry["DashboardName"])["DashboardBody"])
        self.widgets = {each["properties"]["title"]: each for each in body["widgets"]}
        self.logs = {
            kind: list(
                lines([each for each in invocations if each.function == sandbox.outputs[f"{kind}Function"]], 512)
            )
            for kind in ("Worker", "Scheduler")
        }
        template = translate(TEMPLATE, {**PARAMETERS, "DatabaseSecretArn": "x"}, "eu-west-2")["Resources"]
        self.queries = {
            resource["Properties"]["Name"]["Fn::Sub"].partition("/")[2]: resource["Properties"]
            for resource in template.values()
            if resource["Type"] == "AWS::Logs::QueryDefinition"
        }

    def texts(self) -> Iterator[tuple[str, str, list[str]]]:
        """Yield the name, the text and the log groups of each query: saved ones, and those of widgets."""
        for name, query in self.queries.items():
            yield name, query["QueryString"], [group["Ref"] for group in query["LogGroupNames"]]
        for title, widget in self.widgets.items():
            if widget["type"] == "log":
                text = widget["properties"]["query"]
                yield title, text, re.findall(r"SOURCE '[^']*?(Worker|Scheduler)Logs", text)

    def answer(self, name: str) -> list[dict[str, Any]]:
        """Run a query over the log lines."""
        [(text, groups)] = [(text, groups) for each, text, groups in self.texts() if each == name]
        return insights.read(text).run([line for group in groups for line in self.logs[group.removesuffix("Logs")]])


def _live_through(sandbox: Sandbox, database: Database) -> list[Invocation]:
    """Let everything happen that is logged; return the invocations."""
    invocations: list[Invocation] = []
    sandbox.on_invocation(invocations.append)
    prefix, scheduler = sandbox.outputs["ParameterPrefix"], sandbox.outputs["SchedulerFunction"]
    long_ago = '{"checked_at":"2026-01-01T00:00:00Z"}'
    sandbox.client("ssm").put_parameter(Name=f"{prefix}/tables/public/orders", Type="String", Value=long_ago)
    assert sandbox.invoke(scheduler, {}).succeeded  # nobody works yet: the table stays stale
    sandbox.start_mappings()

    def tick() -> None:
        assert sandbox.invoke(scheduler, {}).succeeded
        sandbox.wait_until_idle(SECONDS, hidden=False)

    tick()
    database.run("INSERT INTO orders SELECT g, now() FROM generate_series(10, 12) g")
    database.run("ALTER TABLE large ADD COLUMN more int DEFAULT 7", "REVOKE ALL ON SCHEMA hidden FROM PUBLIC")
    database.run("ALTER TABLE staff RENAME TO stuff")
    sandbox.client("sqs").send_message(
        QueueUrl=sandbox.outputs["WorkQueueUrl"], MessageGroupId="g", MessageDeduplicationId="1",
        MessageBody='{"version":1,"type":"ingest","table":"public.staff"}',
    )  # fmt: skip
    with database.session() as holder:
        holder.run("BEGIN")
        holder.run("INSERT INTO log VALUES (1)")
        tick()
        holder.run("LOCK TABLE orders")
        assert sandbox.invoke(scheduler, {}).succeeded
        wait_for(lambda: kill_waiting(sandbox, database, "public.orders"))
        time.sleep(0.1)
        holder.run("ROLLBACK")
    sandbox.wait_until_idle(SECONDS, hidden=False)
    sandbox.stop_mappings()
    return invocations


@pytest.fixture(scope="module")
def seen(create_database: CreateDatabase) -> Iterator[Seen]:
    """A stack that was lived through."""
    with create_database() as database:
        database.run(
            "CREATE TABLE orders (id int PRIMARY KEY, created_at timestamptz DEFAULT now())",
            "CREATE TABLE staff (id int)", "INSERT INTO staff VALUES (1)", "CREATE TABLE log (id int)",
            "CREATE SCHEMA hidden", "INSERT INTO orders VALUES (1)",
            "CREATE TABLE large AS SELECT g AS id, repeat('x', 200) AS note FROM generate_series(1, 9000) g",
        )  # fmt: skip
        secret = database.server.credentials(database.name)
        content = {name: getattr(secret, name) for name in ("host", "port", "dbname", "username", "password")}
        with Sandbox(TEMPLATE, parameters=PARAMETERS, database=content) as sandbox:
            invocations = _live_through(sandbox, database)
            yield Seen(sandbox, invocations)


def test_every_field_that_a_query_uses_is_logged(seen: Seen) -> None:
    """By the functions whose logs it is about: a name that nothing logs would be an empty column for ever."""
    names = {name for name, _, _ in seen.texts()}
    assert len(names) == len(seen.queries) + sum(each["type"] == "log" for each in seen.widgets.values())
    for name, text, groups in seen.texts():
        logged = {field for group in groups for line in seen.logs[group.removesuffix("Logs")] for field in line}
        assert insights.read(text).fields <= logged | OF_REPORTS | OF_LINES, name


def test_every_query_finds_what_it_is_about(seen: Seen) -> None:
    """Over the lines of runs that did all of it; the columns that it makes have values."""
    for name, _, _ in seen.texts():
        answer = seen.answer(name)
        assert answer, name
        empty = {column for column in answer[0] if all(row.get(column) is None for row in answer)}
        assert not {column for column in empty if not column.startswith("@")}, name


def test_the_answers_tell_what_happened(seen: Seen) -> None:
    """Rows, failures with their reason, the session that holds the horizon, what was altered, who was killed."""
    rows = {(row["table"], row["rows_written"]) for row in seen.answer("rows per table and hour")}
    assert ("public.orders", 4) in rows
    [failed] = [row for row in seen.answer("what failed and why") if row["table"] == "public.staff"]
    assert (failed["error"], failed["then"]) == ("UnknownTable", "buried")
    assert failed["hint"]
    retried = seen.answer("retries")
    assert retried[0]["failures"] >= 1
    assert seen.answer("what held the horizon")[0]["holder"].startswith("session ")
    [altered] = seen.answer("altered tables")
    assert "backfill public.large --all" in altered["remedy"]
    assert "Runtime exited" in seen.answer("workers that were killed")[0]["@message"]
    ticks = {(row["message"], row.get("table")) for row in seen.answer("ticks, refused and stale tables")}
    assert {("table refused", "public.gone"), ("table stale", "public.orders"), ("tick done", None)} <= ticks
    assert all(row["cold_starts"] <= row["runs"] for row in seen.answer("cold starts"))
    assert seen.answer("memory")[0]["used_mb"] > 10
    oldest = seen.answer("freshness of each table")
    assert [row["last_run"] for row in oldest] == sorted(row["last_run"] for row in oldest)


def test_metrics_on_the_dashboard_are_emitted_and_the_reverse(seen: Seen) -> None:
    """With the dimension that they are emitted with."""
    emitted = {
        (directive["Namespace"], metric["Name"], tuple(names))
        for log in seen.logs.values()
        for line in log
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", [])
        for names in directive["Dimensions"]
        for metric in directive["Metrics"]
    }
    shown = {
        (row[0], row[1], (row[2],))
        for widget in seen.widgets.values()
        for row in widget["properties"].get("metrics", [])
        if not row[0].startswith("AWS/")
    }
    assert shown == emitted


def test_a_stack_costs_what_its_ledgers_and_cloudwatch_say(seen: Seen) -> None:
    """Tables, bytes and schedule are its own; so are run times, once CloudWatch has measured them."""
    sandbox = seen.sandbox

    def asked(*options: str) -> dict[str, Any]:
        answer = tidelog("cost", "--json", *options, **sandbox.environment, TIDELOG_STACK="tidelog")
        found: dict[str, Any] = json.loads(answer)
        return found

    before = asked()
    items = {(item["service"], item["what"]): item for item in before["items"]}
    segments = sandbox.client("s3").list_objects_v2(Bucket=sandbox.outputs["LakeBucket"], Prefix="data/")["Contents"]
    stored = items["S3", "storage, GB"]["quantity"] * 1e9
    assert sum(segment["Size"] for segment in segments) < stored < 1e6
    assert items["Lambda", "runs of workers"]["quantity"] == 4 * (31 + 31)  # its schedules are daily
    assert before["dollars"] == round(sum(item["dollars"] for item in before["items"]), 2)
    assert any("less than a day" in line for line in before["assumptions"])
    sandbox.client("cloudwatch").put_metric_data(
        Namespace="AWS/Lambda",
        MetricData=[
            {
                "MetricName": "Duration",
                "Dimensions": [{"Name": "FunctionName", "Value": sandbox.outputs["WorkerFunction"]}],
                "StatisticValues": {"SampleCount": 4, "Sum": 10_000, "Minimum": 1000, "Maximum": 4000},
            }
        ],
    )
    after = {(item["service"], item["what"]): item for item in asked("--schedule", "rate(1 hour)")["items"]}
    assert after["Lambda", "runs of workers"]["quantity"] == 4 * (730 + 31)
    assert after["Lambda", "time of workers, GB-seconds"]["quantity"] == 4 * (730 + 31) * 2.5 / 2
