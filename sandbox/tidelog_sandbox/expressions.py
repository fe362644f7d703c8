"""When a schedule fires: the ``rate`` and ``cron`` expressions of EventBridge Scheduler.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_CRON = re.compile(r"cron\(([^()]+)\)")
_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), start=1)}
_LAST_YEAR = 2199


def occurrences(expression: str, start: datetime, timezone: str = "UTC") -> Iterator[datetime]:
    """The times at which a schedule fires, in UTC, from a start on.

    A rate fires at its start, and then in equal steps. A cron expression fires at the full minutes that it names, in
    its time zone, at or after the start; a local time that a change of the clocks skips does not occur.

    Args:
        expression: ``rate(5 minutes)``, or ``cron(minutes hours day-of-month month day-of-week year)``.
        start: the first moment; included. It must know its time zone.
        timezone: in which a cron expression is meant.

    Raises:
        ValueError: the expression is neither.
    """
    if rate := _RATE.fullmatch(expression):
        count, unit = int(rate[1]), rate[2]
        if count < 1:
            raise ValueError(f"{expression}: a rate is at least 1")
        return _steps(start.astimezone(UTC), timedelta(**{f"{unit}s": count}))
    if cron := _CRON.fullmatch(expression):
        return Cron.parsed(cron[1]).occurrences(start.astimezone(ZoneInfo(timezone)))
    raise ValueError(f"{expression}: neither rate(value unit) nor cron(six fields)")


def _steps(start: datetime, step: timedelta) -> Iterator[datetime]:
    while True:
        yield start
        start += step


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression: the values of each field; those of the days as text, since they depend on the month."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: str
    months: frozenset[int]
    weekdays: str
    years: frozenset[int]

    @classmethod
    def parsed(cls, fields: str) -> "Cron":
        """Read six fields. Raises ValueError if they are not."""
        match fields.upper().split():
            case [minutes, hours, days, months, weekdays, years]:
                pass
            case other:
                raise ValueError(f"cron({fields}): has {len(other)} fields and needs six")
        if (days == "?") == (weekdays == "?"):
            raise ValueError(f"cron({fields}): exactly one of day-of-month and day-of-week is ?")
        cron = cls(
            tuple(sorted(_values(minutes, 0, 59))),
            tuple(sorted(_values(hours, 0, 23))),
            days,
            frozenset(_values(months, 1, 12, _MONTHS)),
            weekdays,
            frozenset(_values(years, 1970, _LAST_YEAR)),
        )
        cron._days(2024, 1)  # so that a bad field is found here
        return cron

    def occurrences(self, start: datetime) -> Iterator[datetime]:
        """The full minutes at or after a start that it names, in UTC."""
        zone = start.tzinfo
        first = start.astimezone(UTC)
        month = date(start.year, start.month, 1)
        while month.year <= max(self.years):
            if month.year in self.years and month.month in self.months:
                for day in sorted(self._days(month.year, month.month)):
                    for clock in (time(hour, minute) for hour in self.hours for minute in self.minutes):
                        local = datetime.combine(month.replace(day=day), clock, zone)
                        moment = local.astimezone(UTC)
                        if moment >= first and moment.astimezone(zone).replace(tzinfo=None) == local.replace(
                            tzinfo=None
                        ):
                            yield moment
            month = (month + timedelta(days=31)).replace(day=1)

    def _days(self, year: int, month: int) -> set[int]:
        last = calendar.monthrange(year, month)[1]
        if self.weekdays == "?":
            return {day for day in _month_days(self.days, year, month, last) if day <= last}
        by_weekday = {day: date(year, month, day).isoweekday() % 7 + 1 for day in range(1, last + 1)}
        if numbered := re.fullmatch(r"(\w+)#([1-5])", self.weekdays):
            weekday, nth = _number(numbered[1], _DAYS), int(numbered[2])
            return {day for day, its in by_weekday.items() if its == weekday and (day - 1) // 7 + 1 == nth}
        if ending := re.fullmatch(r"(\w+)L", self.weekdays):
            weekday = _number(ending[1], _DAYS)
            return {max(day for day, its in by_weekday.items() if its == weekday)}
        wanted = _values("SAT" if self.weekdays == "L" else self.weekdays, 1, 7, _DAYS)
        return {day for day, its in by_weekday.items() if its in wanted}


def _month_days(field: str, year: int, month: int, last: int) -> set[int]:
    """Days of a month by the field day-of-month: L is the last, 15W the weekday nearest to the 15th."""
    if field == "L":
        return {last}
    nearest = re.fullmatch(r"(\d+|L)W", field)
    if not nearest:
        return _values(field, 1, 31)
    day = last if nearest[1] == "L" else int(nearest[1])
    if day > last:
        return set()
    match date(year, month, day).isoweekday():
        case 6:
            return {day - 1 if day > 1 else day + 2}
        case 7:
            return {day + 1 if day < last else day - 2}
    return {day}


def _values(field: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    """The numbers that a field names: ``*``, ``1,3``, ``1-5``, ``0/15``, and names where there are."""
    values: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        if span in ("*", "?"):
            first, final = low, high
        else:
            left, dash, right = span.partition("-")
            first = _number(left, names)
            final = _number(right, names) if dash else high if step else first
        if not low <= first <= final <= high or (step and not (step.isdecimal() and int(step))):
            raise ValueError(f"cron field {field}: {item} is not within {low} to {high}")
        values.update(range(first, final + 1, int(step or 1)))
    return values


def _number(text: str, names: dict[str, int] | None) -> int:
    if names and text in names:
        return names[text]
    if not text.isdecimal():
        raise ValueError(f"cron field: {text} is not a number")
    return int(text)
