"""How much lies on a stack's queues, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tidelog.failures import store_errors
from tidelog.queues import WorkQueue
from tidelog_cli.stack import Stack

QUEUES: Mapping[str, str] = {
    "work": "WorkQueueUrl",
    "backfill": "BackfillQueueUrl",
    "dead_letters": "DeadLettersUrl",
    "missed_ticks": "MissedTicksUrl",
}
"""Each by the output of the stack that has its URL."""
_AGED = ("work", "backfill")
_LATELY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """A queue.

    Attributes:
        waiting: messages that nobody has taken yet.
        in_flight: messages that are worked off, or that rest after a failure.
        oldest: seconds that the oldest waits; None where CloudWatch does not know yet.
    """

    waiting: int
    in_flight: int
    oldest: int | None = None

    @property
    def all(self) -> int:
        """How many messages there are."""
        return self.waiting + self.in_flight


class Queues:
    """The queues of a stack."""

    def __init__(self, stack: Stack) -> None:
        self._urls = {name: stack.outputs[output] for name, output in QUEUES.items()}
        sqs = stack.client("sqs")
        self._queues = {name: WorkQueue(sqs, url) for name, url in self._urls.items()}
        self._cloudwatch = stack.client("cloudwatch")

    def depth(self, name: str) -> QueueDepth:
        """Return about how many messages one of `QUEUES` has.

        Raises:
            AccessDenied, StoreUnreachable: AWS says no, or nothing.
        """
        return QueueDepth(*self._queues[name].depth())

    def oldest(self, now: datetime) -> dict[str, int]:
        """Return for how many seconds the oldest message of the worker's queues waits, where CloudWatch has heard.

        Raises:
            AccessDenied, StoreUnreachable: AWS says no, or nothing.
        """
        with store_errors("read the age of the oldest message of", "the queues"):
            answer = self._cloudwatch.get_metric_data(
                MetricDataQueries=[_query(name, self._urls[name]) for name in _AGED],
                StartTime=now - _LATELY,
                EndTime=now,
                ScanBy="TimestampDescending",
            )
        return {each["Id"]: int(each["Values"][0]) for each in answer["MetricDataResults"] if each["Values"]}


def _query(name: str, url: str) -> dict[str, Any]:
    dimensions = [{"Name": "QueueName", "Value": url.rpartition("/")[2]}]
    metric = {"Namespace": "AWS/SQS", "MetricName": "ApproximateAgeOfOldestMessage", "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
