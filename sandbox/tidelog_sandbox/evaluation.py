"""The state of an alarm, from the datapoints of its metric: CloudWatch's rules, and its words for the reason.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tidelog_sandbox.metrics import Datapoint, Metric

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "Average": lambda values: sum(values) / len(values),
    "SampleCount": lambda values: float(len(values)),
}
COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}
_TREATED = {"breaching": "Breaching", "notBreaching": "NonBreaching"}
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Alarm:
    """A metric alarm.

    Attributes:
        name: its name.
        metric: what it watches.
        unit: that datapoints must have to count; None takes any.
        statistic: one of :data:`STATISTICS`.
        period: what one datapoint of the alarm is made of.
        periods: how many of the last periods it looks at.
        breaches: how many of those must breach; None is all, and CloudWatch then words its reasons more simply.
        comparison: one of :data:`COMPARISONS`.
        threshold: what the statistic of each period is compared with.
        missing: how a period without data is treated: breaching, notBreaching, ignore or missing.
    """

    name: str
    metric: Metric
    unit: str | None
    statistic: str
    period: timedelta
    periods: int
    breaches: int | None
    comparison: str
    threshold: float
    missing: str

    @property
    def window(self) -> timedelta:
        """How far back it looks."""
        return self.period * self.periods


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state that an alarm should have, and why."""

    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class _Point:
    """What the data of one period amount to; the age is in periods."""

    age: int
    at: datetime
    value: float
    breaching: bool


def evaluate(alarm: Alarm, datapoints: Iterable[Datapoint], now: datetime, since: datetime) -> Verdict | None:
    """What an alarm's state should be, by its last periods, the latest of which ends now; None lets it be as it is.

    Args:
        alarm: the alarm.
        datapoints: of its metric; those outside its window do not count.
        now: when it is evaluated.
        since: when the recording of datapoints began. A period before it is not without data, it is unknown, and
            unknown periods alarm nobody.
    """
    points = _points(alarm, datapoints, now)
    missing = alarm.periods - len(points)
    known = {point.age for point in points}
    unknown = sum(age not in known and now - alarm.period * (age + 1) < since for age in range(alarm.periods))
    needed = alarm.breaches or alarm.periods
    breaching = [point for point in points if point.breaching]
    if len(breaching) >= needed:
        return Verdict("ALARM", _crossed(alarm, "ALARM", breaching))
    match alarm.missing:
        case "breaching" if len(breaching) + missing - unknown >= needed:
            return Verdict("ALARM", _filled(alarm, points, missing))
        case "breaching" if len(breaching) + missing >= needed:
            return None
        case "notBreaching" if len(points) - len(breaching) <= alarm.periods - needed:
            return Verdict("OK", _filled(alarm, points, missing))
        case "missing" if not points:
            return None if unknown else Verdict("INSUFFICIENT_DATA", _unknown(missing))
        case "missing" if len(breaching) == len(points):
            # All that is there breaches, but it is too little. It alarms once it is old enough to have been enough.
            return Verdict("ALARM", _crossed(alarm, "ALARM", breaching)) if max(known) >= needed - 1 else None
        case "ignore" if len(breaching) == len(points):
            return None
    return Verdict("OK", _crossed(alarm, "OK", [point for point in points if not point.breaching]))


def _points(alarm: Alarm, datapoints: Iterable[Datapoint], now: datetime) -> list[_Point]:
    """The periods that have data, latest first."""
    values: dict[int, list[float]] = defaultdict(list)
    for datapoint in datapoints:
        if datapoint.at <= now and alarm.unit in (None, datapoint.unit):
            values[(now - datapoint.at) // alarm.period].append(datapoint.value)
    breaches, _ = COMPARISONS[alarm.comparison]
    points = []
    for age in range(alarm.periods):
        if age in values:
            value = STATISTICS[alarm.statistic](values[age])
            points.append(_Point(age, now - alarm.period * (age + 1), value, breaches(value, alarm.threshold)))
    return points


def _crossed(alarm: Alarm, state: State, points: Sequence[_Point]) -> str:
    """The reason for a state that real datapoints are enough for."""
    number = len(points)
    named = ", ".join(f"{float(point.value)} ({point.at:%d/%m/%y %H:%M:%S})" for point in points[:_NAMED])
    was = f"{'was' if number == 1 else 'were'}{'' if state == 'ALARM' else ' not'}"
    relation = f"{was} {COMPARISONS[alarm.comparison][1]} the threshold ({float(alarm.threshold)})"
    if alarm.breaches:
        least = alarm.breaches if state == "ALARM" else alarm.periods - alarm.breaches + 1
        change = "OK -> ALARM" if state == "ALARM" else "ALARM -> OK"
        return (
            f"Threshold Crossed: {number} out of the last {alarm.periods} datapoints [{named}] {relation} "
            f"(minimum {_counted(least, 'datapoint')} for {change} transition)."
        )
    if number > _NAMED:
        return (
            f"Threshold Crossed: {_counted(number, 'datapoint')} {relation}. "
            f"The most recent datapoints which crossed the threshold: [{named}]."
        )
    return f"Threshold Crossed: {_counted(number, 'datapoint')} [{named}] {relation}."


def _filled(alarm: Alarm, points: Sequence[_Point], missing: int) -> str:
    """The reason for a state that periods without data were needed for."""
    received = _counted(len(points), "datapoint") if points else "no datapoints"
    return (
        f"Threshold Crossed: {received} {'was' if len(points) == 1 else 'were'} received for "
        f"{_counted(alarm.periods, 'period')} and {_counted(missing, 'missing datapoint')} "
        f"{'was' if missing == 1 else 'were'} treated as [{_TREATED[alarm.missing]}]."
    )


def _unknown(number: int) -> str:
    return f"Insufficient Data: {_counted(number, 'datapoint')} {'was' if number == 1 else 'were'} unknown."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
