"""Metrics, as CloudWatch has them: what invocations and log lines tell of them, and a memory of the last datapoints."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tidelog_sandbox.functions import Invocation

EMBEDDED = '"_aws"'
"""What a line of the embedded metric format has in it, and hardly another."""

OF_FUNCTIONS = {"Invocations": "Count", "Errors": "Count", "Throttles": "Count", "Duration": "Milliseconds"}
"""The metrics of Lambda, and their units."""

OF_QUEUES = {
    "ApproximateNumberOfMessagesVisible": "Count",
    "ApproximateNumberOfMessagesNotVisible": "Count",
    "ApproximateNumberOfMessagesDelayed": "Count",
    "ApproximateAgeOfOldestMessage": "Seconds",
}
"""The metrics of SQS, and their units."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What identifies a metric: its name and exactly these dimensions."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Datapoint:
    """One value of a metric at a time, in UTC."""

    metric: Metric
    at: datetime
    value: float
    unit: str = "None"


def of_invocation(invocation: Invocation, at: datetime) -> Iterator[Datapoint]:
    """What Lambda tells CloudWatch of a finished invocation: of its function, and of all functions together."""
    values = {
        "Invocations": 1.0,
        "Errors": 0.0 if invocation.succeeded else 1.0,
        "Throttles": 0.0,
        "Duration": invocation.duration * 1000,
    }
    for dimensions in (frozenset({("FunctionName", invocation.function)}), frozenset[tuple[str, str]]()):
        for name, value in values.items():
            yield Datapoint(Metric("AWS/Lambda", name, dimensions), at, value, OF_FUNCTIONS[name])


def of_queues(measured: Mapping[str, Mapping[str, float]], at: datetime) -> Iterator[Datapoint]:
    """What SQS tells CloudWatch of its queues."""
    for queue, values in measured.items():
        for name, value in values.items():
            yield Datapoint(Metric("AWS/SQS", name, frozenset({("QueueName", queue)})), at, value, OF_QUEUES[name])


def of_line(line: str, at: datetime) -> list[Datapoint]:
    """What a line of a log tells in the embedded metric format; nothing, as in CloudWatch, if it is not valid.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

    Args:
        line: any text.
        at: when it was written; a line that has a time of its own goes by that.
    """
    if EMBEDDED not in line:
        return []
    try:
        return list(_embedded(json.loads(line), at))
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _embedded(document: Mapping[str, Any], at: datetime) -> Iterator[Datapoint]:
    about = document["_aws"]
    if "Timestamp" in about:
        at = datetime.fromtimestamp(about["Timestamp"] / 1000, UTC)
    for directive in about["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = frozenset((name, _text(document[name])) for name in names)
            for declared in directive["Metrics"]:
                metric = Metric(_text(directive["Namespace"]), _text(declared["Name"]), dimensions)
                values = document[metric.name]
                for value in values if isinstance(values, list) else [values]:
                    yield Datapoint(metric, at, _number(value), declared.get("Unit", "None"))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return float(value)


def requests(datapoints: Iterable[Datapoint], size: int = 1000) -> Iterator[dict[str, Any]]:
    """The parameters of the calls of PutMetricData that tell CloudWatch of datapoints."""
    by_namespace: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for datapoint in datapoints:
        by_namespace[datapoint.metric.namespace].append(
            {
                "MetricName": datapoint.metric.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in sorted(datapoint.metric.dimensions)],
                "Timestamp": datapoint.at,
                "Value": datapoint.value,
                "Unit": datapoint.unit,
            }
        )
    for namespace, data in by_namespace.items():
        for first in range(0, len(data), size):
            yield {"Namespace": namespace, "MetricData": data[first : first + size]}


class Memory:
    """The datapoints of some metrics, each for as long as it is asked for."""

    def __init__(self) -> None:
        self._windows: dict[Metric, timedelta] = {}
        self._datapoints: dict[Metric, list[Datapoint]] = {}

    def remember(self, windows: Iterable[tuple[Metric, timedelta]]) -> None:
        """Keep the datapoints of these metrics from now on, each for the longest of its windows, and no others."""
        self._windows = {}
        for metric, window in windows:
            self._windows[metric] = max(window, self._windows.get(metric, window))
        self._datapoints = {metric: self._datapoints.get(metric, []) for metric in self._windows}

    def add(self, datapoints: Iterable[Datapoint], now: datetime) -> None:
        """Take in datapoints, and forget what is too old for any window."""
        for datapoint in datapoints:
            if datapoint.metric in self._datapoints:
                self._datapoints[datapoint.metric].append(datapoint)
        for metric, window in self._windows.items():
            self._datapoints[metric] = [each for each in self._datapoints[metric] if each.at > now - window]

    def of(self, metric: Metric) -> Sequence[Datapoint]:
        """What is remembered of a metric."""
        return self._datapoints.get(metric, ())

    def __len__(self) -> int:
        return sum(map(len, self._datapoints.values()))
