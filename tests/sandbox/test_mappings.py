"""Between a queue and a function the sandbox does what Lambda does."""

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sandbox.conftest import Orders, taken
from tidelog_sandbox import Invocation, Sandbox, SandboxError
from tidelog_sandbox.deployment import MappingConfiguration
from tidelog_sandbox.mappings import worked_off


@pytest.fixture
def seen(sandbox: Sandbox) -> Iterator[list[Invocation]]:
    """The invocations since the test began."""
    invocations: list[Invocation] = []
    sandbox.on_invocation(invocations.append)
    yield invocations
    sandbox._listeners.remove(invocations.append)


def test_a_message_is_worked_off_and_deleted(orders: Orders, seen: list[Invocation]) -> None:
    """The invocation says which record it was."""
    identity = orders.send({"hello": 1}, group="a group")
    orders.sandbox.wait_until_idle(20)
    (invocation,) = seen
    assert invocation.record
    assert invocation.payload == {"Records": [invocation.record]}
    assert (invocation.record["messageId"], invocation.record["body"]) == (identity, '{"hello": 1}')
    assert invocation.record["eventSource"] == "aws:sqs"
    assert invocation.record["eventSourceARN"].endswith("-orders.fifo")
    assert invocation.record["attributes"]["MessageGroupId"] == "a group"
    assert invocation.record["attributes"]["ApproximateReceiveCount"] == "1"


def test_a_record_has_the_messages_attributes(orders: Orders, seen: list[Invocation]) -> None:
    """In the spelling of an event."""
    orders.sandbox.client("sqs").send_message(
        QueueUrl=orders.url,
        MessageBody="{}",
        MessageGroupId="g",
        MessageAttributes={"why": {"DataType": "String", "StringValue": "because"}},
    )
    orders.sandbox.wait_until_idle(20)
    assert seen[0].record
    assert seen[0].record["messageAttributes"]["why"]["stringValue"] == "because"


def test_messages_of_a_group_are_worked_off_one_after_the_other_in_order(
    orders: Orders, seen: list[Invocation]
) -> None:
    """Never two at a time."""
    for number in range(4):
        orders.send({"sleep": 0.1, "number": number}, group="one")
    worker = orders.sandbox.functions[orders.sandbox.outputs["Worker"]]
    busiest = most_busy(worker, until=lambda: len(seen) == 4)
    orders.sandbox.wait_until_idle(20)
    assert busiest == 1
    assert [invocation.payload["Records"][0]["body"][-2] for invocation in seen] == ["0", "1", "2", "3"]


def test_no_more_run_at_a_time_than_the_mapping_says(orders: Orders, seen: list[Invocation]) -> None:
    """Two, of eight groups; and as many as that."""
    for _ in range(8):
        orders.send({"sleep": 0.15})
    worker = orders.sandbox.functions[orders.sandbox.outputs["Worker"]]
    busiest = most_busy(worker, until=lambda: len(seen) == 8)
    orders.sandbox.wait_until_idle(20)
    assert busiest == 2
    assert worker.environments <= 2


@pytest.mark.parametrize("failure", [{"report": "failure"}, {"raise": "x"}, {"report": {"batchItemFailures": [{}]}}])
def test_what_fails_again_and_again_ends_among_the_dead_letters(
    orders: Orders, seen: list[Invocation], failure: dict[str, Any]
) -> None:
    """After as many receives as the queue allows, each after the visibility timeout."""
    begun = time.monotonic()
    identity = orders.send(failure)
    orders.sandbox.wait_until_idle(20)
    assert time.monotonic() - begun >= 2
    assert [invocation.record and invocation.record["messageId"] for invocation in seen] == [identity] * 2
    (dead,) = orders.dead_letters()
    assert dead["MessageId"] == identity


def test_what_fails_once_is_tried_again(orders: Orders, seen: list[Invocation]) -> None:
    """When its visibility timeout has passed; then it is gone."""
    orders.send({"once": True})
    orders.sandbox.wait_until_idle(20)
    counts = [invocation.record["attributes"]["ApproximateReceiveCount"] for invocation in seen if invocation.record]
    assert counts == ["1", "2"]
    assert not orders.dead_letters()


def test_a_failure_holds_up_its_group_and_no_other(orders: Orders, seen: list[Invocation]) -> None:
    """The second message of its group comes after it; another group's does not wait."""
    orders.send({"once": "first"}, group="held up")
    orders.send({"second": 1}, group="held up")
    orders.send({"other": 1}, group="free")
    orders.sandbox.wait_until_idle(20)
    bodies = [invocation.payload["Records"][0]["body"] for invocation in seen]
    assert bodies.index('{"other": 1}') < 2
    assert bodies[-2:] == ['{"once": "first"}', '{"second": 1}']


def test_idle_may_leave_out_what_is_hidden_after_a_failure(orders: Orders) -> None:
    """It would be given again only later; by default it counts."""
    orders.send({"once": True})
    orders.sandbox.wait_until_idle(20, hidden=False)
    with pytest.raises(TimeoutError, match=r"not idle after 0\.1 seconds: 1 messages in tidelog-orders\.fifo"):
        orders.sandbox.wait_until_idle(0.1)
    orders.sandbox.wait_until_idle(20)


def test_a_stopped_mapping_takes_nothing_and_ends_what_it_began(
    sandbox: Sandbox, orders: Orders, seen: list[Invocation]
) -> None:
    """The message under way is worked off; one that comes later stays where it is, not received."""
    orders.send({"sleep": 0.4})
    while not sandbox.functions[sandbox.outputs["Worker"]].busy:
        time.sleep(0.01)
    sandbox.stop_mappings()
    assert [invocation.kind for invocation in seen] == ["success"]
    late = orders.send({"late": 1})
    time.sleep(0.3)
    (left,) = taken(sandbox, orders.url)
    assert (left["MessageId"], left["Attributes"]["ApproximateReceiveCount"]) == (late, "1")


def test_a_listener_that_fails_is_not_passed_over(orders: Orders) -> None:
    """Whoever waits learns of it."""

    def fail(_: Invocation) -> None:
        raise ArithmeticError("the listener's own")

    orders.sandbox.on_invocation(fail)
    orders.send({"x": 1})
    try:
        with pytest.raises(SandboxError, match="the listener's own"):
            orders.sandbox.wait_until_idle(20)
    finally:
        orders.sandbox._listeners.remove(fail)
        orders.sandbox._failures.clear()


def most_busy(function: Any, until: Any) -> int:
    """The most invocations of a function that were seen at a time, until something is so."""
    most, end = 0, time.monotonic() + 20
    while not until() and time.monotonic() < end:
        most = max(most, function.busy)
        time.sleep(0.005)
    return most


def invocation(kind: Any, response: Any) -> Invocation:
    """One that ended in some way."""
    return Invocation("f", "r", {}, kind, response, None, 0.1, 100, 0, (), cold=False)


@pytest.mark.parametrize(
    ("response", "done"),
    [
        (None, {"a", "b"}),
        ({}, {"a", "b"}),
        ({"batchItemFailures": []}, {"a", "b"}),
        ({"batchItemFailures": None}, {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": "a"}]}, {"b"}),
        ({"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "b"}]}, set()),
        ({"batchItemFailures": [{"itemIdentifier": "c"}]}, set()),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, set()),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, set()),
        ({"batchItemFailures": [{"item": "a"}]}, set()),
        ({"batchItemFailures": ["a"]}, set()),
        ("text", set()),
    ],
)
def test_what_a_response_leaves_to_be_tried_again(response: Any, done: set[str]) -> None:
    """A response that cannot be understood counts for a failure of all."""
    mapping = MappingConfiguration(uuid.uuid4().hex, "q", "f", 10, 2, reports_failures=True)
    assert worked_off(invocation("success", response), ["a", "b"], mapping) == done


def test_a_mapping_that_does_not_ask_for_failures_takes_a_success_for_one() -> None:
    """And a failure of the function for that of every message."""
    mapping = MappingConfiguration(uuid.uuid4().hex, "q", "f", 10, 2, reports_failures=False)
    response = {"batchItemFailures": [{"itemIdentifier": "a"}]}
    assert worked_off(invocation("success", response), ["a", "b"], mapping) == {"a", "b"}
    assert worked_off(invocation("timeout", None), ["a", "b"], mapping) == set()


def test_no_thread_outlives_its_mapping(sandbox: Sandbox, orders: Orders) -> None:
    """Stopping waits for all of them."""
    sandbox.stop_mappings()
    assert not [thread.name for thread in threading.enumerate() if "orders.fifo" in thread.name]
