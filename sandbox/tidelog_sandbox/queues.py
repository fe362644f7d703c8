"""SQS as the real one behaves, where moto does not.

moto's queues forget a FIFO deduplication id once its message is deleted and ignore its scope, let two long pollers
take messages of one group at a time, accept stale receipt handles, count a message's size in characters, fail on
StartMessageMoveTask, and invoke Lambda functions themselves.
"""

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from moto.core.responses import ActionResult
from moto.sqs import models
from moto.sqs.constants import MAXIMUM_MESSAGE_LENGTH
from moto.sqs.exceptions import BatchRequestTooLong, InvalidParameterValue, MissingParameter
from moto.sqs.responses import SQSResponse

from tidelog_sandbox.mending import add, mend

_DEDUPLICATION_SECONDS = 300
_RECHECK_SECONDS = 0.1
_POISON_RECEIVES = 3
_calls = threading.local()
"""What the call of a thread is about."""


class FaithfulQueue(models.Queue):
    """A queue with one lock, a memory of deduplication ids, and increasing sequence numbers."""

    def __init__(self, name: str, region: str, account_id: str, **attributes: Any) -> None:
        self.lock = threading.RLock()
        self._accepted: dict[tuple[str | None, str | None], tuple[float, str, str | None]] = {}
        self._sequence: Iterator[int] = itertools.count(time.time_ns())
        super().__init__(name, region, account_id, **attributes)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes; while messages are sent, those that moto then asks for five times each."""
        if getattr(_calls, "sending", False):
            return {"ContentBasedDeduplication": str(self.content_based_deduplication).lower()}  # type: ignore[attr-defined]  # moto sets it by name
        return super().attributes

    @property
    def messages(self) -> list[models.Message]:
        """The messages that can be received. Like the two counts below as moto's, which asks for the time twice each.

        moto counts all with every message that is sent, so that ten thousand took minutes.
        """
        now = time.time() * 1000
        return [each for each in self._messages if now > each.visible_at and now >= each.delayed_until]

    @property
    def approximate_number_of_messages_delayed(self) -> int:
        """How many can't be received yet for the first time."""
        now = time.time() * 1000
        return sum(now < each.delayed_until for each in self._messages)

    @property
    def approximate_number_of_messages_not_visible(self) -> int:
        """How many are in flight."""
        now = time.time() * 1000
        return sum(now <= each.visible_at for each in self._messages)

    def add_message(self, message: models.Message) -> None:
        """Accept a sent message, or one that this dead-letter queue is given by its source.

        A duplicate is answered with the first message's id and sequence number, as SQS does. moto would also hand the
        message to a mapped Lambda function here; polling is for the mappings of the sandbox.
        """
        with self.lock:
            if message.approximate_receive_count:  # it comes from a source queue: no duplicate of anything here
                message.source = f"{self.queue_arn.rpartition(':')[0]}:{message.home}"  # type: ignore[attr-defined]
                if self.fifo_queue:
                    message.mark_sent()  # a FIFO queue counts the retention anew
            else:
                message.home = self.name  # type: ignore[attr-defined]  # for StartMessageMoveTask without a destination
                if self.fifo_queue and self._is_duplicate(message):
                    return
            if self.fifo_queue:
                message.sequence_number = f"{next(self._sequence):020d}"
                self._accepted[self._identity(message)] = (time.monotonic(), message.id, message.sequence_number)
            # For the age of the oldest message.
            message.arrived = time.time(), message.approximate_receive_count  # type: ignore[attr-defined]
            self._messages.append(message)
        self.announce()

    def metrics(self) -> dict[str, float]:
        """What CloudWatch is told of the queue, by the names of the metrics.

        The age is that of the oldest message that is not deleted, in flight or not, since it came into this queue. As
        in SQS, a message that was received more than three times from a standard queue no longer counts for it; one of
        a FIFO queue does.
        """
        with self.lock:
            aging = [
                at
                for message in self._messages
                for at, received in [message.arrived]  # type: ignore[attr-defined]  # set by add_message
                if self.fifo_queue or message.approximate_receive_count - received <= _POISON_RECEIVES
            ]
            return {
                "ApproximateNumberOfMessagesVisible": self.approximate_number_of_messages,
                "ApproximateNumberOfMessagesNotVisible": self.approximate_number_of_messages_not_visible,
                "ApproximateNumberOfMessagesDelayed": self.approximate_number_of_messages_delayed,
                "ApproximateAgeOfOldestMessage": round(time.time() - min(aging), 3) if aging else 0.0,
            }

    def announce(self) -> None:
        """Wake the long pollers."""
        with self._messages_lock:
            self._messages_lock.notify_all()

    def wait(self, seconds: float) -> None:
        """Return when something changed, or after some seconds."""
        with self._messages_lock:
            self._messages_lock.wait(seconds)

    def refuse_stale(self, receipt_handle: str, reason: str) -> None:
        """Raise InvalidParameterValue unless the handle is the newest of a FIFO message that is still in flight."""
        for message in self._messages if self.fifo_queue else ():
            if message.had_receipt_handle(receipt_handle):
                if message.receipt_handle != receipt_handle or message.visible:
                    raise InvalidParameterValue(
                        f"Value {receipt_handle} for parameter ReceiptHandle is invalid. Reason: {reason}"
                    )
                return

    def _identity(self, message: models.Message) -> tuple[str | None, str | None]:
        per_group = self.deduplication_scope == "messageGroup"  # type: ignore[attr-defined]  # moto sets it by name
        return (message.group_id if per_group else None, message.deduplication_id)

    def _is_duplicate(self, message: models.Message) -> bool:
        oldest = time.monotonic() - _DEDUPLICATION_SECONDS
        while self._accepted and next(iter(self._accepted.values()))[0] <= oldest:
            del self._accepted[next(iter(self._accepted))]  # they stand in the order in which they were accepted
        first = self._accepted.get(self._identity(message))
        if first:
            _, message.id, message.sequence_number = first
        return bool(first)


class FaithfulBackend(models.SQSBackend):
    """The operations on :class:`FaithfulQueue`, each under the queue's lock."""

    __module__ = models.SQSBackend.__module__  # moto finds the service's addresses by it

    def _queue(self, name: str) -> FaithfulQueue:
        queue = self.get_queue(name)
        assert isinstance(queue, FaithfulQueue)  # noqa: S101  # for the type: install() has replaced the class
        return queue

    def receive_message(
        self,
        queue_name: str,
        count: int,
        wait_seconds_timeout: int,
        visibility_timeout: int,
        message_attribute_names: list[str] | None = None,
    ) -> list[models.Message]:
        """Receive, with long polling as short receives in a loop.

        moto computes the groups in flight once per long poll, so that two pollers got messages of one group.
        """
        queue = self._queue(queue_name)
        end = time.monotonic() + wait_seconds_timeout
        while True:
            with queue.lock:
                messages = super().receive_message(queue_name, count, 0, visibility_timeout, message_attribute_names)
            left = end - time.monotonic()
            if messages or left <= 0:
                return messages
            queue.wait(min(_RECHECK_SECONDS, left))

    def delete_message(self, queue_name: str, receipt_handle: str) -> None:
        """Delete, unless the handle is stale: a FIFO message whose visibility timeout has passed stays."""
        queue = self._queue(queue_name)
        with queue.lock:
            queue.refuse_stale(receipt_handle, "The receipt handle has expired.")
            super().delete_message(queue_name, receipt_handle)
        queue.announce()  # the next message of the group can be received now

    def change_message_visibility(self, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
        """Change the visibility of a message in flight; zero makes it visible at once."""
        queue = self._queue(queue_name)
        with queue.lock:
            queue.refuse_stale(
                receipt_handle, "Message does not exist or is not available for visibility timeout change."
            )
            super().change_message_visibility(queue_name, receipt_handle, visibility_timeout)
            for message in queue._messages if int(visibility_timeout) == 0 else ():  # noqa: SLF001  # moto's own list
                if message.receipt_handle == receipt_handle:
                    message.visible_at = 0  # moto: visible only from the next millisecond on
                    queue.pending_messages.discard(message)
        queue.announce()

    def send_message_batch(
        self, queue_name: str, entries: dict[str, dict[str, Any]]
    ) -> tuple[list[models.Message], list[dict[str, Any]]]:
        """Send up to ten messages; their bodies count in bytes."""
        size = sum(len(entry["MessageBody"].encode()) for entry in entries.values())
        if size > MAXIMUM_MESSAGE_LENGTH:
            raise BatchRequestTooLong(size)
        _calls.sending = True
        try:
            return super().send_message_batch(queue_name, entries)
        finally:
            _calls.sending = False

    def _validate_message(self, queue: models.Queue, message_body: str, *args: Any, **kwargs: Any) -> None:
        limit: int = queue.maximum_message_size  # type: ignore[attr-defined]  # moto sets it by name
        if len(message_body.encode()) > limit:
            raise InvalidParameterValue(
                f"One or more parameters are invalid. Reason: Message must be shorter than {limit} bytes."
            )
        super()._validate_message(queue, message_body, *args, **kwargs)

    def move_messages(self, source: str, destination: str | None) -> int:
        """Move every visible message of a dead-letter queue to a queue, or each to the one that it came from.

        As in SQS a moved message is a new one: new id, new time, nothing received yet.
        """
        origin = self._queue(source)
        with origin.lock:
            moving = [message for message in origin._messages if message.visible]  # noqa: SLF001  # moto's own list
            for message in moving:
                target = self._queue(destination or message.home)  # type: ignore[attr-defined]  # set by add_message
                origin._messages.remove(message)  # noqa: SLF001  # moto's own list
                fresh = models.Message(str(uuid.uuid4()), message.body, message.system_attributes)
                fresh.message_attributes = message.message_attributes
                fresh.group_id = message.group_id
                fresh.deduplication_id = fresh.id  # never a duplicate of the first sending
                fresh.mark_sent()
                target.add_message(fresh)
        return len(moving)


def _start_message_move_task(response: SQSResponse) -> ActionResult:
    given = response._get_param  # noqa: SLF001  # as moto's own operations ask for them
    source, destination = given("SourceArn"), given("DestinationArn")
    if not source:
        raise MissingParameter("SourceArn")
    backend = response.sqs_backend
    assert isinstance(backend, FaithfulBackend)  # noqa: S101  # for the type: install() has replaced the class
    moved = backend.move_messages(source.split(":")[-1], destination.split(":")[-1] if destination else None)
    return ActionResult({"TaskHandle": f"moved-{moved}"})


def metrics(account: str, region: str) -> dict[str, dict[str, float]]:
    """The metrics of every queue, by its name."""
    queues = list(models.sqs_backends[account][region].queues.values())
    return {queue.name: queue.metrics() for queue in queues if isinstance(queue, FaithfulQueue)}


def _name_sources() -> None:
    """Say of a dead letter which queue it came from, where all system attributes are asked for."""

    def receive_and_name(response: SQSResponse) -> ActionResult:
        answer: ActionResult = receive(response)
        queue = response.sqs_backend.get_queue(response._get_queue_name())  # noqa: SLF001  # as moto's own
        sources = {message.id: getattr(message, "source", None) for message in queue._messages}  # noqa: SLF001
        answered: dict[str, Any] = answer.result  # type: ignore[assignment]  # moto says object
        for message in answered.get("Messages", []):
            if "Attributes" in message and sources.get(message["MessageId"]):
                message["Attributes"]["DeadLetterQueueSourceArn"] = sources[message["MessageId"]]
        return answer

    receive = mend(SQSResponse, "receive_message", receive_and_name)


def install(endpoint: str) -> None:
    """Make moto's SQS use the classes above, and queue URLs that reach it."""
    url = property(lambda queue: f"{endpoint}/{queue.account_id}/{queue.name}")  # moto's leads to AWS
    mend(models.Queue, "physical_resource_id", url)
    mend(models, "Queue", FaithfulQueue)
    mend(models.sqs_backends, "backend", FaithfulBackend)
    add(SQSResponse, "start_message_move_task", _start_message_move_task)
    _name_sources()
