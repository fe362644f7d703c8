"""Alarms follow their metrics, by CloudWatch's rules."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sandbox.conftest import Orders
from tidelog_sandbox import Sandbox, SandboxError
from tidelog_sandbox.evaluation import COMPARISONS, STATISTICS, Alarm, evaluate
from tidelog_sandbox.metrics import Datapoint, Metric

NOW = datetime(2026, 11, 23, 12, 3, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
MINUTE = timedelta(minutes=1)
METRIC = Metric("toy", "much", frozenset({("kind", "any")}))
ALARM = Alarm("alarm", METRIC, None, "Maximum", MINUTE, 3, None, "GreaterThanOrEqualToThreshold", 1.0, "missing")


def data(pattern: str) -> list[Datapoint]:
    """One period for each letter, the latest last: X breaches, 0 does not, - is without data."""
    values = {"X": 1.0, "0": 0.0}
    ages = range(len(pattern) - 1, -1, -1)
    return [
        Datapoint(METRIC, NOW - age * MINUTE, values[letter])
        for age, letter in zip(ages, pattern, strict=True)
        if letter in values
    ]


def state(alarm: Alarm, pattern: str, since: datetime = LONG_AGO) -> str:
    """What becomes of an alarm; "as it was" if nothing does."""
    verdict = evaluate(replace(alarm, periods=len(pattern)), data(pattern), NOW, since)
    return verdict.state if verdict else "as it was"


MISSING = ("missing", "ignore", "breaching", "notBreaching")


@pytest.mark.parametrize(
    ("pattern", "needed", "states"),
    [
        ("0X0", None, "OK/OK/OK/OK"),
        ("XXX", None, "ALARM/ALARM/ALARM/ALARM"),
        ("-0-", None, "OK/OK/OK/OK"),
        ("--0", None, "OK/OK/OK/OK"),
        ("---", None, "INSUFFICIENT_DATA/as it was/ALARM/OK"),
        ("XX-", None, "ALARM/as it was/ALARM/OK"),
        ("X--", None, "ALARM/as it was/ALARM/OK"),
        ("-X-", None, "as it was/as it was/ALARM/OK"),
        ("0XX", 2, "ALARM/ALARM/ALARM/ALARM"),
        ("X0X", 2, "ALARM/ALARM/ALARM/ALARM"),
        ("0X-", 2, "OK/OK/ALARM/OK"),
        ("--0", 2, "OK/OK/ALARM/OK"),
        ("-X-", 2, "ALARM/as it was/ALARM/OK"),
        ("--X", 2, "as it was/as it was/ALARM/OK"),
        ("--X", 1, "ALARM/ALARM/ALARM/ALARM"),
        ("0X00X", 3, "OK/OK/OK/OK"),
        ("X-0-X", 3, "OK/OK/ALARM/OK"),
        ("X---X", 3, "ALARM/as it was/ALARM/OK"),
    ],
)
def test_the_last_periods_decide(pattern: str, needed: int | None, states: str) -> None:
    """And where data are missing, what the alarm says of them."""
    found = [state(replace(ALARM, breaches=needed, missing=missing), pattern) for missing in MISSING]
    assert "/".join(found) == states


@given(st.text("X0", min_size=1, max_size=8), st.data(), st.sampled_from(MISSING))
def test_without_gaps_an_alarm_counts(pattern: str, draw: st.DataObject, missing: str) -> None:
    """It is on if enough of its periods breach, and off if not, however gaps would be treated."""
    needed = draw.draw(st.integers(1, len(pattern)))
    alarm = replace(ALARM, breaches=needed, missing=missing)
    assert state(alarm, pattern) == ("ALARM" if pattern.count("X") >= needed else "OK")


@given(st.text("X0-", min_size=4, max_size=4), st.sampled_from(MISSING), st.integers(1, 4), st.randoms())
def test_nothing_but_the_window_counts(pattern: str, missing: str, needed: int, order: Any) -> None:
    """Not what is older, not what comes later, and not the order in which it came."""
    alarm = replace(ALARM, periods=4, breaches=needed, missing=missing)
    told = data(pattern)
    more = [*told, *(Datapoint(METRIC, NOW + offset, 1.0) for offset in (-4 * MINUTE, -9 * MINUTE, MINUTE))]
    order.shuffle(more)
    assert evaluate(alarm, more, NOW, LONG_AGO) == evaluate(alarm, told, NOW, LONG_AGO)


@pytest.mark.parametrize(
    ("statistic", "value"), [("Sum", 6), ("Maximum", 4), ("Minimum", 0), ("Average", 2), ("SampleCount", 3)]
)
def test_a_period_has_one_value(statistic: str, value: float) -> None:
    """By the alarm's statistic, of all that came in it; a period includes its end, and not its beginning."""
    alarm = replace(ALARM, statistic=statistic, periods=1, comparison="GreaterThanThreshold")
    points = [
        Datapoint(METRIC, NOW - age, value)
        for age, value in ((timedelta(), 4.0), (MINUTE / 2, 2.0), (MINUTE - timedelta(milliseconds=1), 0.0))
    ]
    points.append(Datapoint(METRIC, NOW - MINUTE, 100.0))
    for threshold, expected in ((value - 0.5, "ALARM"), (value, "OK")):
        verdict = evaluate(replace(alarm, threshold=threshold), points, NOW, LONG_AGO)
        assert verdict
        assert verdict.state == expected
        assert f" {float(value)} (" in verdict.reason.replace("[", " ")


def test_an_alarm_with_a_unit_counts_no_other() -> None:
    """As if there were no data."""
    points = [Datapoint(METRIC, NOW, 5.0, "Seconds")]
    alarm = replace(ALARM, periods=1)
    for unit, expected in (("Seconds", "ALARM"), ("Count", "INSUFFICIENT_DATA")):
        verdict = evaluate(replace(alarm, unit=unit), points, NOW, LONG_AGO)
        assert verdict
        assert verdict.state == expected


@pytest.mark.parametrize(("since", "expected"), [(2.5, "as it was"), (3, "ALARM"), (4, "ALARM")])
def test_what_was_before_the_recording_is_not_missing(since: float, expected: str) -> None:
    """An alarm on silence waits until there has been time for a sound."""
    assert state(replace(ALARM, missing="breaching"), "---", NOW - since * MINUTE) == expected


@pytest.mark.parametrize(
    ("pattern", "changes", "reason"),
    [
        ("X", {}, "1 datapoint [1.0 (TIME0)] was LIMIT."),
        ("0", {}, "1 datapoint [0.0 (TIME0)] was not LIMIT."),
        ("00", {"comparison": "LessThanThreshold"}, "2 datapoints [0.0 (TIME0), 0.0 (TIME1)] were less than the LINE."),
        (
            "X0X",
            {"breaches": 2},
            (
                "2 out of the last 3 datapoints [1.0 (TIME0), 1.0 (TIME2)] were LIMIT "
                "(minimum 2 datapoints for OK -> ALARM transition)."
            ),
        ),
        (
            "X00",
            {"breaches": 3},
            (
                "2 out of the last 3 datapoints [0.0 (TIME0), 0.0 (TIME1)] were not LIMIT "
                "(minimum 1 datapoint for ALARM -> OK transition)."
            ),
        ),
        (
            "-",
            {"missing": "breaching"},
            "no datapoints were received for 1 period and 1 missing datapoint was treated as [Breaching].",
        ),
        (
            "---",
            {"missing": "notBreaching"},
            "no datapoints were received for 3 periods and 3 missing datapoints were treated as [NonBreaching].",
        ),
        (
            "X--",
            {"missing": "breaching"},
            "1 datapoint was received for 3 periods and 2 missing datapoints were treated as [Breaching].",
        ),
        (
            "XXXXXX",
            {},
            (
                "6 datapoints were LIMIT. The most recent datapoints which crossed the threshold: "
                "[1.0 (TIME0), 1.0 (TIME1), 1.0 (TIME2), 1.0 (TIME3), 1.0 (TIME4)]."
            ),
        ),
    ],
)
def test_a_state_has_a_reason(pattern: str, changes: dict[str, Any], reason: str) -> None:
    """In CloudWatch's words; the time of a datapoint is the beginning of its period."""
    verdict = evaluate(replace(ALARM, periods=len(pattern), **changes), data(pattern), NOW, LONG_AGO)
    reason = reason.replace("LIMIT", "greater than or equal to the LINE").replace("LINE", "threshold (1.0)")
    for age, clock in enumerate(("12:02:00", "12:01:00", "12:00:00", "11:59:00", "11:58:00")):
        reason = reason.replace(f"TIME{age}", f"23/11/26 {clock}")
    assert verdict
    assert verdict.reason == f"Threshold Crossed: {reason}"


def test_too_few_data_are_a_reason_too() -> None:
    """For saying nothing."""
    for pattern, reason in (("-", "1 datapoint was unknown."), ("---", "3 datapoints were unknown.")):
        verdict = evaluate(replace(ALARM, periods=len(pattern)), data(pattern), NOW, LONG_AGO)
        assert verdict
        assert verdict.reason == f"Insufficient Data: {reason}"


@pytest.fixture
def watched(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The toy stack, where a minute of the alarms lasts half a second; they are stopped when the test ends."""
    sandbox.start_alarms(minute=0.5)
    yield sandbox
    sandbox.stop_alarms()


@pytest.fixture
def put(sandbox: Sandbox) -> Iterator[Any]:
    """Makes alarms that last as long as the test; a parameter that is None is left out."""
    cloudwatch, names = sandbox.client("cloudwatch"), list[str]()

    def put(**given: Any) -> str:
        names.append(uuid.uuid4().hex)
        parameters = {
            "AlarmName": names[-1],
            "Namespace": "toy",
            "MetricName": "much",
            "Dimensions": [{"Name": "kind", "Value": "any"}],
            "Statistic": "Sum",
            "Period": 3600,
            "EvaluationPeriods": 1,
            "Threshold": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "notBreaching",
            **given,
        }
        cloudwatch.put_metric_alarm(**{name: value for name, value in parameters.items() if value is not None})
        return names[-1]

    yield put
    cloudwatch.delete_alarms(AlarmNames=names)


def line(kind: str, values: Any) -> str:
    """A line of a log that tells of a metric, in the embedded metric format."""
    about = {
        "Timestamp": int(time.time() * 1000),
        "CloudWatchMetrics": [{"Namespace": "toy", "Dimensions": [["kind"]], "Metrics": [{"Name": "much"}]}],
    }
    return json.dumps({"_aws": about, "kind": kind, "much": values}) + "\n"


def reason(sandbox: Sandbox, alarm: str) -> str:
    """Why an alarm is in its state."""
    return str(sandbox.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateReason"])


def test_a_message_that_nobody_can_work_off_is_mailed(watched: Sandbox, orders: Orders) -> None:
    """When it is among the dead letters; and once more when it no longer is."""
    alarm = watched.wait_for_alarm("Alarm", "OK", 20)
    before = len(watched.emails)
    orders.send({"raise": "it does not work"})
    watched.wait_for_alarm("Alarm", "ALARM", 20)
    email = watched.wait_for_email(lambda email: email in watched.emails[before:], 20)
    assert email.subject == f'ALARM: "{alarm}" in EU (London)'
    assert 'because "Threshold Crossed: 1 datapoint [1.0 (' in email.body
    assert "- Dimensions:                          [QueueName = tidelog-dead.fifo]" in email.body
    assert "- Period:                              60 seconds" in email.body
    assert orders.dead_letters()
    watched.wait_for_alarm("Alarm", "OK", 20)
    assert watched.wait_for_email(lambda email: email in watched.emails[before + 1 :], 20).subject.startswith("OK: ")


def test_a_function_that_is_killed_sets_off_the_alarm_on_its_errors(watched: Sandbox, put: Any) -> None:
    """It had no chance to tell anybody."""
    plain = watched.outputs["Plain"]
    dimensions = [{"Name": "FunctionName", "Value": plain}]
    alarm = put(Namespace="AWS/Lambda", MetricName="Errors", Dimensions=dimensions)
    watched.invoke(plain, {"do": "note"})
    watched.wait_for_alarm(alarm, "OK", 20)
    watched.invoke(plain, {"do": "exit", "status": 9})
    watched.wait_for_alarm(alarm, "ALARM", 20)
    assert "1 datapoint [1.0 (" in reason(watched, alarm)


def test_a_metric_in_a_functions_log_sets_off_an_alarm(watched: Sandbox, put: Any) -> None:
    """And is in CloudWatch for everybody to see."""
    kind = uuid.uuid4().hex
    dimensions = [{"Name": "kind", "Value": kind}]
    alarm = put(Dimensions=dimensions, Threshold=7)
    watched.invoke(watched.outputs["Plain"], {"do": "note", "say": f"a line\n{line(kind, [3, 4.5])}another\n"})
    watched.wait_for_alarm(alarm, "ALARM", 20)
    assert "1 datapoint [7.5 (" in reason(watched, alarm)
    now = datetime.now(UTC)
    (found,) = watched.client("cloudwatch").get_metric_statistics(
        Namespace="toy",
        MetricName="much",
        Dimensions=dimensions,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
        Period=86400,
        Statistics=["Sum", "Maximum"],
    )["Datapoints"]
    assert (found["Sum"], found["Maximum"], found["Unit"]) == (7.5, 4.5, "None")


def test_silence_sets_off_an_alarm_for_which_it_breaches(watched: Sandbox, put: Any) -> None:
    """Once it has lasted, and until it ends."""
    kind = uuid.uuid4().hex
    alarm = put(
        Dimensions=[{"Name": "kind", "Value": kind}],
        Period=120,
        ComparisonOperator="LessThanThreshold",
        TreatMissingData="breaching",
    )
    watched.wait_for_alarm(alarm, "ALARM", 20)
    assert reason(watched, alarm).endswith("for 1 period and 1 missing datapoint was treated as [Breaching].")
    for _ in range(100):
        watched.invoke(watched.outputs["Plain"], {"do": "note", "say": line(kind, 1)})
        if watched.alarms[alarm] == "OK":
            break
    assert watched.alarms[alarm] == "OK"
    watched.wait_for_alarm(alarm, "ALARM", 20)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"Namespace": "AWS/SQS", "MetricName": "NumberOfMessagesSent", "Statistic": "Average"}, "nothing here makes"),
        ({"Namespace": "AWS/Scheduler", "MetricName": "x"}, "nothing here makes metrics of AWS/Scheduler"),
        ({"Namespace": "AWS/Lambda", "MetricName": "IteratorAge"}, "nothing here makes the metric"),
        ({"Namespace": "AWS/Lambda", "MetricName": "Errors"}, "the one dimension FunctionName"),
        (
            {
                "Namespace": "AWS/SQS",
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Statistic": "Maximum",
                "Dimensions": [{"Name": "QueueName", "Value": "tidelog-dead"}],
            },
            r"no QueueName tidelog-dead; there are .*tidelog-dead\.fifo",
        ),
        ({"Namespace": "AWS/SQS", "MetricName": "ApproximateAgeOfOldestMessage"}, "which makes Sum another"),
        ({"AlarmActions": ["arn:aws:lambda:eu-west-2:123456789012:function:f"]}, "is not a topic"),
        ({"Statistic": None, "ExtendedStatistic": "p99"}, "the statistic p99"),
        ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "compares by GreaterThanUpperThreshold"),
        (
            {
                **dict.fromkeys(("Namespace", "MetricName", "Dimensions", "Statistic", "Period")),
                "Metrics": [{"Id": "m", "Expression": "1 + 1", "ReturnData": True}],
            },
            "arithmetic",
        ),
    ],
)
def test_an_alarm_that_would_not_be_evaluated_as_in_cloudwatch_is_refused(
    sandbox: Sandbox, put: Any, given: dict[str, Any], why: str
) -> None:
    """By name, before anybody relies on it."""
    alarm = put(**given)
    with pytest.raises(SandboxError, match=f"watch alarm {alarm}: .*{why}"):
        sandbox.start_alarms()
    assert "alarms" not in [thread.name for thread in threading.enumerate()]


def test_alarms_that_are_stopped_stay_as_they_are(sandbox: Sandbox, put: Any) -> None:
    """And nothing listens any more; they can be started again, where a minute may last another time."""
    listeners = len(sandbox._listeners), len(sandbox._log_listeners)
    alarm = put()
    sandbox.start_alarms(minute=0.5)
    sandbox.start_alarms(minute=0.5)
    sandbox.wait_for_alarm(alarm, "OK", 20)
    sandbox.stop_alarms()
    sandbox.stop_alarms()
    assert (len(sandbox._listeners), len(sandbox._log_listeners)) == listeners
    sandbox.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="x")
    assert sandbox.alarms[alarm] == "ALARM"
    sandbox.start_alarms()
    sandbox.wait_for_alarm(alarm, "OK", 20)
    sandbox.stop_alarms()


def test_waiting_for_an_alarm_ends(sandbox: Sandbox, put: Any) -> None:
    """With the states as they are, or with the names that there are."""
    alarm = put()
    with pytest.raises(TimeoutError, match=rf"{alarm} is not OK after 0 seconds; .*'{alarm}': 'INSUFFICIENT_DATA'"):
        sandbox.wait_for_alarm(alarm, "OK", 0)
    with pytest.raises(SandboxError, match=rf"wait for alarm nothing: 0 have that in their names, of .*{alarm}"):
        sandbox.wait_for_alarm("nothing", "OK", 0)


def test_every_statistic_and_comparison_has_a_name_that_cloudwatch_has(sandbox: Sandbox) -> None:
    """So that no alarm is refused for our own misspelling."""
    model = sandbox.client("cloudwatch").meta.service_model
    assert set(STATISTICS) == set(model.shape_for("Statistic").enum)
    assert set(COMPARISONS) <= set(model.shape_for("ComparisonOperator").enum)
