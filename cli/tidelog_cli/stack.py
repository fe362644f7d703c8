"""A deployed stack, found by its name: on AWS, or in the sandbox when the environment points there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import typer
from botocore.exceptions import ClientError

from tidelog import errors
from tidelog.configurations import Configurations
from tidelog.deadletters import DeadLetters, Failures
from tidelog.dispatch import Dispatch
from tidelog.errors import InvalidSetting, StoreUnreachable, TidelogError
from tidelog.failures import error_code, store_errors
from tidelog.ledger import Ledger
from tidelog.messages import VERSION
from tidelog.queues import WorkQueue

AT_ONCE = 32
"""How many calls of AWS are under way side by side at most."""

StackName = Annotated[
    str,
    typer.Option(
        "--stack",
        envvar="TIDELOG_STACK",
        metavar="NAME",
        help="The CloudFormation stack. Region and credentials are those of the aws command; with the variables that "
        "`tidelog local up` prints it is the stack on this machine.",
    ),
]


class UnknownStackError(InvalidSetting):
    """There is no stack of that name here."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployed stack."""

    name: str
    outputs: Mapping[str, str]
    client: Callable[[str], Any]
    """Gives a boto3 client of a service."""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, name: str) -> Stack:
        """Find a stack by its name.

        Raises:
            InvalidSetting: there is none of that name here (UnknownStackError), or it is not tidelog's.
            AccessDenied, StoreUnreachable: AWS says no, or nothing.
        """
        subject = f"the stack {name}"
        try:
            with store_errors("find", subject):
                [described] = client_of("cloudformation").describe_stacks(StackName=name)["Stacks"]
        except StoreUnreachable as error:
            if isinstance(refused := error.__cause__, ClientError) and error_code(refused) == "ValidationError":
                hint = "Name it with --stack, and its region with AWS_DEFAULT_REGION"
                raise UnknownStackError("find", subject, "there is none of that name here", hint) from error
            raise
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        if "DeadLettersUrl" not in outputs:
            hint = "Deploy this version of template.yaml, or name another stack"
            raise InvalidSetting("find", subject, "it is not a tidelog stack", hint)
        parameters = {each["ParameterKey"]: each["ParameterValue"] for each in described.get("Parameters", [])}
        return cls(name, outputs, cast("Callable[[str], Any]", client_of), parameters)

    @property
    def dead_letters(self) -> DeadLetters:
        """Its dead-letter queue."""
        failures = Failures(self.client("s3"), self.outputs["LakeBucket"])
        return DeadLetters(self.client("sqs"), self.outputs["DeadLettersUrl"], failures)

    @property
    def configurations(self) -> Configurations:
        """Its configuration document."""
        return Configurations(self.client("ssm"), self.outputs["ParameterPrefix"])

    @property
    def ledger(self) -> Ledger:
        """The events of its tables."""
        bucket = self.outputs["LakeBucket"]
        return Ledger(self.client("s3"), bucket, now=lambda: datetime.now(UTC), new_id=lambda: uuid.uuid4().hex)

    @property
    def dispatch(self) -> Dispatch:
        """What sends the chunks of its plans."""
        return Dispatch(self.ledger, WorkQueue(self.client("sqs"), self.outputs["BackfillQueueUrl"]))

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Have the scheduler answer a request, or run a tick.

        Raises:
            TidelogError: what is wrong with it.
            StoreUnreachable: the function has failed.
        """
        with store_errors("ask", "the scheduler function"):
            answer = self.client("lambda").invoke(
                FunctionName=self.outputs["SchedulerFunction"], Payload=json.dumps(request).encode()
            )
        said: dict[str, Any] = json.load(answer["Payload"]) or {}
        if "FunctionError" in answer:
            reason = str(said.get("errorMessage") or answer["FunctionError"])
            raise StoreUnreachable("ask", "the scheduler function", reason, "See its log")
        if error := said.get("error"):
            kind: type[TidelogError] = getattr(errors, error["kind"])
            raise kind(error["operation"], error["subject"], error["reason"], error["hint"])
        return said

    def horizon(self) -> dict[str, Any] | None:
        """Return who holds the horizon, as the scheduler sees it: `seconds`, `holder` and `remedy`; None where nobody.

        Raises:
            TidelogError: the database or the scheduler could not be asked.
        """
        horizon: dict[str, Any] | None = self.ask({"version": VERSION, "type": "horizon"})["horizon"]
        return horizon

    @property
    def queues(self) -> Mapping[str, str]:
        """URL of each queue that feeds the worker, by name."""
        urls = (self.outputs["WorkQueueUrl"], self.outputs["BackfillQueueUrl"])
        return {url.rpartition("/")[2]: url for url in urls}


def find_configurations(name: str) -> tuple[Configurations, bool]:
    """Return the configuration document of a stack, and whether the stack is there: it may be configured before.

    Raises:
        InvalidSetting: there is a stack of that name, and it is not tidelog's.
        AccessDenied, StoreUnreachable: AWS says no, or nothing.
    """
    try:
        return Stack.find(name).configurations, True
    except UnknownStackError:
        return Configurations(client_of("ssm"), f"/tidelog/{name}"), False


def client_of(service: str) -> Any:
    """Return a boto3 client of a service, which waits for a function as long as that may take.

    Raises:
        InvalidSetting: the environment names an endpoint that is no URL.
        botocore.exceptions.BotoCoreError: it names no region, or a profile that is not there.
    """
    import boto3  # noqa: PLC0415 - it takes long to load, and --help needs none of it
    from botocore.config import Config  # noqa: PLC0415 - so does this

    config = Config(read_timeout=90, max_pool_connections=AT_ONCE)
    try:
        return boto3.client(service, config=config)  # type: ignore[call-overload] # one of many
    except ValueError as error:
        hint = "Set AWS_ENDPOINT_URL to a URL such as http://127.0.0.1:4566, or to nothing for AWS itself"
        raise InvalidSetting("call", service, str(error), hint) from error
