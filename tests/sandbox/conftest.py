"""What the tests of the sandbox share: one cloud without a stack, and one toy stack."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tidelog_sandbox import Sandbox
from tidelog_sandbox.cloud import Cloud

TOY = Path(__file__).parent / "toy" / "template.yaml"


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """A cloud with nothing in it."""
    with Cloud() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """The toy stack, deployed."""
    with Sandbox(TOY, database="postgresql://reader:p%40ss@db.example.com/shop", environment={"EXTRA": "1"}) as sandbox:
        yield sandbox


@pytest.fixture
def bucket(cloud: Cloud) -> str:
    """A new bucket."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    configuration = {"LocationConstraint": cloud.region}
    cloud.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=configuration)
    return name


@dataclass(frozen=True, slots=True)
class Orders:
    """The toy stack's queue, whose messages its worker works off."""

    sandbox: Sandbox

    @property
    def url(self) -> str:
        """The queue."""
        return self.sandbox.outputs["OrdersUrl"]

    def send(self, body: Any, group: str | None = None) -> str:
        """Send a message, in a group of its own unless one is named, and give its id."""
        return str(
            self.sandbox.client("sqs").send_message(
                QueueUrl=self.url,
                MessageBody=json.dumps(body),
                MessageGroupId=group or uuid.uuid4().hex,
                MessageDeduplicationId=uuid.uuid4().hex,
            )["MessageId"]
        )

    def dead_letters(self) -> list[dict[str, Any]]:
        """Take everything out of the dead-letter queue."""
        return taken(self.sandbox, self.sandbox.outputs["DeadLettersUrl"])


def taken(sandbox: Sandbox, url: str) -> list[dict[str, Any]]:
    """Take everything out of a queue."""
    sqs, messages = sandbox.client("sqs"), list[dict[str, Any]]()
    options = {"MaxNumberOfMessages": 10, "MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"]}
    while found := sqs.receive_message(QueueUrl=url, **options).get("Messages"):
        messages += found
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return messages


@pytest.fixture(scope="module")
def mapped(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The toy stack, whose mapping is stopped at the end of the module: that takes as long as a poll."""
    yield sandbox
    sandbox.stop_mappings()


@pytest.fixture
def orders(mapped: Sandbox) -> Orders:
    """The queue, with its mapping at work."""
    mapped.start_mappings()
    return Orders(mapped)
