"""Schedules fire when they say, and what comes to nothing is kept."""

import itertools
import json
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tests.sandbox.conftest import taken
from tidelog_sandbox import Invocation, Sandbox, SandboxError
from tidelog_sandbox.deployment import ScheduleConfiguration
from tidelog_sandbox.destinations import Send, sender
from tidelog_sandbox.expressions import occurrences
from tidelog_sandbox.functions import Function
from tidelog_sandbox.schedules import Ticker, payload

MONDAY = datetime(2026, 11, 23, 10, 7, 30, tzinfo=UTC)


def fires(expression: str, count: int = 3, *, start: datetime = MONDAY, timezone: str = "UTC") -> list[str]:
    """The first times of an expression, as text."""
    times = itertools.islice(occurrences(expression, start, timezone), count)
    return [f"{moment:%Y-%m-%d %H:%M}" for moment in times]


@pytest.mark.parametrize(
    ("expression", "times"),
    [
        ("rate(5 minutes)", ["2026-11-23 10:07", "2026-11-23 10:12", "2026-11-23 10:17"]),
        ("rate(1 hour)", ["2026-11-23 10:07", "2026-11-23 11:07", "2026-11-23 12:07"]),
        ("rate(2 days)", ["2026-11-23 10:07", "2026-11-25 10:07", "2026-11-27 10:07"]),
        ("cron(0/15 * * * ? *)", ["2026-11-23 10:15", "2026-11-23 10:30", "2026-11-23 10:45"]),
        ("cron(30 8,20 * * ? *)", ["2026-11-23 20:30", "2026-11-24 08:30", "2026-11-24 20:30"]),
        ("cron(0 9 ? * MON-FRI *)", ["2026-11-24 09:00", "2026-11-25 09:00", "2026-11-26 09:00"]),
        ("cron(0 9 ? * 1,7 *)", ["2026-11-28 09:00", "2026-11-29 09:00", "2026-12-05 09:00"]),
        ("cron(0 0 1 * ? *)", ["2026-12-01 00:00", "2027-01-01 00:00", "2027-02-01 00:00"]),
        ("cron(0 0 31 * ? *)", ["2026-12-31 00:00", "2027-01-31 00:00", "2027-03-31 00:00"]),
        ("cron(0 0 29 2 ? *)", ["2028-02-29 00:00", "2032-02-29 00:00", "2036-02-29 00:00"]),
        ("cron(0 0 L * ? *)", ["2026-11-30 00:00", "2026-12-31 00:00", "2027-01-31 00:00"]),
        ("cron(0 0 15W * ? *)", ["2026-12-15 00:00", "2027-01-15 00:00", "2027-02-15 00:00"]),
        ("cron(0 0 1W MAY,AUG ? 2027)", ["2027-05-03 00:00", "2027-08-02 00:00"]),
        ("cron(0 0 31W OCT ? 2027)", ["2027-10-29 00:00"]),
        ("cron(0 0 ? * 6#1 *)", ["2026-12-04 00:00", "2027-01-01 00:00", "2027-02-05 00:00"]),
        ("cron(0 0 ? * FRIL *)", ["2026-11-27 00:00", "2026-12-25 00:00", "2027-01-29 00:00"]),
        ("cron(0 0 ? * L *)", ["2026-11-28 00:00", "2026-12-05 00:00", "2026-12-12 00:00"]),
        ("cron(5 4 3 2 ? 2020-2028)", ["2027-02-03 04:05", "2028-02-03 04:05"]),
        ("cron(5 4 3 2 ? 2020)", []),
    ],
)
def test_an_expression_names_its_times(expression: str, times: list[str]) -> None:
    """From a Monday at half past seven minutes past ten on."""
    assert fires(expression) == times


def test_the_start_is_included_and_what_lies_before_is_not() -> None:
    """To the second."""
    full = MONDAY.replace(minute=15, second=0)
    assert fires("cron(15 * * * ? *)", 1, start=full) == ["2026-11-23 10:15"]
    assert fires("cron(15 * * * ? *)", 1, start=full + timedelta(seconds=1)) == ["2026-11-23 11:15"]


def test_a_cron_expression_is_meant_in_its_time_zone() -> None:
    """Also over a change of the clocks, where a time may be skipped."""
    zone = "Europe/London"
    spring = datetime(2027, 3, 27, tzinfo=UTC)  # on the 28th one o'clock becomes two
    assert fires("cron(0 9 * * ? *)", 2, start=spring, timezone=zone) == ["2027-03-27 09:00", "2027-03-28 08:00"]
    assert fires("cron(30 1 * * ? *)", 2, start=spring, timezone=zone) == ["2027-03-27 01:30", "2027-03-29 00:30"]


@pytest.mark.parametrize(
    "expression",
    [
        "every minute",
        "rate(5)",
        "rate(0 minutes)",
        "rate(5 weeks)",
        "cron(* * * * *)",
        "cron(0 0 * * * *)",
        "cron(0 0 ? * ? *)",
        "cron(60 0 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 0 32 * ? *)",
        "cron(0 0 ? * 8 *)",
        "cron(0 0 * FOO ? *)",
        "cron(0/0 0 * * ? *)",
        "cron(5-1 0 * * ? *)",
    ],
)
def test_an_expression_that_makes_no_sense_is_refused(expression: str) -> None:
    """When it is read."""
    with pytest.raises(ValueError, match=r"."):
        occurrences(expression, MONDAY)


SCHEDULE = ScheduleConfiguration(
    role="",
    arn="arn:aws:scheduler:eu-west-2:123456789012:schedule/default/tick",
    expression="rate(1 minute)",
    timezone="UTC",
    target_arn="f",
    input='{"at": "<aws.scheduler.scheduled-time>", "execution": "<aws.scheduler.execution-id>", "as": "<other>"}',
    maximum_age=300,
    retries=2,
)


def test_the_input_gets_the_values_of_its_placeholders() -> None:
    """The scheduled time in UTC, to the second."""
    assert payload(SCHEDULE, MONDAY, "e1") == {"at": "2026-11-23T10:07:30Z", "execution": "e1", "as": "<other>"}


@dataclass
class FakeFunction:
    """A function that fails some times."""

    failures: int = 0
    payloads: list[Any] = field(default_factory=list)

    def invoke(self, event: Any) -> Invocation:
        """Note the event."""
        self.payloads.append(event)
        kind = "error" if len(self.payloads) <= self.failures else "success"
        error = {"errorType": "ValueError"} if kind == "error" else None
        return Invocation("f", "r", event, cast("Any", kind), None, error, 0, 0, 0, (), cold=False)


@dataclass
class Absent:
    """A function that cannot be invoked."""

    def invoke(self, _event: Any) -> Invocation:
        """Fail, as the sandbox does."""
        raise SandboxError("start function f: there is no such directory")


def clock(*minutes: float) -> Callable[[], datetime]:
    """A clock that shows so many minutes after the start, one after the other, and stands still then."""
    shown = itertools.chain(minutes, itertools.repeat(minutes[-1]))
    return lambda: MONDAY + timedelta(minutes=next(shown))


Message = tuple[str, Any, Mapping[str, str]]


def nowhere(*message: object) -> None:
    """Where nothing is sent."""
    raise AssertionError(message)


@pytest.fixture
def messages() -> queue.SimpleQueue[Message]:
    """What was sent, each with its queue and its attributes."""
    return queue.SimpleQueue()


@pytest.fixture
def send(messages: queue.SimpleQueue[Message]) -> Send:
    """Sends them."""
    return lambda arn, body, attributes: messages.put((arn, json.loads(body), attributes))


@pytest.fixture
def failed() -> Iterator[list[Exception]]:
    """What went wrong in the background; nothing, at the end."""
    failures: list[Exception] = []
    yield failures
    assert not failures


def test_a_rate_fires_at_once_and_then_in_equal_steps(failed: list[Exception]) -> None:
    """Each time with the time that was meant, even when it is a little late; then it waits for the next."""
    assert fired_at(clock(0, 0, 1.2, 2.4, 2.5), failed) == ["10:07:30", "10:08:30", "10:09:30"]


def test_times_that_are_long_over_are_passed_over(failed: list[Exception]) -> None:
    """Those older than the schedule's maximum age: the machine has slept."""
    assert fired_at(clock(0, 0, *[8.5] * 9), failed) == ["10:07:30", *(f"10:{n}:30" for n in range(11, 16))]


def fired_at(now: Callable[[], datetime], failed: list[Exception]) -> list[str]:
    """The times for which a schedule of every minute fires by some clock."""
    function = FakeFunction()
    ticker = Ticker(SCHEDULE, cast("Function", function), failed.append, nowhere, now=now)
    time.sleep(0.2)
    ticker.stop()
    return sorted(each["at"][11:19] for each in function.payloads)


def test_an_invocation_that_failed_is_tried_again(failed: list[Exception]) -> None:
    """As often as Lambda does, with the same payload, and not after it succeeded."""
    for failures, retries, attempts in ((0, 2, 1), (1, 2, 2), (2, 2, 3), (9, 2, 3), (9, 1, 2), (9, 0, 1)):
        function = FakeFunction(failures)
        ticker = Ticker(
            replace(SCHEDULE, retries=retries),
            cast("Function", function),
            failed.append,
            nowhere,
            retry_seconds=(0.01, 0.01),
        )
        time.sleep(0.1)
        ticker.stop()
        assert len(function.payloads) == attempts
        assert len({each["execution"] for each in function.payloads}) == 1


def test_a_stopped_schedule_gives_up_further_attempts(failed: list[Exception]) -> None:
    """It does not wait for them."""
    function = FakeFunction(9)
    ticker = Ticker(SCHEDULE, cast("Function", function), failed.append, nowhere)
    time.sleep(0.1)
    begun = time.monotonic()
    ticker.stop()
    assert time.monotonic() - begun < 1
    assert len(function.payloads) == 1


KEEPING = replace(SCHEDULE, on_failure="arn:on-failure", dead_letters="arn:dead-letters")


def test_an_invocation_that_lambda_gives_up_is_told_to_a_queue(
    failed: list[Exception], send: Send, messages: queue.SimpleQueue[Message]
) -> None:
    """After the last attempt: with what the function was given, and its last answer."""
    function = FakeFunction(9)
    ticker = Ticker(KEEPING, cast("Function", function), failed.append, send, retry_seconds=(0.01, 0.01))
    arn, record, attributes = messages.get(timeout=20)
    ticker.stop()
    assert (arn, attributes) == ("arn:on-failure", {})
    assert datetime.fromisoformat(record.pop("timestamp")).utcoffset() == timedelta()
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": "r",
            "functionArn": "f:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": function.payloads[0],
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorType": "ValueError"},
    }
    assert function.payloads == [function.payloads[0]] * 3
    assert messages.empty()


def test_lambda_gives_up_an_event_that_will_be_too_old(
    failed: list[Exception], send: Send, messages: queue.SimpleQueue[Message]
) -> None:
    """When it would be tried again."""
    function = FakeFunction(9)
    schedule = replace(KEEPING, event_age=200)
    ticker = Ticker(schedule, cast("Function", function), failed.append, send, retry_seconds=(0.01, 300))
    _, record, _ = messages.get(timeout=20)
    ticker.stop()
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 2


def test_an_invocation_that_succeeds_in_the_end_is_told_to_nobody(failed: list[Exception]) -> None:
    """Nor one that fails, if there is no queue for it."""
    for schedule, failures in ((KEEPING, 2), (SCHEDULE, 9)):
        function = FakeFunction(failures)
        ticker = Ticker(schedule, cast("Function", function), failed.append, nowhere, retry_seconds=(0.01, 0.01))
        end = time.monotonic() + 20
        while len(function.payloads) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        ticker.stop()
        assert len(function.payloads) == 3


def test_what_the_schedule_passes_over_is_among_its_dead_letters(
    failed: list[Exception], send: Send, messages: queue.SimpleQueue[Message]
) -> None:
    """With what the function would have got, and the reason, in the attributes that the scheduler sets."""
    ticker = Ticker(KEEPING, cast("Function", FakeFunction()), failed.append, send, now=clock(0, 0, 6.5))
    arn, event, attributes = messages.get(timeout=20)
    ticker.stop()
    assert (arn, event["at"]) == ("arn:dead-letters", "2026-11-23T10:08:30Z")
    assert dict(attributes) == {
        "ERROR_CODE": "EventAgeExceeded",
        "ERROR_MESSAGE": "The event is older than 300 seconds",
        "EXECUTION_ID": event["execution"],
        "EXHAUSTED_RETRY_CONDITION": "MaximumEventAgeInSeconds",
        "IS_PAYLOAD_TRUNCATED": "false",
        "RETRY_ATTEMPTS": "0",
        "SCHEDULED_TIME": "2026-11-23T10:08:30Z",
        "SCHEDULE_ARN": SCHEDULE.arn,
        "TARGET_ARN": "f",
    }


def test_an_event_that_no_function_takes_is_a_dead_letter(
    failed: list[Exception], send: Send, messages: queue.SimpleQueue[Message]
) -> None:
    """For which nobody else is to blame then."""
    ticker = Ticker(KEEPING, cast("Function", Absent()), failed.append, send)
    arn, _, attributes = messages.get(timeout=20)
    ticker.stop()
    assert arn == "arn:dead-letters"
    assert attributes["ERROR_MESSAGE"] == "start function f: there is no such directory"
    assert "EXHAUSTED_RETRY_CONDITION" not in attributes


def test_without_dead_letters_the_sandbox_is_to_blame() -> None:
    """That the function could not be invoked."""
    failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    ticker = Ticker(SCHEDULE, cast("Function", Absent()), failures.put, nowhere)
    assert isinstance(failures.get(timeout=20), SandboxError)
    ticker.stop()


def test_what_the_function_of_the_template_fails_at_is_in_its_queue(sandbox: Sandbox, failed: list[Exception]) -> None:
    """For everybody to read."""
    (schedule,) = sandbox.deployment.schedules
    failing = replace(schedule, input='{"do": "raise"}')
    function = sandbox.functions[sandbox.outputs["Plain"]]
    ticker = Ticker(failing, function, failed.append, sender(sandbox.cloud), retry_seconds=(0.01,))
    end, letters = time.monotonic() + 20, list[dict[str, Any]]()
    while not letters and time.monotonic() < end:
        letters = taken(sandbox, sandbox.outputs["MissedUrl"])
    ticker.stop()
    (letter,) = letters
    record = json.loads(letter["Body"])
    assert record["requestContext"]["functionArn"] == sandbox.outputs["PlainArn"] + ":$LATEST"
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert (record["requestPayload"], record["responsePayload"]["errorMessage"]) == ({"do": "raise"}, "a bad thing")


def test_a_late_event_of_the_template_is_in_its_queue(sandbox: Sandbox, failed: list[Exception]) -> None:
    """With its attributes."""
    (schedule,) = sandbox.deployment.schedules
    function = sandbox.functions[sandbox.outputs["Plain"]]
    late = clock(0, 2 * schedule.maximum_age / 60)
    rare = replace(schedule, expression="rate(3 days)")
    ticker = Ticker(rare, function, failed.append, sender(sandbox.cloud), now=late)
    end, letters = time.monotonic() + 20, list[dict[str, Any]]()
    while not letters and time.monotonic() < end:
        letters = taken(sandbox, sandbox.outputs["MissedUrl"])
    ticker.stop()
    (letter,) = letters
    assert json.loads(letter["Body"])["note"] == "2026-11-23T10:07:30Z"
    assert letter["MessageAttributes"]["SCHEDULE_ARN"]["StringValue"] == schedule.arn


def test_the_schedule_of_the_template_starts_its_function(sandbox: Sandbox) -> None:
    """With the input that the template gives."""
    seen: list[Invocation] = []
    sandbox.on_invocation(seen.append)
    before = datetime.now(UTC).replace(microsecond=0)
    sandbox.start_schedules()
    end = time.monotonic() + 5
    while not seen and time.monotonic() < end:
        time.sleep(0.01)
    sandbox.stop_schedules()
    (invocation,) = seen
    assert invocation.succeeded
    assert before <= datetime.fromisoformat(invocation.payload["note"]) <= datetime.now(UTC)
    assert len(invocation.payload["execution"]) == 36
