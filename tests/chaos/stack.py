"""The template, deployed with functions that die, over a database; and what has to be true of its lake after all."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.chaos.plan import ROOT, Plan
from tests.sandbox.conftest import taken
from tests.tide import Database, Lake, Tide
from tidelog.plans import ChunkRead, Planned
from tidelog.tables import TableName
from tidelog_sandbox import Invocation, Sandbox

SECONDS = 120
SUMMARY_BYTES = 1000
PARAMETERS = {"AdminEmail": "admin@example.com", "DatabaseTls": "disable", "Schedule": "rate(1 day)"}


class Stack:
    """A deployed template. A message that failed comes again when it is let, or at once if `eager`."""

    def __init__(self, sandbox: Sandbox, database: Database, plan: Plan) -> None:
        self.sandbox = sandbox
        self.plan = plan
        self.worker = sandbox.outputs["WorkerFunction"]
        lake = Lake(
            sandbox.client("s3"),
            sandbox.client("ssm"),
            sandbox.outputs["LakeBucket"],
            sandbox.outputs["ParameterPrefix"],
        )
        self.tide = Tide(database, lake)
        self.eager = False
        self.invocations: deque[Invocation] = deque(maxlen=10_000)
        self._lock = threading.Lock()
        self._hidden: list[Mapping[str, Any]] = []
        self._ticks = 0
        sandbox.on_invocation(self._ended)

    def tick(self) -> Invocation:
        """Run the scheduler; its messages are worked off in the background."""
        with self._lock:
            self._ticks += 1
            due = f"tick {self._ticks}"
        return self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], {"scheduled_time": due, "all": True})

    def cool(self) -> None:
        """End the processes that wait for an invocation."""
        for function in self.sandbox.functions.values():
            function.reap()

    def send(self, body: str) -> None:
        """Put a message on the work queue, in a group of its own."""
        self.sandbox.client("sqs").send_message(
            QueueUrl=self.sandbox.outputs["WorkQueueUrl"],
            MessageBody=body,
            MessageGroupId=uuid.uuid4().hex,
            MessageDeduplicationId=uuid.uuid4().hex,
        )

    def take_letters(self) -> list[dict[str, Any]]:
        """Take everything out of the dead letters."""
        return taken(self.sandbox, self.sandbox.outputs["DeadLettersUrl"])

    def work(self, *bodies: str) -> Invocation:
        """Give the worker records, as an event source mapping does, but none that stand on a queue."""
        attributes = {
            "ApproximateReceiveCount": "1",
            "ApproximateFirstReceiveTimestamp": "1763899200000",
            "MessageGroupId": "g",
        }
        arn = "arn:aws:sqs:eu-west-2:123456789012:tidelog-work.fifo"
        common = {"receiptHandle": "r", "attributes": attributes, "eventSourceARN": arn}
        records = [{"messageId": str(uuid.uuid4()), "body": body, **common} for body in bodies]
        return self.sandbox.invoke(self.worker, {"Records": records})

    def wait(self, *, hidden: bool = True) -> None:
        """Wait until all that was sent is worked off, or all but what failed."""
        self.sandbox.wait_until_idle(SECONDS, hidden=hidden)

    def release(self) -> None:
        """Let the messages come again that failed: as if their time had passed."""
        with self._lock:
            records, self._hidden = self._hidden, []
        for record in records:
            with suppress(ClientError):  # it is hidden no more
                self.sandbox.client("sqs").change_message_visibility(
                    QueueUrl=self.sandbox.cloud.queue_url(record["eventSourceARN"]),
                    ReceiptHandle=record["receiptHandle"],
                    VisibilityTimeout=0,
                )

    def forget(self) -> None:
        """Lose every parameter."""
        ssm, prefix = self.sandbox.client("ssm"), self.sandbox.outputs["ParameterPrefix"]
        for page in ssm.get_paginator("get_parameters_by_path").paginate(Path=prefix, Recursive=True):
            if names := [parameter["Name"] for parameter in page["Parameters"]]:
                ssm.delete_parameters(Names=names)

    def _ended(self, invocation: Invocation) -> None:
        self.invocations.append(invocation)
        if invocation.record and (not invocation.succeeded or invocation.response["batchItemFailures"]):
            with self._lock:
                self._hidden.append(invocation.record)
            if self.eager:
                self.release()


@contextmanager
def deployed(database: Database, directory: Path, **options: Any) -> Iterator[Stack]:
    """Deploy the template over a database, with its queues worked off."""
    plan, secret = Plan(directory), database.server.credentials(database.name)
    content = {"host": secret.host, "port": secret.port, "dbname": secret.dbname, "engine": "postgres"}
    content |= {"username": secret.username, "password": secret.password}
    options["parameters"] = PARAMETERS | options.get("parameters", {})
    options["environment"] = {**plan.environment, **options.get("environment", {})}
    with Sandbox(ROOT / "template.yaml", database=content, **options) as sandbox:
        yield Stack(sandbox, database, plan)


def hold(tide: Tide, tables: Collection[str]) -> None:
    """Hold the lake against the database: nothing lost, nothing twice, nothing without an event that names it.

    Rows have an `id` and a `version`, which no two row versions of a table share.
    """
    for table in tables:
        tide.check(table)
        rows = Counter((row["id"], row["version"]) for row in tide.rows(table))
        assert not {row: count for row, count in rows.items() if count > 1}, table
        latest, now = tide.latest(table), tide.table(table)
        # A row that is older than a column has none in the lake, and NULL in the database.
        found = {key: {column: latest.get(key, {}).get(column) for column in row} for key, row in now.items()}
        different = {key: (found[key], row) for key, row in now.items() if found[key] != row}
        assert not different, (table, different, tide.state(table))
    hold_objects(tide, tables)


def hold_objects(tide: Tide, tables: Collection[str]) -> None:
    """Look at what else is there: nothing of other tables, nothing overwritten, no parameter too long."""
    keys = [key for folder in ("data/", "ledger/", "schema/") for key in tide.lake.keys(folder)]
    assert {key.split("/")[1] for key in keys} <= {TableName.parse(table).path for table in tables}
    versions = Counter(
        version["Key"]
        for page in tide.lake.s3.get_paginator("list_object_versions").paginate(Bucket=tide.lake.bucket)
        for version in page.get("Versions", [])
    )
    assert {key: versions[key] for key in keys} == dict.fromkeys(keys, 1), "an object was overwritten"
    pages = tide.lake.ssm.get_paginator("get_parameters_by_path").paginate(Path=tide.lake.prefix, Recursive=True)
    parameters = [parameter["Value"] for page in pages for parameter in page["Parameters"]]
    assert all(len(value) < SUMMARY_BYTES for value in parameters), "Parameter Store takes 4096 bytes"


def hold_chunks(tide: Tide, table: str) -> None:
    """Hold that each plan of a table is over, each of its numbers read once, as where nobody alters the table."""
    assert not tide.state(table).plans
    events = tide.events(table)
    for plan in (event for event in events if isinstance(event.what, Planned)):
        whats = (event.what for event in events)
        read = sorted(what.chunk.number for what in whats if isinstance(what, ChunkRead) and what.plan == plan.offset)
        assert read == list(range(1, len(read) + 1))
