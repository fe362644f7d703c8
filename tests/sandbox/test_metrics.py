"""What the alarms are fed with is what CloudWatch would be told."""

import json
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.metrics import OF_QUEUES, Datapoint, Memory, Metric, of_invocation, of_line, of_queues, requests

NOW = datetime(2026, 11, 23, 12, 3, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
MINUTE = timedelta(minutes=1)
METRIC = Metric("toy", "much", frozenset({("kind", "any")}))


def embedded(values: Any = 3, *, dimensions: Sequence[Sequence[str]] = (("kind",),), **more: Any) -> dict[str, Any]:
    """A document in the embedded metric format."""
    return {
        "_aws": {
            "Timestamp": int(NOW.timestamp() * 1000),
            "CloudWatchMetrics": [
                {"Namespace": "toy", "Dimensions": dimensions, "Metrics": [{"Name": "much", "Unit": "Count"}]}
            ],
        },
        "kind": "any",
        "much": values,
        **more,
    }


def told(document: Any) -> list[Datapoint]:
    """What a line tells."""
    return of_line(json.dumps(document), LONG_AGO)


def test_a_log_line_tells_of_metrics() -> None:
    """Each value of a list, for each set of dimensions, at the line's own time."""
    assert told(embedded(3)) == [Datapoint(METRIC, NOW, 3.0, "Count")]
    assert [each.value for each in told(embedded([1, 2.5]))] == [1.0, 2.5]
    sets = [each.metric.dimensions for each in told(embedded(dimensions=[["kind", "place"], []], place="here"))]
    assert sets == [frozenset({("kind", "any"), ("place", "here")}), frozenset()]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nothing",
        'the "_aws" of it',
        json.dumps({"_aws": "x"}),
        json.dumps(["_aws"]),
        json.dumps({"_aws": {"Timestamp": "now", "CloudWatchMetrics": []}}),
        json.dumps(embedded("3")),
        json.dumps(embedded(values=True)),
        json.dumps(embedded([1, None])),
        json.dumps(embedded(kind=7)),
        json.dumps(embedded(dimensions=[["absent"]])),
    ],
)
def test_a_line_of_another_kind_tells_nothing(line: str) -> None:
    """And does no harm."""
    assert of_line(line, NOW) == []


@pytest.mark.parametrize("kind", ["success", "error", "timeout", "memory", "exit", "init"])
def test_every_end_of_an_invocation_but_success_is_an_error(kind: Any) -> None:
    """Of its function, and of all functions."""
    invocation = Invocation("f", "r", {}, kind, None, None, 0.25, 250, 0, (), cold=False)
    made = of_invocation(invocation, NOW)
    values = {(each.metric.name, *each.metric.dimensions): (each.value, each.unit) for each in made}
    for dimensions in ([("FunctionName", "f")], []):
        assert values["Invocations", *dimensions] == (1, "Count")
        assert values["Errors", *dimensions] == (kind != "success", "Count")
        assert values["Throttles", *dimensions] == (0, "Count")
        assert values["Duration", *dimensions] == (250, "Milliseconds")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100)), max_size=50))
def test_no_more_is_remembered_than_the_longest_window_needs(events: list[tuple[str, int]]) -> None:
    """And of no metric that no alarm watches."""
    memory = Memory()
    memory.remember([(Metric("n", "a"), 3 * MINUTE), (Metric("n", "a"), 5 * MINUTE), (Metric("n", "b"), MINUTE)])
    now = NOW
    kept: list[Datapoint] = []
    for name, wait in events:
        now += timedelta(seconds=wait)
        kept.append(Datapoint(Metric("n", name), now, 1.0))
        memory.add(kept[-1:], now)
    windows = {"a": 5 * MINUTE, "b": MINUTE}
    for name in "abc":
        expected = [p for p in kept if p.metric.name == name and p.at > now - windows.get(name, timedelta())]
        assert list(memory.of(Metric("n", name))) == (expected if name in windows else [])
    assert len(memory) == sum(len(memory.of(Metric("n", name))) for name in "abc")


def test_cloudwatch_is_told_in_calls_of_a_thousand() -> None:
    """More it would refuse; and a call is for one namespace."""
    points = [*[Datapoint(METRIC, NOW, 1.0)] * 1001, Datapoint(Metric("other", "x"), NOW, 1.0)]
    sizes = [(request["Namespace"], len(request["MetricData"])) for request in requests(points)]
    assert sizes == [("toy", 1000), ("toy", 1), ("other", 1)]


def measured(cloud: Cloud, url: str) -> dict[str, float]:
    """The metrics of a queue, without the word that they all begin with."""
    values = cloud.queue_metrics()[url.rpartition("/")[2]]
    return {name.removeprefix("Approximate"): value for name, value in values.items()}


def counts(cloud: Cloud, url: str) -> tuple[float, ...]:
    """How many messages are visible, in flight and delayed."""
    found = measured(cloud, url)
    return tuple(found[f"NumberOfMessages{state}"] for state in ("Visible", "NotVisible", "Delayed"))


def test_queues_are_measured(cloud: Cloud) -> None:
    """By how many messages they have, and of which kind."""
    sqs = cloud.client("sqs")
    url = sqs.create_queue(QueueName=uuid.uuid4().hex)["QueueUrl"]
    assert counts(cloud, url) == (0, 0, 0)
    assert measured(cloud, url)["AgeOfOldestMessage"] == 0
    for delay in (0, 0, 900):
        sqs.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=delay)
    sqs.receive_message(QueueUrl=url)
    assert counts(cloud, url) == (1, 1, 1)
    (points,) = [list(of_queues({name: values}, NOW)) for name, values in cloud.queue_metrics().items() if name in url]
    assert {point.metric.name: point.unit for point in points} == OF_QUEUES


@pytest.mark.parametrize(("fifo", "counted"), [("true", True), ("false", False)])
def test_the_oldest_message_has_an_age_until_it_is_deleted(cloud: Cloud, fifo: str, counted: bool) -> None:
    """But for one of a standard queue that was received too often: it would hide all the others."""
    sqs, name = cloud.client("sqs"), uuid.uuid4().hex
    order = {"MessageGroupId": "g", "MessageDeduplicationId": "d"} if fifo == "true" else {}
    attributes = {"FifoQueue": "true"} if order else {}
    url = sqs.create_queue(QueueName=f"{name}.fifo" if order else name, Attributes=attributes)["QueueUrl"]
    begun = time.time()
    sqs.send_message(QueueUrl=url, MessageBody="x", **order)
    for _ in range(3):
        (message,) = sqs.receive_message(QueueUrl=url, VisibilityTimeout=30)["Messages"]
        assert 0 <= measured(cloud, url)["AgeOfOldestMessage"] <= time.time() - begun + 0.001
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    time.sleep(0.01)
    assert measured(cloud, url)["AgeOfOldestMessage"] >= 0.01
    (message,) = sqs.receive_message(QueueUrl=url, VisibilityTimeout=30)["Messages"]
    assert (measured(cloud, url)["AgeOfOldestMessage"] > 0) == counted
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert measured(cloud, url)["AgeOfOldestMessage"] == 0


def test_a_dead_letter_is_as_old_as_it_is_dead(cloud: Cloud) -> None:
    """And however often it was received before, it counts."""
    sqs, name = cloud.client("sqs"), uuid.uuid4().hex
    grave = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=grave, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
    url = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    time.sleep(0.05)
    begun = time.time()
    for _ in range(6):
        sqs.receive_message(QueueUrl=url)
        time.sleep(0.005)  # a message is visible again from the next millisecond on
    assert counts(cloud, grave) == (1, 0, 0)
    assert 0 < measured(cloud, grave)["AgeOfOldestMessage"] <= time.time() - begun
