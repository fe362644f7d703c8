"""A deployed stack whose roles are watched, and a day of work with every mishap that asks for a right of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.stack.office import Office
from tests.tide import Database, wait_for
from tidelog_sandbox.destinations import sender
from tidelog_sandbox.sandbox import Sandbox

ROLES = ("ScheduleRole", "SchedulerRole", "WorkerRole")
BACKFILL = {"version": 1, "type": "backfill", "table": "public.orders", "all": True}
FUNCTIONS = {"SchedulerRole": "Scheduler", "WorkerRole": "Worker"}


class Call(NamedTuple):
    """What a role has asked for, as the sandbox notes it."""

    role: str
    action: str
    resource: str
    overwrites: bool


class Ward(Office):
    """A deployed stack, its roles, and what they have asked for."""

    def __init__(self, sandbox: Sandbox, database: Database) -> None:
        super().__init__(sandbox, database)
        self.bucket = sandbox.outputs["LakeBucket"]
        self.calls: set[Call] = set()
        self._iam = sandbox.client("iam")
        made = sandbox.client("cloudformation").list_stack_resources(StackName="tidelog")["StackResourceSummaries"]
        self.names: Mapping[str, str] = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made}

    def client(self, role: str, service: str) -> Any:
        """Return a client with the credentials of a role of the template."""
        return self.sandbox.cloud.client(service, self._role(role))

    def statements(self, role: str) -> list[dict[str, Any]]:
        """Return what a role is allowed, with actions and resources as lists."""
        found = self._iam.get_role_policy(RoleName=self.names[role], PolicyName=self._policy(role))
        as_list = {"Action", "Resource"}
        return [
            {key: [value] if key in as_list and isinstance(value, str) else value for key, value in each.items()}
            for each in found["PolicyDocument"]["Statement"]
        ]

    @contextmanager
    def without(self, role: str, sid: str) -> Iterator[None]:
        """Take a statement from a role for a while."""
        whole = self.statements(role)
        self._allow(role, [each for each in whole if each["Sid"] != sid])
        try:
            yield
        finally:
            self._allow(role, whole)

    def asked(self, role: str) -> list[Call]:
        """Return the calls of a role."""
        return sorted(call for call in self.calls if call.role == self.names[role])

    def note(self) -> None:
        """Take what was asked for since the last time; the first time nothing."""
        self.calls |= {Call(*call) for call in self.sandbox.cloud.calls()}

    def work_for_a_day(self) -> None:
        """Let the stack do all that it does, and go wrong in every way that asks for a right of its own."""
        self.note()
        self.sandbox.start_schedules()  # a first tick, with a large table and one that may not be read, and a sweep
        wait_for(lambda: self.offset("public.large") and self.offset("public.orders"))
        self.settle()
        self.sandbox.stop_schedules()
        self.tide.run("INSERT INTO orders VALUES (2)")
        self.disturbed_tick("^s3 PUT .*/data/public.orders/.*partNumber", "400 InvalidRequest")
        self.tide.run("INSERT INTO orders VALUES (3)")
        self.lose_an_upload("public.orders")
        self.tide.run("UPDATE large SET text = 'y'")
        self.disturbed_tick("^s3 PUT .*/data/public.large/.*partNumber", "400 InvalidRequest")
        asked = self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], BACKFILL).response
        assert "backfills" in asked, asked
        self.settle()
        self.tide.run("ALTER TABLE orders RENAME v TO w", "INSERT INTO orders VALUES (4)")
        with self.tide.database.session() as session:
            session.run("BEGIN")
            session.run("SELECT pg_current_xact_id()")
            self.tick()
            self.await_for_long("closed")
            self.tick("2026-11-24T12:00:00Z")  # one of the schedule, which goes by the tick before
        self.tick()
        self.act_for_services()
        self.note()

    def disturbed_tick(self, calls: str, what: str) -> None:
        """Run a tick of which a call goes wrong, and all that comes of it."""
        self.sandbox.cloud.disturb(calls, what, times=1)
        self.tick()
        assert self.sandbox.cloud.calm() == [1]

    def lose_an_upload(self, table: str) -> None:
        """Let something of a table be committed, and abort its upload before anybody publishes it."""
        s3, head = self.sandbox.client("s3"), self.offset(table)
        self.sandbox.cloud.disturb("^s3 POST .*/data/.*uploadId=", "409 ConditionalRequestConflict")
        assert self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], {}).succeeded
        wait_for(lambda: self.offset(table) > head)
        for upload in s3.list_multipart_uploads(Bucket=self.bucket)["Uploads"]:
            s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        self.sandbox.cloud.calm()
        self.settle()

    def await_for_long(self, table: str) -> None:
        """Let a table have been awaited since long ago."""
        self.sandbox.client("ssm").put_parameter(
            Name=f"{self.sandbox.outputs['ParameterPrefix']}/tables/public/{table}",
            Value='{"checked_at": "2026-01-01T00:00:00+00:00"}',
            Type="String",
            Overwrite=True,
        )

    def act_for_services(self) -> None:
        """Do what Lambda and EventBridge Scheduler do with the roles and the sandbox does not, or not in a day."""
        for role in ("ScheduleRole", "SchedulerRole"):  # what failed, what could not be started
            sender(self.sandbox.cloud, self._role(role))(self.queue_arn("MissedTicks"), "{}", {})
        for role, function in FUNCTIONS.items():
            stream = {"logGroupName": self.names[f"{function}Logs"], "logStreamName": "2026/11/24/[$LATEST]a"}
            self.client(role, "logs").create_log_stream(**stream)
            event = {"timestamp": int(time.time() * 1000), "message": "{}"}
            self.client(role, "logs").put_log_events(**stream, logEvents=[event])
        for queue in ("WorkQueue", "BackfillQueue"):  # a mapping's first look
            self.client("WorkerRole", "sqs").get_queue_attributes(QueueUrl=self.names[queue])

    def queue_arn(self, queue: str) -> str:
        """Return the ARN of a queue of the template."""
        name = "QueueArn"
        url = self.names[queue]
        found = self.sandbox.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])
        return str(found["Attributes"][name])

    def function(self, role: str) -> str:
        """Return the name of the function that has a role."""
        return self.names[f"{FUNCTIONS[role]}Function"]

    def _role(self, role: str) -> str:
        return str(self._iam.get_role(RoleName=self.names[role])["Role"]["Arn"])

    def _policy(self, role: str) -> str:
        [name] = self._iam.list_role_policies(RoleName=self.names[role])["PolicyNames"]
        return str(name)

    def _allow(self, role: str, statements: list[dict[str, Any]]) -> None:
        self._iam.put_role_policy(
            RoleName=self.names[role],
            PolicyName=self._policy(role),
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
