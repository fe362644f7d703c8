"""The dead-letter queue: burying a message, looking at what lies there, sending it back, dropping it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import ClientError

from tidelog.errors import InvalidMessage
from tidelog.failures import error_code, store_errors
from tidelog.letters import MAX_BYTES, Failure, Origin, Received, from_attributes, size, to_attributes
from tidelog.messages import decode, sent_again
from tidelog.stores import NoSuchObjectError, Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef, ReceiveMessageResultTypeDef

_FAILURES = "failures/"
_AT_ONCE = 16
_BATCH = 10
_ROUND = 200
"""So many letters are received before the first is lent: few enough to be worked off while they are held."""
_HELD_SECONDS = 300
"""How long a letter that is looked at is hidden from others, should its reader die."""


class Letter(msgspec.Struct, frozen=True):
    """A message among the dead letters.

    Attributes:
        id: its message id there.
        receipt: the handle by which it is deleted.
        body: the message as it was sent at first.
        arrived: when it came there.
        origin: where it goes when it is sent back.
        failure: why it is there; None where nothing was noted: its worker was killed each time.
    """

    id: str
    receipt: str
    body: str
    arrived: datetime
    origin: Origin
    failure: Failure | None

    @property
    def table(self) -> str:
        """The table that it is about, empty where that can't be told."""
        try:
            return str(decode(self.body).table_name)
        except InvalidMessage:
            return ""


class Failures:
    """The last failure of each message that is tried again, in the lake at `failures/<message id>.json`."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def write(self, message: str, failure: Failure) -> None:
        """Note why a message failed, whatever was noted before."""
        body = msgspec.json.format(msgspec.json.encode(failure), indent=1) + b"\n"
        with store_errors("note the failure of", message):
            self._s3.put_object(
                Bucket=self._bucket, Key=_failure_key(message), Body=body, ContentType="application/json"
            )

    def read(self, message: str) -> Failure | None:
        """Return why a message failed last, None where nothing was noted."""
        with store_errors("read the failure of", message):
            try:
                body = self._s3.get_object(Bucket=self._bucket, Key=_failure_key(message))["Body"].read()
            except ClientError as error:
                if error_code(error) != "NoSuchKey":
                    raise
                return None
        return _failure(body)


def noted_failures(store: Store, since: datetime, most: int = 200) -> list[Failure]:
    """Return the last failure of each message that has failed since a moment, the newest first.

    A message that is worked off later leaves its note behind.

    Args:
        store: the lake.
        since: with a zone.
        most: no more than these are read.
    """
    listed = [each for each in store.keys(_FAILURES) if each.written >= since]
    newest = sorted(listed, key=lambda each: each.written, reverse=True)[:most]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        noted = [failure for failure in pool.map(lambda each: _noted(store, each.key), newest) if failure]
    return sorted(noted, key=lambda failure: failure.failed_at, reverse=True)


def _noted(store: Store, key: str) -> Failure | None:
    try:
        return _failure(store.read(key))
    except NoSuchObjectError:
        return None  # It has just expired.


def _failure(body: bytes) -> Failure | None:
    """Read a note; what tidelog does not write is as good as nothing."""
    try:
        failure = msgspec.json.decode(body, type=Failure)
        return failure if datetime.fromisoformat(failure.failed_at).tzinfo else None
    except ValueError:  # msgspec's own errors are such too
        return None


class DeadLetters:
    """The dead-letter queue.

    Args:
        sqs: the client.
        url: of the queue.
        failures: what is known of the messages that SQS has moved there itself.
    """

    def __init__(self, sqs: SQSClient, url: str, failures: Failures) -> None:
        self._sqs = sqs
        self._url = url
        self._failures = failures
        self._removed = 0

    def bury(self, message: Received, failure: Failure) -> str | None:
        """Send a message to the dead letters with its failure; return its id there, None if it is too long for both.

        Each is a group of its own there, so that every one can be looked at. Sent twice within five minutes it lies
        there once.
        """
        attributes = to_attributes(failure, Origin(message.queue, message.group))
        if size(message.body, attributes) > MAX_BYTES:
            return None
        with store_errors("send", "a message to the dead letters"):
            sent = self._sqs.send_message(
                QueueUrl=self._url,
                MessageBody=message.body,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()
                },
                MessageGroupId=message.id,
                MessageDeduplicationId=message.id,
            )
        return sent["MessageId"]

    def count(self) -> int:
        """Return about how many letters there are, those that somebody looks at included."""
        with store_errors("count", "the dead letters"):
            found = self._sqs.get_queue_attributes(
                QueueUrl=self._url,
                AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
            )["Attributes"]
        return int(found["ApproximateNumberOfMessages"]) + int(found["ApproximateNumberOfMessagesNotVisible"])

    @contextmanager
    def opened(self) -> Iterator[Iterator[Letter]]:
        """Lend the letters. Each is hidden from others until the end of the block; those still there come back then.

        What comes in once the first is lent is not among them: a letter that is sent back may fail again at once.

        Of a group only ten are seen at a time, unless they are removed: SQS gives no more of a group while some are
        held. Groups of more than one are only of messages that SQS has moved itself.
        """
        held: dict[str, str] = {}
        try:
            yield self._browse(held)
        finally:
            self._release(list(held.values()))

    def _browse(self, held: dict[str, str]) -> Iterator[Letter]:
        """Yield letters a round at a time; of all rounds but the first, those that had arrived before it."""
        begun: datetime | None = None
        while True:
            removed = self._removed
            messages, answered = self._round(held)
            for letter in map(self._letter, messages):
                if begun is None or letter.arrived < begun:
                    yield letter
            if len(messages) < _ROUND and self._removed == removed:
                return
            begun = begun or answered

    def _round(self, held: dict[str, str]) -> tuple[list[MessageTypeDef], datetime]:
        """Receive letters that are not held yet, and hold them; return them, and when SQS first answered."""
        messages: list[MessageTypeDef] = []
        answer = self._receive()
        answered = _answered(answer)
        while found := answer.get("Messages", []):
            new = [message for message in found if message["MessageId"] not in held]
            held |= {message["MessageId"]: message["ReceiptHandle"] for message in found}
            messages += new
            if not new or len(messages) >= _ROUND:
                break
            answer = self._receive()
        return messages, answered

    def redrive(self, letter: Letter, queues: Mapping[str, str]) -> None:
        """Send a letter back to its queue, as it was sent at first but by the latest configuration, and remove it.

        Args:
            letter: the letter.
            queues: URL of each queue that it may have come from, by name.

        Raises:
            InvalidMessage: it came from none of them.
        """
        if letter.origin.queue not in queues:
            reason = f"it came from {letter.origin.queue or 'no queue'}, not from {' or '.join(queues)}"
            raise InvalidMessage("send back", letter.id, reason, "Send its body by hand, then drop it")
        with store_errors("send back", letter.id):
            self._sqs.send_message(
                QueueUrl=queues[letter.origin.queue],
                MessageBody=sent_again(letter.body),
                MessageGroupId=letter.origin.group,
                MessageDeduplicationId=letter.id,
            )
        self.remove(letter)

    def remove(self, letter: Letter) -> None:
        """Delete a letter for good."""
        with store_errors("delete", letter.id):
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=letter.receipt)
        self._removed += 1

    def _receive(self) -> ReceiveMessageResultTypeDef:
        with store_errors("receive", "the dead letters"):
            return self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=_BATCH,
                VisibilityTimeout=_HELD_SECONDS,
                WaitTimeSeconds=1,  # without a wait SQS asks only some of its servers
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )

    def _letter(self, message: MessageTypeDef) -> Letter:
        system = message["Attributes"]
        found = message.get("MessageAttributes", {})
        attributes = {name: value["StringValue"] for name, value in found.items() if "StringValue" in value}
        failure: Failure | None
        if known := from_attributes(attributes):
            failure, origin = known
        else:
            failure = self._failures.read(message["MessageId"])
            queue = system.get("DeadLetterQueueSourceArn", "").rpartition(":")[2]
            origin = Origin(queue, system["MessageGroupId"])
        return Letter(
            id=message["MessageId"],
            receipt=message["ReceiptHandle"],
            body=message["Body"],
            arrived=datetime.fromtimestamp(int(system["SentTimestamp"]) / 1000, UTC),
            origin=origin,
            failure=failure,
        )

    def _release(self, receipts: list[str]) -> None:
        """Show letters again; those that were removed meanwhile are refused, which is as well."""
        for start in range(0, len(receipts), _BATCH):
            with store_errors("release", "the dead letters"):
                self._sqs.change_message_visibility_batch(
                    QueueUrl=self._url,
                    Entries=[
                        {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                        for number, receipt in enumerate(receipts[start : start + _BATCH])
                    ],
                )


def _answered(answer: ReceiveMessageResultTypeDef) -> datetime:
    """Return when SQS has answered, by its own clock: the begin of the second that it names."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _failure_key(message: str) -> str:
    return f"{_FAILURES}{message}.json"
