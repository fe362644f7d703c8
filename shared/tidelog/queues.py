"""SQS: sending work messages in batches, each one accounted for, and hiding one that failed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from tidelog.errors import StoreUnreachable
from tidelog.failures import store_errors
from tidelog.letters import Received
from tidelog.messages import Message, encode

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

_BATCH = 10
_ATTEMPTS = 3
_FEW, _AT_ONCE = 4, 8


class Depth(NamedTuple):
    """About how many messages a queue has, as SQS knows within a minute or so."""

    waiting: int
    in_flight: int
    """Given to somebody: being worked off, or resting after a failure."""


class WorkQueue:
    """A queue of work messages."""

    def __init__(self, sqs: SQSClient, url: str) -> None:
        self._sqs = sqs
        self._url = url

    def send(self, messages: Sequence[Message], *, salt: str = "") -> None:
        """Send messages, those of a group in order; where there are many, several calls are under way at once.

        Args:
            messages: the messages.
            salt: something new, where they are sent although SQS may have had the same ones within five minutes.

        Raises:
            StoreUnreachable: some were not taken even when they were sent again; the others are on the queue.
        """
        batches = [messages[start : start + _BATCH] for start in range(0, len(messages), _BATCH)]
        if len(batches) <= _FEW or len({message.group for message in messages}) < len(messages):
            answers = [self._send_batch(batch, salt) for batch in batches]
        else:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                answers = list(pool.map(lambda batch: self._send_batch(batch, salt), batches))
        if failed := [name for answer in answers for name in answer]:
            reason = f"SQS did not take {', '.join(failed)}"
            raise StoreUnreachable("send", "work messages", reason, "They are sent again")

    def depth(self) -> Depth:
        """Return about how many messages there are."""
        with store_errors("count the messages of", self._url):
            found = self._sqs.get_queue_attributes(
                QueueUrl=self._url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesDelayed",
                    "ApproximateNumberOfMessagesNotVisible",
                ],
            )["Attributes"]
        counts = {name: int(text) for name, text in found.items()}
        in_flight = counts.pop("ApproximateNumberOfMessagesNotVisible", 0)
        return Depth(sum(counts.values()), in_flight)

    def hide(self, message: Received, seconds: int) -> None:
        """Hide a message that was received for so many seconds from now; it is given again then."""
        with store_errors("hide", "a work message"):
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=message.receipt, VisibilityTimeout=seconds
            )

    def _send_batch(self, batch: Sequence[Message], salt: str) -> list[str]:
        """Send at most ten messages; return the tables of those that were not taken, with SQS's reasons."""
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {
                "Id": str(number),
                "MessageBody": encode(message),
                "MessageGroupId": message.group,
                "MessageDeduplicationId": f"{message.deduplication}{salt}",
            }
            for number, message in enumerate(batch)
        ]
        refused: dict[str, str] = {}
        for _ in range(_ATTEMPTS):
            with store_errors("send", f"{len(entries)} work messages"):
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=entries)
            refused = {entry["Id"]: entry["Code"] for entry in answer.get("Failed", [])}
            entries = [entry for entry in entries if entry["Id"] in refused]
            if not entries:
                break
        return [f"{batch[int(number)].table} ({code})" for number, code in refused.items()]
