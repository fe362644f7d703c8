"""Notices: what an administrator is told, and how often."""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Barrier, Lock
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.faults import KilledError, Process, Step, refusal
from tests.integration.conftest import Clock, Post
from tests.integration.test_deadletters import FAILURE
from tests.tide import Lake
from tests.unit.test_tables import NAMES
from tidelog.errors import AccessDenied, StoreUnreachable
from tidelog.events import TimelineStarted
from tidelog.letters import Failure
from tidelog.marks import Marks
from tidelog.notices import Notices, dead_letter_text
from tidelog.state import State
from tidelog.tables import TableName
from tidelog.windows import Database

HOUR = timedelta(hours=1)
MOMENT = timedelta(microseconds=1)
DATABASE = Database("1", 5, "shop", 2)


class Office:
    """Where notices come from: processes that share a topic and a Parameter Store."""

    def __init__(self, post: Post, lake: Lake, clock: Clock) -> None:
        self.post = post
        self.lake = lake
        self.clock = clock

    def process(self, *, sns: Any = None, ssm: Any = None) -> Notices:
        """Return the notices of another process; its clients may be others."""
        marks = Marks(ssm or self.lake.ssm, self.lake.prefix)
        return Notices(sns or self.post.sns, self.post.topic, "prod", marks, self.clock)


@pytest.fixture
def office(post: Post, lake: Lake, clock: Clock) -> Office:
    """A topic and a Parameter Store in which nothing was told yet."""
    return Office(post, lake, clock)


def test_the_same_error_of_the_same_table_is_told_once_an_hour(office: Office) -> None:
    """By whichever process; what it is told of is the first."""
    one, other = office.process(), office.process()
    assert one.of_dead_letter("first", FAILURE)
    assert not one.of_dead_letter("second", replace(FAILURE, reason="another", tries=5))
    assert not other.of_dead_letter("third", FAILURE)
    office.clock.now += HOUR - MOMENT
    assert not one.of_dead_letter("fourth", FAILURE)
    assert not other.of_dead_letter("fifth", FAILURE)
    assert not office.process().of_dead_letter("sixth", FAILURE)
    [(subject, text)] = office.post.notices()
    assert subject == "[prod] public.t failed with AccessDenied"
    assert "show first --stack prod" in text


def test_after_an_hour_it_is_told_again(office: Office) -> None:
    """Once by all processes together, and again an hour after that."""
    processes = [office.process() for _ in range(3)]
    told = []
    for _ in range(3):
        told.append([process.of_dead_letter("letter", FAILURE) for process in processes])
        processes.append(processes.pop(0))
        office.clock.now += HOUR
    assert told == [[True, False, False]] * 3
    assert len(office.post.notices()) == 3


def test_another_table_or_another_error_is_told(office: Office) -> None:
    """And what is no dead letter at all."""
    one = office.process()
    others = [FAILURE, replace(FAILURE, table="public.u"), replace(FAILURE, error="UnknownTable")]
    others.append(replace(FAILURE, table=""))
    assert all(one.of_dead_letter("letter", failure) for failure in others)
    assert one.send("horizon", "a transaction holds the horizon", "text")
    assert [subject for subject, _ in office.post.notices()] == [
        "[prod] public.t failed with AccessDenied",
        "[prod] public.u failed with AccessDenied",
        "[prod] public.t failed with UnknownTable",
        "[prod] a message that names no table failed with AccessDenied",
        "[prod] a transaction holds the horizon",
    ]


class Simultaneous:
    """A Parameter Store of which all read before anybody writes; like AWS, and unlike moto, it writes one by one."""

    def __init__(self, ssm: Any, readers: int) -> None:
        self._ssm = ssm
        self._barrier = Barrier(readers)
        self._lock = Lock()

    def get_parameter(self, **arguments: Any) -> Any:
        """Read, and wait until all have."""
        try:
            with self._lock:
                return self._ssm.get_parameter(**arguments)
        finally:
            self._barrier.wait(30)

    def put_parameter(self, **arguments: Any) -> Any:
        """Write when it is one's turn."""
        with self._lock:
            return self._ssm.put_parameter(**arguments)


@pytest.mark.parametrize("first", [True, False], ids=["never told", "told an hour ago"])
@pytest.mark.parametrize("processes", [1, 8])
def test_of_several_at_the_same_moment_one_tells(office: Office, first: bool, processes: int) -> None:
    """Workers that fail together, in processes of their own or threads of one: Parameter Store says who was first."""
    if not first:
        office.process().of_dead_letter("before", FAILURE)
        office.post.notices()
        office.clock.now += HOUR
    ssm = Simultaneous(office.lake.ssm, 8)
    alike = [office.process(ssm=ssm) for _ in range(processes)] * (8 // processes)
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda process: process.of_dead_letter("letter", FAILURE), alike))
    assert told.count(True) == 1
    assert len(office.post.notices()) == 1


@pytest.mark.parametrize("operation", ["get_parameter", "put_parameter"])
@pytest.mark.parametrize("code", ["ThrottlingException", "AccessDeniedException", "InternalServerError"])
def test_where_parameter_store_is_out_of_reach_it_is_told_all_the_same(
    office: Office, operation: str, code: str
) -> None:
    """Rather twice than never; the same process still does not tell it twice."""
    process = Process()
    process.at("before", Step(operation), refusal(code))
    one = office.process(ssm=process.client(office.lake.ssm))
    assert [one.of_dead_letter("letter", FAILURE) for _ in range(2)] == [True, False]
    assert len(office.post.notices()) == 1


def test_a_sender_that_dies_before_it_has_sent_is_made_up_for(office: Office) -> None:
    """It has said that it begins; two minutes later another one sends, and only one."""
    process = Process()
    process.at("before", Step("publish"), process.kill)
    with pytest.raises(KilledError):
        office.process(sns=process.client(office.post.sns)).of_dead_letter("letter", FAILURE)
    assert not office.process().of_dead_letter("letter", FAILURE)
    office.clock.now += timedelta(minutes=2)
    assert [office.process().of_dead_letter("letter", FAILURE) for _ in range(2)] == [True, False]
    assert len(office.post.notices()) == 1


@pytest.mark.parametrize("value", ["yesterday", "2026-11-23T12:00:00", "2099-01-01T00:00:00+00:00", "{}"])
def test_a_mark_that_can_not_be_right_silences_nobody(office: Office, value: str) -> None:
    """No time, one without a zone, one in the future. It is put right."""
    office.process().of_dead_letter("letter", FAILURE)
    found = office.lake.ssm.get_parameters_by_path(Path=f"{office.lake.prefix}/notices", Recursive=True)
    [mark] = found["Parameters"]
    office.lake.ssm.put_parameter(Name=mark["Name"], Value=value, Overwrite=True)
    assert [office.process().of_dead_letter("letter", FAILURE) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("code", "kind"), [("AuthorizationError", AccessDenied), ("InternalFailure", StoreUnreachable)]
)
def test_what_sns_did_not_take_does_not_count_as_told(office: Office, code: str, kind: type[Exception]) -> None:
    """The next failure is told, by this process or another."""
    for other in (False, True):
        process = Process()
        process.at("before", Step("publish"), refusal(code))
        one = office.process(sns=process.client(office.post.sns))
        with pytest.raises(kind, match="send a notice"):
            one.of_dead_letter("letter", FAILURE)
        assert (office.process() if other else one).of_dead_letter("letter", FAILURE)
        assert len(office.post.notices()) == 1
        office.clock.now += HOUR


@dataclass
class Recorder:
    """SNS, and a Parameter Store that is out of reach."""

    published: list[tuple[str, str]] = field(default_factory=list)

    def publish(self, TopicArn: str, Subject: str, Message: str) -> None:  # noqa: N803, ARG002 - boto3's
        """Note what is published."""
        self.published.append((Subject, Message))

    def get_parameter(self, Name: str) -> None:  # noqa: N803, ARG002 - boto3's
        """Refuse."""
        refusal("ThrottlingException")()

    def put_parameter(self, **_: object) -> None:
        """Refuse."""
        refusal("ThrottlingException")()


def told(failure: Failure, stack: str = "prod") -> tuple[str, str]:
    """Return subject and text of the notice of a failure."""
    recorder = Recorder()
    aws: Any = recorder
    assert Notices(aws, "topic", stack, Marks(aws, "/tidelog"), Clock()).of_dead_letter("letter", failure)
    [notice] = recorder.published
    return notice


@given(NAMES.map(str) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(max_size=200))
@example("public.orders", "AccessDenied")
@example('public."a\nb\rc\x01\x7f\x85\u2028d"', "AccessDenied")
@example('public."' + "é" * 200 + '"', "AccessDenied")
@example('public."' + "x" * 100 + '"', "AccessDenied")
def test_a_subject_is_one_that_sns_takes(table: str, error: str) -> None:
    """One line of printable ASCII, a hundred characters at most, that begins with the stack's name."""
    subject, _ = told(replace(FAILURE, table=table, error=error))
    assert subject.isascii()
    assert subject.isprintable()
    assert len(subject) <= 100
    assert subject.startswith("[prod] ")


def test_a_subject_that_is_cut_says_so() -> None:
    """Whatever is missing stands in the text."""
    subject, text = told(replace(FAILURE, table="public." + "x" * 63, error="DatabaseUnreachable"))
    assert subject == f"[prod] public.{'x' * 63} failed with Databas..."
    assert "DatabaseUnreachable: " in text


def command(text: str, before: str, behind: str) -> list[str]:
    """Return the words of the command that stands between two lines of a notice, as a shell reads them."""
    return shlex.split(text.partition(f"{before}:\n    ")[2].partition(f"\n{behind}")[0])


@given(NAMES)
@example(TableName("public", "orders"))
@example(TableName("it's", '"; rm -rf / #'))
@example(TableName("a", "b\nTo do"))
@example(TableName("ä", "$HOME `id` \\"))
def test_the_commands_of_a_notice_can_be_given_to_a_shell(table: TableName) -> None:
    """Whatever the table is called."""
    text = dead_letter_text("prod", "0a1b-2c3d", replace(FAILURE, table=str(table)))
    assert command(text, "To look at it", "To send") == [
        "tidelog",
        "dead-letters",
        "show",
        "0a1b-2c3d",
        "--stack",
        "prod",
    ]
    redrive = command(text, "To send it back, once the cause is mended", "To see all")
    assert redrive == ["tidelog", "dead-letters", "redrive", "--table", str(table), "--stack", "prod"]
    assert TableName.parse(redrive[4]) == table


def test_a_plain_name_needs_no_quotes() -> None:
    """A notice is read by people."""
    assert "redrive --table public.sales_order --stack" in told(replace(FAILURE, table="public.sales_order"))[1]


@pytest.mark.parametrize(("tries", "words"), [(1, "once"), (2, "2 times"), (5, "5 times")])
def test_a_notice_says_what_failed_and_why_and_what_to_do(tries: int, words: str) -> None:
    """Table, error, hint, tries, times and the request: all that is needed to begin."""
    _, text = told(replace(FAILURE, tries=tries), stack="staging")
    assert "Table:    public.t\n" in text
    assert "Error:    AccessDenied: read public.t: permission denied, né\n" in text
    assert "To do:    GRANT SELECT\n" in text
    assert f"Tries:    {words}, first received 2026-11-23T11:59:00+00:00, failed last 2026-11-23T12:00:00+00:00" in text
    assert "Request:  request (in the log of the worker)" in text
    assert "the tidelog stack staging." in text
    assert "tidelog dead-letters list --stack staging" in text


def test_lines_that_a_failover_has_lost_are_told_of_once(office: Office) -> None:
    """Of each failover, with how to see whether there are any, and the command."""
    lost = TimelineStarted(
        2, "the database failed over", DATABASE, State(), "7 lines", "tidelog backfill public.t --all"
    )
    one, other = office.process(), office.process()
    name = TableName("public", "t")
    assert [each.of_outdated(name, lost) for each in (one, other, one)] == [True, False, False]
    assert other.of_outdated(name, replace(lost, timeline=3))
    [(subject, text), _] = office.post.notices()
    assert subject == "[prod] lines of public.t may be of lost transactions"
    assert "Because:   the database failed over\nLines:     7 lines\n" in text
    assert "\n    tidelog verify public.t --stack prod\n" in text
    assert "\n    tidelog backfill public.t --all --stack prod\n" in text


def test_a_notice_without_a_table_or_a_hint_still_helps() -> None:
    """Of a message that can't be read: all are sent back, and the log says more."""
    _, text = told(replace(FAILURE, table="", hint=""))
    assert "Table:    none that can be read from the message\n" in text
    assert "To do:    See the worker's log\n" in text
    assert "tidelog dead-letters redrive --stack prod\n" in text
