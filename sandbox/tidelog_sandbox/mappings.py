"""Event source mappings: what Lambda does between a queue and a function.

It polls, invokes the function with the messages, and deletes those that were worked off. A message that was not stays
hidden until its visibility timeout; the queue then gives it again, or moves it to its dead letters.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.deployment import MappingConfiguration
from tidelog_sandbox.functions import Function, Invocation

_DEFAULT_CONCURRENCY = 10
"""Of a mapping without a maximum; Lambda's own, 1000 and more, is not for one machine."""
_WAIT_SECONDS = 1


class Poller:
    """The polling of one mapping, in threads of its own.

    Args:
        cloud: where the queue is.
        configuration: the mapping.
        function: what it invokes.
        changed: is called when an invocation has ended and its messages are dealt with.
        failed: is called with what neither the function nor the queue is to blame for.
    """

    def __init__(
        self,
        cloud: Cloud,
        configuration: MappingConfiguration,
        function: Function,
        changed: Callable[[], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self.configuration = configuration
        self._function = function
        self._changed = changed
        self._failed = failed
        self._sqs = cloud.client("sqs", function.configuration.role)  # Lambda polls with the function's role
        self.queue_url = cloud.queue_url(configuration.queue_arn)
        name = configuration.queue_arn.rpartition(":")[2]
        self._region = cloud.region
        self._concurrency = configuration.maximum_concurrency or _DEFAULT_CONCURRENCY
        self._slots = threading.Semaphore(self._concurrency)
        self._lock = threading.Lock()
        self._in_flight = 0
        self._left_behind: set[str] = set()
        self._stopping = threading.Event()
        self._workers = ThreadPoolExecutor(self._concurrency, thread_name_prefix=f"mapping of {name}")
        self._thread = threading.Thread(target=self._poll, name=f"poller of {name}", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """How many invocations are under way, or have ended with messages yet to be deleted."""
        with self._lock:
            return self._in_flight

    @property
    def left_behind(self) -> int:
        """How many messages have failed, and are hidden until they are given again."""
        with self._lock:
            return len(self._left_behind)

    def stop(self) -> None:
        """Take no more messages, and wait for the invocations under way."""
        self.begin_to_stop()
        self._thread.join()
        self._workers.shutdown()

    def begin_to_stop(self) -> None:
        """Take no more messages; returns at once."""
        self._stopping.set()
        self._slots.release()

    def _poll(self) -> None:
        while True:
            self._slots.acquire()
            messages: list[dict[str, Any]] = []
            while not messages:
                if self._stopping.is_set():
                    return
                try:
                    messages = self._receive()
                except (BotoCoreError, ClientError) as error:
                    self._report(error)
                    return
            with self._lock:
                self._in_flight += 1
                self._left_behind -= {message["MessageId"] for message in messages}
            self._workers.submit(self._work_off, messages)

    def _receive(self) -> list[dict[str, Any]]:
        received: list[dict[str, Any]] = self._sqs.receive_message(
            QueueUrl=self.queue_url,
            MaxNumberOfMessages=min(self.configuration.batch_size, 10),
            WaitTimeSeconds=_WAIT_SECONDS,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        return received

    def _work_off(self, messages: Sequence[dict[str, Any]]) -> None:
        try:
            records = [self._record(message) for message in messages]
            invocation = self._function.invoke({"Records": records}, record=records[0])
            done = worked_off(invocation, [message["MessageId"] for message in messages], self.configuration)
            for message in messages:
                if message["MessageId"] in done:
                    self._delete(message["ReceiptHandle"])
            with self._lock:
                self._left_behind |= {message["MessageId"] for message in messages} - done
        except Exception as error:  # noqa: BLE001  # a pool's thread has nobody who would see it
            self._report(error)
        finally:
            with self._lock:
                self._in_flight -= 1
            self._slots.release()
            self._changed()

    def _report(self, error: Exception) -> None:
        if not self._stopping.is_set():  # when all ends, what is under way fails
            self._failed(error)

    def _delete(self, receipt_handle: str) -> None:
        try:
            self._sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=receipt_handle)
        except ClientError as error:
            # Its visibility timeout passed before the function ended: it is somebody else's, as with Lambda.
            if error.response["Error"]["Code"] != "InvalidParameterValue":
                raise

    def _record(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as a function gets it: https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html."""
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": {
                name: {
                    "stringValue": value.get("StringValue"),
                    "stringListValues": [],
                    "binaryListValues": [],
                    "dataType": value["DataType"],
                }
                for name, value in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.configuration.queue_arn,
            "awsRegion": self._region,
        }


def worked_off(
    invocation: Invocation, message_ids: Sequence[str], configuration: MappingConfiguration
) -> frozenset[str]:
    """The messages of an invocation that are deleted.

    All of them if it succeeded, but for the ``batchItemFailures`` that it names, if the mapping asks for them. As with
    Lambda a response that cannot be understood, or names a message that was not given, counts for a failure of all.
    """
    every = frozenset(message_ids)
    if not invocation.succeeded:
        return frozenset()
    if not configuration.reports_failures:
        return every
    try:
        failures = {failure["itemIdentifier"] for failure in (invocation.response or {}).get("batchItemFailures") or []}
    except (AttributeError, KeyError, TypeError):
        return frozenset()
    return every - failures if failures <= every else frozenset()
