"""The dead-letter queue: burying, looking, sending back, dropping."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.faults import Process, Step, refusal
from tests.integration.conftest import Post
from tests.tide import Lake, wait_for
from tidelog.deadletters import DeadLetters, Failures, Letter, noted_failures
from tidelog.errors import AccessDenied, InvalidMessage, StoreUnreachable
from tidelog.letters import MAX_BYTES, Failure, Origin, size, to_attributes
from tidelog.messages import encode, ingest
from tidelog.stores import Bucket
from tidelog.tables import TableName

BODY = encode(ingest(TableName("public", "t"), "2026-11-23T12:00:00Z"))
FAILURE = Failure(
    error="AccessDenied",
    reason="read public.t: permission denied, né",
    hint="GRANT SELECT",
    table="public.t",
    run="request",
    tries=2,
    first_seen="2026-11-23T11:59:00+00:00",
    failed_at="2026-11-23T12:00:00+00:00",
)


@pytest.fixture
def failures(lake: Lake) -> Failures:
    """What is noted in an empty lake."""
    return Failures(lake.s3, lake.bucket)


@pytest.fixture
def dead_letters(post: Post, failures: Failures) -> DeadLetters:
    """An empty dead-letter queue."""
    return DeadLetters(post.sqs, post.dead, failures)


def bury(post: Post, dead_letters: DeadLetters, *bodies: str, failure: Failure = FAILURE, group: str = "") -> list[str]:
    """Have messages buried and deleted, as a worker does; return the ids of the letters."""
    ids = []
    for body in bodies:
        message = post.received(body, group or uuid.uuid4().hex)
        ids.append(str(dead_letters.bury(message, failure)))
        post.sqs.delete_message(QueueUrl=post.work, ReceiptHandle=message.receipt)
    assert "None" not in ids
    return ids


def seen(dead_letters: DeadLetters) -> list[Letter]:
    """Look at every letter."""
    with dead_letters.opened() as letters:
        return list(letters)


def test_a_buried_message_lies_there_with_its_reason_and_where_it_came_from(
    post: Post, dead_letters: DeadLetters
) -> None:
    """Words of any script included; an empty hint or table is no obstacle."""
    bare = replace(FAILURE, table="", hint="")
    [first] = bury(post, dead_letters, BODY, group="1")
    [second] = bury(post, dead_letters, "{", failure=bare, group="2")
    found = {letter.id: letter for letter in seen(dead_letters)}
    assert set(found) == {first, second}
    queue = post.work.rpartition("/")[2]
    one, other = found[first], found[second]
    assert (one.body, one.failure, one.origin, one.table) == (BODY, FAILURE, Origin(queue, "1"), "public.t")
    assert (other.body, other.failure, other.origin, other.table) == ("{", bare, Origin(queue, "2"), "")
    assert abs(datetime.now(UTC) - one.arrived) < timedelta(minutes=1)


def test_a_message_that_is_buried_twice_lies_there_once(post: Post, dead_letters: DeadLetters) -> None:
    """A worker may be killed between burying it and saying so."""
    message = post.received(BODY)
    dead_letters.bury(message, FAILURE)
    dead_letters.bury(message, replace(FAILURE, tries=3))
    assert len(seen(dead_letters)) == dead_letters.count() == 1


def test_every_letter_is_seen_once_and_comes_back_when_nobody_looks_any_more(
    post: Post, dead_letters: DeadLetters
) -> None:
    """However many there are; meanwhile nobody else sees them, though they are counted. Removed ones are gone."""
    ids = bury(post, dead_letters, *(f"{number}" for number in range(23)))
    with dead_letters.opened() as letters:
        held = list(letters)
        assert sorted(letter.id for letter in held) == sorted(ids)
        assert seen(dead_letters) == []
        assert dead_letters.count() == 23
        for letter in held[5:17]:
            dead_letters.remove(letter)
    left = seen(dead_letters)
    assert sorted(letter.id for letter in left) == sorted(letter.id for letter in held[:5] + held[17:])
    assert dead_letters.count() == 11
    assert len(seen(dead_letters)) == 11


def test_a_look_that_is_broken_off_hides_nothing(post: Post, dead_letters: DeadLetters) -> None:
    """By an error, or since the first letter was enough."""
    bury(post, dead_letters, "1", "2")
    with pytest.raises(KeyError), dead_letters.opened() as letters:
        raise KeyError(next(letters).id)
    with dead_letters.opened() as letters:
        next(letters)
    assert len(seen(dead_letters)) == 2


def test_of_a_message_that_sqs_has_moved_the_lake_knows_the_reason(
    post: Post, dead_letters: DeadLetters, failures: Failures, lake: Lake
) -> None:
    """The last one noted; where nothing was, or nothing that can be read, the message itself still names its table."""
    noted, silent, *odd = [post.send(post.dead, BODY, group) for group in "abcde"]
    failures.write(noted, replace(FAILURE, tries=1))
    failures.write(noted, FAILURE)
    for letter, body in zip(odd, (b"[]", b"\xff{", b'{"error":"\xff"}'), strict=True):
        lake.s3.put_object(Bucket=lake.bucket, Key=f"failures/{letter}.json", Body=body)
    found = {letter.id: letter for letter in seen(dead_letters)}
    assert {letter.id: letter.failure for letter in found.values()} == {
        noted: FAILURE,
        **dict.fromkeys([silent, *odd]),
    }
    assert {letter.table for letter in found.values()} == {"public.t"}
    assert found[silent].origin.group == "b"


@pytest.mark.parametrize(
    "attributes",
    [
        {"blob": {"DataType": "Binary", "BinaryValue": b"\0"}},
        {"tries": {"DataType": "Number", "StringValue": "3"}, "table": {"DataType": "String", "StringValue": "mine"}},
    ],
    ids="-".join,
)
def test_attributes_of_somebody_else_are_no_obstacle(
    post: Post, dead_letters: DeadLetters, attributes: dict[str, Any]
) -> None:
    """Whoever sends a message by hand may have put any on it."""
    post.send(post.dead, BODY, MessageAttributes=attributes)
    [letter] = seen(dead_letters)
    assert (letter.failure, letter.table) == (None, "public.t")


def test_a_letter_is_sent_back_as_it_was(post: Post, dead_letters: DeadLetters) -> None:
    """Body and group, to the queue it came from; then it is no letter any more."""
    bury(post, dead_letters, BODY, group="some-group")
    queues = {"other.fifo": post.dead, post.work.rpartition("/")[2]: post.work}
    with dead_letters.opened() as letters:
        for letter in letters:
            dead_letters.redrive(letter, queues)
    assert seen(dead_letters) == []
    [sent] = post.receive(post.work)
    assert (sent["Body"], sent["Attributes"]["MessageGroupId"]) == (BODY, "some-group")
    assert "MessageAttributes" not in sent


def test_a_letter_that_is_sent_back_twice_is_worked_off_once(post: Post, dead_letters: DeadLetters) -> None:
    """Where it could not be deleted the first time."""
    [letter_id] = bury(post, dead_letters, BODY)
    queues = {post.work.rpartition("/")[2]: post.work}
    process = Process()
    process.at("before", Step("delete_message"), refusal("ServiceUnavailable"))
    failing = DeadLetters(process.client(post.sqs), post.dead, dead_letters._failures)
    for attempt, letters_of in ((1, failing), (2, dead_letters)):
        with letters_of.opened() as letters:
            [letter] = letters
            assert letter.id == letter_id
            if attempt == 1:
                with pytest.raises(StoreUnreachable, match=f"delete {letter_id}"):
                    letters_of.redrive(letter, queues)
            else:
                letters_of.redrive(letter, queues)
    assert len(post.receive(post.work)) == 1
    assert seen(dead_letters) == []


def test_what_fails_again_at_once_is_sent_back_once(post: Post, dead_letters: DeadLetters) -> None:
    """A worker buries it before the others are sent back: that must not go on for ever."""
    bury(post, dead_letters, "1", "2", "3")
    assert sent_back_to_fail(post, dead_letters) == ["1", "2", "3"]
    assert sorted(letter.body for letter in seen(dead_letters)) == ["1", "2", "3"]


@pytest.mark.parametrize("groups", [1, 210])
def test_however_many_there_are_each_is_sent_back_once(post: Post, dead_letters: DeadLetters, groups: int) -> None:
    """More than SQS gives of a group at a time; more than are held before the first is sent back."""
    bodies = [f"{number:03}" for number in range(max(groups, 25))]
    attributes = to_attributes(FAILURE, Origin(post.work.rpartition("/")[2], "work"))
    described = {name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()}
    for number, body in enumerate(bodies):
        post.send(post.dead, body, f"{number % groups}", MessageAttributes=described)
    wait_for_the_next_second()  # SQS says when it answers by the second
    assert sent_back_to_fail(post, dead_letters) == bodies
    assert dead_letters.count() == len(bodies)


def sent_back_to_fail(post: Post, dead_letters: DeadLetters) -> list[str]:
    """Send all letters back, each to fail before the next is sent; return what was sent, in order."""
    queues = {post.work.rpartition("/")[2]: post.work}
    sent = []
    with dead_letters.opened() as letters:
        for letter in letters:
            dead_letters.redrive(letter, queues)
            sent.append(letter.body)
            assert len(sent) < 1000
            for message in post.receive(post.work):
                post.sqs.delete_message(QueueUrl=post.work, ReceiptHandle=message["ReceiptHandle"])
                post.send(post.dead, message["Body"], message["Attributes"]["MessageGroupId"])
    return sorted(sent)


def wait_for_the_next_second() -> None:
    """Wait until the clock shows another second."""
    second = datetime.now(UTC).second
    wait_for(lambda: datetime.now(UTC).second != second)


def test_a_letter_from_nowhere_stays(post: Post, dead_letters: DeadLetters) -> None:
    """It may be of another stack, or was put there by hand; the error says what to do."""
    bury(post, dead_letters, BODY)
    post.send(post.dead, "by hand", "hand")
    with dead_letters.opened() as letters:
        for letter in letters:
            words = post.work.rpartition("/")[2] if letter.failure else "no queue"
            with pytest.raises(InvalidMessage, match=f"it came from {words}, not from a or b.*Send its body by hand"):
                dead_letters.redrive(letter, {"a": post.work, "b": post.work})
    assert len(seen(dead_letters)) == 2
    assert post.receive(post.work) == []


def test_what_is_too_long_with_its_reason_is_not_buried(post: Post, failures: Failures) -> None:
    """By a single byte; SQS is not even asked."""
    process = Process()
    dead_letters = DeadLetters(process.client(post.sqs), post.dead, failures)
    message = post.received(BODY)
    room = MAX_BYTES - size("", to_attributes(FAILURE, Origin(message.queue, message.group)))
    for body in ("x" * (room + 1), "é" * (room // 2 + 1)):
        long = type(message)(**{name: getattr(message, name) for name in message.__struct_fields__} | {"body": body})
        assert dead_letters.bury(long, FAILURE) is None
    assert process.calls == []


@pytest.mark.parametrize(
    ("operation", "deed", "words"),
    [
        (
            "send_message",
            lambda letters, post: letters.bury(post.received(BODY, uuid.uuid4().hex), FAILURE),
            "send a message",
        ),
        ("receive_message", lambda letters, _: seen(letters), "receive the dead letters"),
        ("change_message_visibility_batch", lambda letters, _: seen(letters), "release the dead letters"),
        ("get_queue_attributes", lambda letters, _: letters.count(), "count the dead letters"),
        ("get_object", lambda letters, _: seen(letters), "read the failure of"),
    ],
    ids=lambda value: value if isinstance(value, str) and "_" in value else "",
)
def test_what_aws_refuses_is_an_error(
    post: Post, lake: Lake, operation: str, deed: Callable[[DeadLetters, Post], object], words: str
) -> None:
    """Retryable or not, as AWS's code says."""
    process = Process()
    dead_letters = DeadLetters(process.client(post.sqs), post.dead, Failures(process.client(lake.s3), lake.bucket))
    for code, kind in (("AccessDenied", AccessDenied), ("InternalError", StoreUnreachable)):
        post.send(post.dead, BODY, code)
        process.at("before", Step(operation), refusal(code))
        with pytest.raises(kind, match=words):
            deed(dead_letters, post)


def test_the_last_failures_are_found_the_newest_first(failures: Failures, lake: Lake) -> None:
    """Those that were noted since; what is none is left out, and of many only the newest are read."""
    store, now = Bucket(lake.s3, lake.bucket), datetime.now(UTC)
    assert noted_failures(store, now - timedelta(days=1)) == []
    noted = [replace(FAILURE, failed_at=(now + timedelta(seconds=number)).isoformat()) for number in range(5)]
    for failure in noted:
        failures.write(uuid.uuid4().hex, failure)
    lake.s3.put_object(Bucket=lake.bucket, Key="failures/x.json", Body=b"{}")
    assert noted_failures(store, now - timedelta(days=1)) == noted[::-1]
    assert noted_failures(store, now + timedelta(days=1)) == []
    assert len(noted_failures(store, now - timedelta(days=1), most=2)) <= 2
