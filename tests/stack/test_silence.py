"""What nobody would notice: each of the template's alarms on silence goes off, is mailed, and calms down again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CreateDatabase
from tests.stack.command import kill_waiting
from tests.tide import Database, wait_for
from tidelog_sandbox.emails import Email
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
PARAMETERS = {
    "AdminEmail": "admin@example.com",
    "DatabaseTls": "disable",
    "Schedule": "rate(1 day)",
    "IncludeTables": "*,public.missing",
    "LockSeconds": "60",
    "StaleSeconds": "180",
    "HorizonSeconds": "60",
    "CertainLookTicks": "1",
}
MINUTE = 0.5
SECONDS = 30
HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


class Tower:
    """A deployed stack whose queues nobody works off, and what its administrator gets by email."""

    def __init__(self, sandbox: Sandbox, database: Database, role: str) -> None:
        self.sandbox = sandbox
        self.database = database
        self.role = role
        self._seen = 0

    def tick(self) -> Invocation:
        """Run a tick."""
        return self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], {})

    def begin(self) -> None:
        """Count only the emails that come from now on."""
        self._seen = len(self.sandbox.emails)

    def mail(self, subject: str) -> Email:
        """Wait for an email whose subject begins so."""
        return self.sandbox.wait_for_email(
            lambda email: email.subject.startswith(subject) and email in self.sandbox.emails[self._seen :], SECONDS
        )

    def tick_until_mail(self, subject: str) -> None:
        """Run ticks until there is an email whose subject begins so: a bad one counts for as long as a period lasts."""
        wait_for(
            lambda: (
                self.tick().succeeded
                and any(email.subject.startswith(subject) for email in self.sandbox.emails[self._seen :])
            )
        )

    def parameter(self, name: str, value: dict[str, Any]) -> None:
        """Write a parameter of the stack."""
        self.sandbox.client("ssm").put_parameter(
            Name=f"{self.sandbox.outputs['ParameterPrefix']}/{name}",
            Value=json.dumps(value),
            Type="String",
            Overwrite=True,
        )

    @contextmanager
    def secret(self, text: str) -> Iterator[None]:
        """Have the database's secret say something else, and the database ask for it."""
        secrets = self.sandbox.client("secretsmanager")
        before = secrets.get_secret_value(SecretId="tidelog-database")["SecretString"]
        secrets.put_secret_value(SecretId="tidelog-database", SecretString=text)
        self.database.run(
            f"ALTER ROLE {self.role} NOLOGIN",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.role}'",
        )
        try:
            yield
        finally:
            self.database.run(f"ALTER ROLE {self.role} LOGIN")
            secrets.put_secret_value(SecretId="tidelog-database", SecretString=before)


@pytest.fixture(scope="module")
def tower(create_database: CreateDatabase, server_role: str) -> Iterator[Tower]:
    """The template over a database of two tables; a minute of its alarms lasts half a second."""
    with create_database() as database:
        database.run(
            "CREATE TABLE orders AS SELECT 1 AS id",
            "CREATE TABLE staff AS SELECT 1 AS id",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {server_role}",
        )
        to = database.server.credentials(database.name, server_role)
        content = {name: getattr(to, name) for name in to.__struct_fields__} | {"engine": "postgres"}
        with Sandbox(TEMPLATE, parameters=PARAMETERS, database=content) as sandbox:
            sandbox.start_alarms(minute=MINUTE)
            yield Tower(sandbox, database, server_role)
        database.run(f"DROP OWNED BY {server_role}")


def ago(**time: float) -> str:
    """Return a time in the past."""
    return (datetime.now(UTC) - timedelta(**time)).isoformat(timespec="seconds")


def test_a_schedule_that_falls_silent_is_told_of(tower: Tower) -> None:
    """Nothing fails then, and nothing comes; the email says where to look. The next tick is the all-clear."""
    email = tower.mail('ALARM: "tidelog-no-tick"')
    assert email.to == "admin@example.com"
    assert "has not finished a tick for 180 seconds" in email.body
    assert "tidelog-missed-ticks" in email.body
    tower.begin()
    tower.tick_until_mail('OK: "tidelog-no-tick"')


def test_a_table_that_nobody_reads_is_told_of_by_name(tower: Tower) -> None:
    """Its messages are sent, and nobody works them off; once it is read all is well."""
    tower.parameter("tables/public/orders", {"offset": 1, "checked_at": ago(hours=3)})
    tower.parameter("tables/public/staff", {"offset": 1, "checked_at": ago(seconds=90)})
    tower.begin()
    assert tower.tick().succeeded
    assert "A notice by email says which" in tower.mail('ALARM: "tidelog-stale-tables"').body
    notice = tower.mail("[tidelog] 1 table has gone stale")
    assert "public.orders  (3.0 h)" in notice.body
    assert "public.staff" not in notice.body
    tower.parameter("tables/public/orders", {"offset": 1, "checked_at": ago(seconds=0)})
    tower.parameter("tables/public/staff", {"offset": 1, "checked_at": ago(seconds=0)})
    tower.tick_until_mail('OK: "tidelog-stale-tables"')


def test_a_transaction_that_nobody_ends_is_told_of_with_its_session(tower: Tower) -> None:
    """As far as the role may see it; what the email says to run ends it."""
    with tower.database.session() as session:
        [[pid]] = session.run("SELECT pg_backend_pid()")
        session.run("BEGIN")
        [[own]] = session.run("SELECT pg_current_xact_id()::text::bigint")
        wait_for(lambda: tower.database.one(HORIZON) == own)
        tower.parameter("horizon", {"horizon": own, "since": ago(hours=2)})
        tower.begin()
        assert tower.tick().succeeded
        assert "how to end it" in tower.mail('ALARM: "tidelog-horizon-held"').body
        notice = tower.mail("[tidelog] a transaction holds the horizon")
        assert f"for 2.0 h: session {pid} of postgres in database {tower.database.name}" in notice.body
        assert f"SELECT pg_terminate_backend({pid})" in notice.body
    tower.database.pass_horizon()
    tower.tick_until_mail('OK: "tidelog-horizon-held"')


def test_a_scheduler_that_fails_is_told_of(tower: Tower) -> None:
    """Here the secret is nonsense; the log says so, and not what it is."""
    tower.begin()
    with tower.secret("n0nsense"):
        failed = tower.tick()
    assert not failed.succeeded
    told = json.dumps(failed.error)
    assert "Store a JSON object with host, port, dbname, username and password" in told
    assert "n0nsense" not in told + "".join(failed.log)
    assert "Its log says why" in tower.mail('ALARM: "tidelog-scheduler-errors"').body
    assert tower.tick().succeeded
    tower.mail('OK: "tidelog-scheduler-errors"')


def test_a_table_that_is_asked_for_and_missing_is_told_of(tower: Tower) -> None:
    """A table of IncludeTables that was renamed would be missed by nobody; all others are ingested."""
    tower.begin()
    tick = tower.tick()
    assert tick.response["refused"] == [{"table": "public.missing", "reason": "no such table"}]
    assert "public.orders" in tick.response["tables"]
    assert tower.sandbox.wait_for_alarm("refused-tables", "ALARM", SECONDS)
    tower.database.run("CREATE TABLE missing (id int)")
    try:
        tower.tick_until_mail('OK: "tidelog-refused-tables"')
    finally:
        tower.database.run("DROP TABLE missing")
    assert tower.tick().succeeded
    assert "IncludeTables" in tower.mail('ALARM: "tidelog-refused-tables"').body


def test_a_worker_that_is_killed_is_told_of(tower: Tower) -> None:
    """It can't say so itself."""
    attributes = {
        "ApproximateReceiveCount": "1",
        "ApproximateFirstReceiveTimestamp": "1763899200000",
        "MessageGroupId": "public.staff",
    }
    record = {
        "messageId": uuid.uuid4().hex,
        "receiptHandle": "r",
        "body": '{"version":1,"type":"ingest","table":"public.staff"}',
        "attributes": attributes,
        "eventSourceARN": "arn:aws:sqs:eu-west-2:123456789012:tidelog-work.fifo",
    }
    worker = tower.sandbox.outputs["WorkerFunction"]
    tower.begin()
    with tower.database.session() as migration, ThreadPoolExecutor(1) as thread:
        migration.run("BEGIN; LOCK TABLE staff IN ACCESS EXCLUSIVE MODE")
        run = thread.submit(tower.sandbox.invoke, worker, {"Records": [record]})
        wait_for(lambda: kill_waiting(tower.sandbox, tower.database, "public.staff"))
        assert run.result().kind == "exit"
    assert "ran out of time or memory" in tower.mail('ALARM: "tidelog-worker-errors"').body
    tower.mail('OK: "tidelog-worker-errors"')
