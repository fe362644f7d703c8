"""AWS in this process, and a worker between it and the database of a test."""

from __future__ import annotations

import gc
import json
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from moto.core.common_models import BaseModel
from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend
from moto.s3.responses import S3Response

from tests.conftest import REGION, Aws, make_lake
from tests.tide import Database, Lake, Tide
from tidelog.letters import Received

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef


@pytest.fixture(scope="package")
def aws() -> Iterator[Aws]:
    """AWS, as moto plays it, mended: an upload that is gone is an error, and one S3 request is answered at a time."""
    complete, respond = S3Backend.complete_multipart_upload, S3Response.key_response
    alone = threading.Lock()  # a conditional write looks and writes in two steps, and of threads several would win

    def mended(backend: S3Backend, bucket: str, upload: str, body: Any) -> Any:
        if upload not in backend.get_bucket(bucket).multiparts:
            raise NoSuchUpload(upload_id=upload)
        return complete(backend, bucket, upload, body)

    def in_turn(response: S3Response, *request: Any) -> Any:
        with alone:
            return respond(response, *request)

    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "key_response", in_turn)
        patch.setattr(S3Backend, "complete_multipart_upload", mended)
        patch.setattr(BaseModel, "__new__", lambda cls, *_, **__: object.__new__(cls))  # moto keeps all it ever made
        aws = Aws()
        gc.freeze()  # boto3's descriptions of services need not be gone through again and again
        yield aws


@pytest.fixture
def lake(aws: Aws) -> Lake:
    """An empty lake."""
    return make_lake(aws.s3, aws.ssm)


@pytest.fixture
def tide(database: Database, lake: Lake) -> Iterator[Tide]:
    """A worker between a fresh database and an empty lake; in the end every table's ledger adds up."""
    tide = Tide(database, lake)
    yield tide
    for table in tide.tables():
        tide.check(table)
    assert lake.uploads() == []


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands until a test sets it."""
    return Clock()


class Post:
    """A work queue, a dead-letter queue, and a topic with an inbox that has subscribed to it."""

    def __init__(self, sqs: SQSClient, sns: SNSClient) -> None:
        self.sqs = sqs
        self.sns = sns
        self.work = self._queue(".fifo", FifoQueue="true")
        self.dead = self._queue(".fifo", FifoQueue="true")
        self._inbox = self._queue("")
        self.topic = sns.create_topic(Name=uuid.uuid4().hex)["TopicArn"]
        arn = sqs.get_queue_attributes(QueueUrl=self._inbox, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=arn)

    def send(self, url: str, body: str, group: str = "public.t", **arguments: Any) -> str:
        """Put a message on a FIFO queue; return its id."""
        return self.sqs.send_message(
            QueueUrl=url, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=uuid.uuid4().hex, **arguments
        )["MessageId"]

    def receive(self, url: str) -> list[MessageTypeDef]:
        """Receive what a queue gives at once; it is hidden from then on."""
        return self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages", [])

    def received(self, body: str, group: str = "public.t", *, tries: int = 1) -> Received:
        """Put a message on the work queue and receive it, as a worker does that is told how often it was tried."""
        self.send(self.work, body, group)
        [message] = self.receive(self.work)
        queue = self.work.rpartition("/")[2]
        first = "2026-11-23T11:59:00+00:00"
        return Received(message["MessageId"], message["ReceiptHandle"], message["Body"], queue, group, tries, first)

    def notices(self) -> list[tuple[str, str]]:
        """Take what was published since it was last taken: subjects and texts."""
        taken = []
        while found := self.receive(self._inbox):
            for message in found:
                self.sqs.delete_message(QueueUrl=self._inbox, ReceiptHandle=message["ReceiptHandle"])
                taken.append(json.loads(message["Body"]))
        return [(notice["Subject"], notice["Message"]) for notice in taken]

    def _queue(self, ending: str, **attributes: str) -> str:
        return self.sqs.create_queue(QueueName=uuid.uuid4().hex + ending, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type] # attributes of SQS


@pytest.fixture(scope="package")
def sns(aws: Aws) -> SNSClient:
    """A client of SNS."""
    return boto3.client("sns", region_name=REGION)


@pytest.fixture(scope="package")
def impatient(aws: Aws) -> SQSClient:
    """A client of SQS that does not wait for messages where there are none."""
    client = boto3.client("sqs", region_name=REGION)
    client.meta.events.register(
        "provide-client-params.sqs.ReceiveMessage", lambda params, **_: params | {"WaitTimeSeconds": 0}
    )
    return client


@pytest.fixture
def post(impatient: SQSClient, sns: SNSClient) -> Post:
    """Empty queues, and a topic."""
    return Post(impatient, sns)
