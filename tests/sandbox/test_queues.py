"""FIFO queues keep what SQS promises."""

import json
import threading
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tidelog_sandbox import Sandbox
from tidelog_sandbox.cloud import Cloud


@pytest.fixture
def sqs(cloud: Cloud) -> Any:
    """A client."""
    return cloud.client("sqs")


def fifo(sqs: Any, **attributes: str) -> str:
    """A new FIFO queue."""
    name = f"{uuid.uuid4().hex[:8]}.fifo"
    attributes = {"FifoQueue": "true", "VisibilityTimeout": "60", **attributes}
    return str(sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])


def send(sqs: Any, url: str, body: str, *, group: str = "g", identity: str | None = None) -> dict[str, Any]:
    """Send a message."""
    sent: dict[str, Any] = sqs.send_message(
        QueueUrl=url, MessageBody=body, MessageGroupId=group, MessageDeduplicationId=identity or uuid.uuid4().hex
    )
    return sent


def receive(sqs: Any, url: str, **options: Any) -> list[dict[str, Any]]:
    """Receive what is there now."""
    messages: list[dict[str, Any]] = sqs.receive_message(
        QueueUrl=url, MessageSystemAttributeNames=["All"], **options
    ).get("Messages", [])
    return messages


def test_two_long_pollers_never_hold_messages_of_one_group_at_a_time(sqs: Any) -> None:
    """Both wait already when two messages of a group are sent: one of them gets one, the other none."""
    url = fifo(sqs)
    got: list[str] = []

    def poll() -> None:
        got.extend(message["Body"] for message in receive(sqs, url, WaitTimeSeconds=2))

    pollers = [threading.Thread(target=poll) for _ in range(2)]
    for poller in pollers:
        poller.start()
    time.sleep(0.3)
    for body in ("first", "second"):
        send(sqs, url, body)
        time.sleep(0.1)
    for poller in pollers:
        poller.join()
    assert got == ["first"]


def test_the_next_message_of_a_group_comes_when_the_one_before_is_deleted(sqs: Any) -> None:
    """In order, and a long poller learns of it at once."""
    url = fifo(sqs)
    for body in ("first", "second"):
        send(sqs, url, body)
    (first,) = receive(sqs, url)
    timer = threading.Timer(0.3, lambda: sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"]))
    timer.start()
    begun = time.monotonic()
    (second,) = receive(sqs, url, WaitTimeSeconds=5)
    timer.join()
    assert second["Body"] == "second"
    assert time.monotonic() - begun < 1


def test_a_stale_handle_neither_deletes_nor_hides(sqs: Any) -> None:
    """Once a message was given again, only the newest handle is good for anything."""
    url = fifo(sqs, VisibilityTimeout="0")
    send(sqs, url, "m")
    (stale,) = receive(sqs, url)
    time.sleep(0.01)
    (newest,) = receive(sqs, url, VisibilityTimeout=60)
    with pytest.raises(ClientError, match="expired"):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=stale["ReceiptHandle"])
    with pytest.raises(ClientError, match="not available"):
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=stale["ReceiptHandle"], VisibilityTimeout=9)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=newest["ReceiptHandle"])
    assert not receive(sqs, url)


def test_a_message_that_is_visible_again_cannot_be_deleted_with_its_old_handle(sqs: Any) -> None:
    """Its visibility timeout has passed: it is somebody else's."""
    url = fifo(sqs, VisibilityTimeout="1")
    send(sqs, url, "m")
    (message,) = receive(sqs, url)
    time.sleep(1.1)
    with pytest.raises(ClientError, match="expired"):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert receive(sqs, url)[0]["Attributes"]["ApproximateReceiveCount"] == "2"


def test_visibility_zero_gives_a_message_back_at_once(sqs: Any) -> None:
    """And its group with it."""
    url = fifo(sqs)
    send(sqs, url, "m")
    (message,) = receive(sqs, url)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert receive(sqs, url)[0]["MessageId"] == message["MessageId"]


def test_a_duplicate_is_accepted_and_not_enqueued_even_after_the_first_was_deleted(sqs: Any) -> None:
    """It gets the first one's message id and sequence number."""
    url = fifo(sqs)
    first = send(sqs, url, "m", identity="same")
    (message,) = receive(sqs, url)
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    second = send(sqs, url, "m", identity="same")
    assert (second["MessageId"], second["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    assert not receive(sqs, url)


@pytest.mark.parametrize(("scope", "received"), [("queue", 1), ("messageGroup", 2)])
def test_duplicates_are_those_of_the_queue_or_of_the_group(sqs: Any, scope: str, received: int) -> None:
    """As DeduplicationScope says."""
    limit = "perMessageGroupId" if scope == "messageGroup" else "perQueue"
    url = fifo(sqs, DeduplicationScope=scope, FifoThroughputLimit=limit)
    for group in ("a", "b"):
        send(sqs, url, "m", group=group, identity="same")
    assert len(receive(sqs, url, MaxNumberOfMessages=10)) == received


def test_sequence_numbers_grow(sqs: Any) -> None:
    """So that the order of sending can be read from them."""
    url = fifo(sqs)
    numbers = [send(sqs, url, str(n), group=str(n))["SequenceNumber"] for n in range(5)]
    assert numbers == sorted(numbers)


def test_size_is_counted_in_bytes(sqs: Any) -> None:
    """A thousand characters of two bytes are more than 1,500 bytes."""
    url = fifo(sqs, MaximumMessageSize="1500")
    with pytest.raises(ClientError, match="1500 bytes"):
        send(sqs, url, "é" * 1000)


def test_dead_letters_are_redriven_to_where_they_came_from(sqs: Any) -> None:
    """As new messages: received for the first time, with another id."""
    dead = fifo(sqs)
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    sources = [fifo(sqs, RedrivePolicy=policy, VisibilityTimeout="0") for _ in range(2)]
    for number, url in enumerate(sources):
        send(sqs, url, f"of {number}", identity="same")
        assert receive(sqs, url)
        time.sleep(0.01)
        assert not receive(sqs, url)
    assert sqs.start_message_move_task(SourceArn=arn)["TaskHandle"]
    for number, url in enumerate(sources):
        (message,) = receive(sqs, url)
        assert message["Body"] == f"of {number}"
        assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert not receive(sqs, dead)


def test_sending_to_a_mapped_queue_invokes_nothing_by_itself(sandbox: Sandbox) -> None:
    """While the mappings are stopped a message waits, unreceived."""
    sqs, url = sandbox.client("sqs"), sandbox.outputs["OrdersUrl"]
    send(sqs, url, "{}", group=uuid.uuid4().hex)
    (message,) = receive(sqs, url)
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def test_a_queue_url_leads_to_this_cloud(sandbox: Sandbox) -> None:
    """So that it can be given to the aws command."""
    assert sandbox.outputs["OrdersUrl"].startswith(sandbox.endpoint_url)
