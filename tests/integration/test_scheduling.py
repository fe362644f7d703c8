"""A tick: one message per table on the queue, each accounted for."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from tests.conftest import Aws
from tests.faults import Process, Step, refusal
from tests.tide import Tide
from tidelog.errors import AccessDenied, StoreUnreachable, UnknownTable
from tidelog.marks import Marks
from tidelog.messages import Ingest, decode, ingest
from tidelog.queues import WorkQueue
from tidelog.scheduling import Tick, schedule, schedule_tables
from tidelog.selection import Left, Selection
from tidelog.tables import TableName
from tidelog.ticks import LastTick, Ticks

DUE = "2026-11-23T12:00:00Z"
NOW = datetime(2026, 11, 23, 12, 0, 3, 500, tzinfo=UTC)


@pytest.fixture
def url(aws: Aws) -> str:
    """A FIFO queue."""
    name = f"{uuid.uuid4().hex}.fifo"
    url: str = aws.sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    return url


def received(aws: Aws, url: str) -> list[Ingest]:
    """Take every message from a queue."""
    found: list[Ingest] = []
    while messages := aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"]).get(
        "Messages"
    ):
        decoded = [decode(message["Body"]) for message in messages]
        found += [message for message in decoded if isinstance(message, Ingest)]
        for message in messages:
            assert message["Attributes"]["MessageGroupId"] == found[-len(messages) + messages.index(message)].group
            aws.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_a_tick_sends_one_message_per_table(tide: Tide, aws: Aws, url: str) -> None:
    """Of the selection, in batches, with names of every kind; what is left out is told with the reason."""
    names = [TableName("public", f"t{number}") for number in range(23)] + [
        TableName("public", 'ä "b".c/\\'),
        TableName("public", "x" * 63),
    ]
    tide.run(
        *(f"CREATE TABLE {name.sql} (id int)" for name in names),
        "CREATE VIEW v AS SELECT 1 AS one",
        "CREATE TABLE unwanted ()",
    )
    selection = Selection.parse("*,public.nosuch", "public.unwanted")
    tick = schedule(DUE, source=tide.source, queue=WorkQueue(aws.sqs, url), selection=selection)
    assert set(tick.tables) == set(names)
    assert tick.skipped == (Left("public.v", "a view, which has no row versions of its own"),)
    assert tick.refused == (Left("public.nosuch", "no such table"),)
    messages = received(aws, url)
    assert sorted(message.table for message in messages) == sorted(map(str, tick.tables))
    assert {message.tick for message in messages} == {DUE}


def test_a_tick_that_is_delivered_twice_sends_its_messages_once(tide: Tide, aws: Aws, url: str) -> None:
    """The next one sends them again."""
    tide.run("CREATE TABLE t (id int)")
    for due in (DUE, DUE, "2026-11-23T12:05:00Z"):
        schedule(due, source=tide.source, queue=WorkQueue(aws.sqs, url), selection=Selection())
    assert [message.tick for message in received(aws, url)] == [DUE, "2026-11-23T12:05:00Z"]


def test_an_empty_database_sends_nothing(tide: Tide, aws: Aws, url: str) -> None:
    """Which is no error."""
    tick = schedule(DUE, source=tide.source, queue=WorkQueue(aws.sqs, url), selection=Selection())
    assert tick == Tick(DUE, (), (), ())
    assert received(aws, url) == []


class Refusing:
    """A queue that takes all but some entries of a batch, the first so many times."""

    def __init__(self, sqs: Any, times: int) -> None:
        self._sqs = sqs
        self._times = times

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's
        """Refuse every other entry."""
        self._times -= 1
        if self._times < 0:
            answer: dict[str, Any] = self._sqs.send_message_batch(QueueUrl=QueueUrl, Entries=Entries)
            return answer
        answer = self._sqs.send_message_batch(QueueUrl=QueueUrl, Entries=Entries[1::2]) if Entries[1::2] else {}
        return answer | {
            "Failed": [{"Id": entry["Id"], "Code": "InternalError", "SenderFault": False} for entry in Entries[::2]]
        }


def test_messages_that_were_not_taken_are_sent_again(aws: Aws, url: str) -> None:
    """Those alone: SQS answers 200 although it refused some of a batch."""
    messages = [ingest(TableName("public", f"t{number:02}"), DUE) for number in range(15)]
    WorkQueue(Refusing(aws.sqs, times=2), url).send(messages)  # type: ignore[arg-type] # it has the one method
    assert sorted(received(aws, url), key=lambda message: message.table) == messages


def test_messages_that_are_never_taken_are_named(aws: Aws, url: str) -> None:
    """With what SQS said; all the others are on the queue, also those of later batches."""
    messages = [ingest(TableName("public", f"t{number:02}"), DUE) for number in range(12)]
    with pytest.raises(
        StoreUnreachable, match=r"SQS did not take public\.t00 \(InternalError\), public\.t08 .*, public\.t10"
    ):
        WorkQueue(Refusing(aws.sqs, times=99), url).send(messages)  # type: ignore[arg-type] # it has the one method
    taken = sorted(message.table for message in received(aws, url))
    assert taken == [
        message.table for message in messages if message.table not in ("public.t00", "public.t08", "public.t10")
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("ThrottlingException", StoreUnreachable), ("AWS.SimpleQueueService.NonExistentQueue", AccessDenied)],
)
def test_a_queue_that_refuses_is_an_error(aws: Aws, url: str, code: str, kind: type[Exception]) -> None:
    """Retryable or not, as AWS's code says."""
    process = Process()
    process.at("before", Step("send_message_batch"), refusal(code))
    with pytest.raises(kind, match="send 1 work messages: "):
        WorkQueue(process.client(aws.sqs), url).send([ingest(TableName("public", "t"), DUE)])


def test_a_person_asks_for_some_tables_again_and_again(tide: Tide, aws: Aws, url: str) -> None:
    """Each request is a message of its own within the five minutes of SQS; a name that is none refuses them all."""
    tide.run("CREATE TABLE a (id int)", "CREATE TABLE b (id int)")
    a, ask = TableName("public", "a"), partial(schedule_tables, source=tide.source, queue=WorkQueue(aws.sqs, url))
    everything = Selection.parse("*", "")
    for request in ("1", "2"):
        assert ask([a, a], request=request, selection=everything) == (a,)
    with pytest.raises(UnknownTable, match="it is none of the stack's tables"):
        ask([a, TableName("public", "c")], request="3", selection=everything)
    with pytest.raises(UnknownTable):
        ask([a], request="4", selection=Selection.parse("public.b", ""))
    assert [(message.table, message.request, message.tick) for message in received(aws, url)] == [
        ("public.a", "1", None),
        ("public.a", "2", None),
    ]


def test_the_last_tick_is_noted(tide: Tide) -> None:
    """Over the one before; what is no note is as good as none."""
    marks = Marks(tide.lake.ssm, tide.lake.prefix)
    ticks = Ticks(marks, lambda: NOW)
    assert ticks.last() is None
    for tables in (3, 4):
        ticks.note(DUE, tables, 1)
        assert ticks.last() == LastTick(DUE, "2026-11-23T12:00:03+00:00", tables, 1)
    tide.lake.ssm.put_parameter(Name=f"{tide.lake.prefix}/tick", Value="{}", Type="String", Overwrite=True)
    assert ticks.last() is None
