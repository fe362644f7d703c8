"""A deployed stack as its operator sees it."""

from __future__ import annotations

import json
import uuid

from tests.stack.command import tidelog
from tests.tide import Database, Lake, Tide
from tidelog_sandbox.sandbox import Sandbox

PARAMETERS = {"AdminEmail": "admin@example.com", "DatabaseTls": "disable", "Schedule": "rate(1 day)"}
SECONDS = 60


class Office:
    """A deployed stack over a database, seen by its operator."""

    def __init__(self, sandbox: Sandbox, database: Database) -> None:
        self.sandbox = sandbox
        outputs = sandbox.outputs
        lake = Lake(sandbox.client("s3"), sandbox.client("ssm"), outputs["LakeBucket"], outputs["ParameterPrefix"])
        self.tide = Tide(database, lake)

    def tick(self, due: str = "") -> None:
        """Run a tick, as if the schedule did where it was due at some time, and all that comes of it."""
        payload = {"scheduled_time": due} if due else {}
        assert self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], payload).succeeded
        self.settle()

    def settle(self) -> None:
        """Wait until every message is worked off or among the dead letters."""
        self.sandbox.wait_until_idle(SECONDS)

    def tidelog(self, *command: str) -> str:
        """Run `tidelog` on the stack; return what it printed."""
        return tidelog(*command, **self.sandbox.environment, TIDELOG_STACK="tidelog", COLUMNS="200")

    def send(self, body: str) -> None:
        """Put a message on the backfill queue."""
        self.sandbox.client("sqs").send_message(
            QueueUrl=self.sandbox.outputs["BackfillQueueUrl"],
            MessageBody=body,
            MessageGroupId="backfill",
            MessageDeduplicationId=uuid.uuid4().hex,
        )

    def waiting(self) -> int:
        """Count the messages on the backfill queue."""
        name = "ApproximateNumberOfMessages"
        url = self.sandbox.outputs["BackfillQueueUrl"]
        found = self.sandbox.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])
        return int(found["Attributes"][name])

    def emitted(self, begin: int, table: str) -> list[int]:
        """Return the ids in segments that were committed behind an offset, sorted."""
        segments = self.tide.segments(table)
        keys = [event.segment.key for event in self.tide.events(table)[begin:] if event.segment]
        return sorted(json.loads(line)["id"] for key in keys for line in segments[key])

    def offset(self, table: str) -> int:
        """Return the offset of a table's newest event."""
        return self.tide.state(table).offset
