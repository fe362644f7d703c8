"""Ranges in time that an operator names: half-open, read strictly, cut into pieces.

A time without a zone is UTC, as in tidelog's sessions; so a `timestamp` column is taken for UTC too, and a `date` for
its midnight.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

MOST_PIECES = 10_000

_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-](?:0\d|1[0-5])(?::?[0-5]\d)?)?)?", re.ASCII
)
_STEP = re.compile(r"(?P<count>[1-9]\d{0,3})(?P<unit>h|d|w|mo)", re.ASCII)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def moment(text: str) -> str:
    """Return a date or a timestamp, with or without a zone, as UTC in ISO 8601.

    Raises:
        ValueError: it is neither, or no day of the calendar.
    """
    if _MOMENT.fullmatch(text):
        try:
            found = datetime.fromisoformat(text)
            return (found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
        except (ValueError, OverflowError):
            pass
    raise ValueError("is not a date or a timestamp such as 2024-01-31, 2024-01-31T12:00 or 2024-01-31T12:00:00+02:00")


def check_order(since: str, until: str) -> None:
    """Do nothing for a range that holds something.

    Args:
        since: its begin, as `moment` gives it; it belongs to the range.
        until: its end; it does not.

    Raises:
        ValueError: the end is not later than the begin.
    """
    if datetime.fromisoformat(until) <= datetime.fromisoformat(since):
        raise ValueError(f"must be later than {since}, where the range begins")


def steps(since: str, until: str, step: str) -> tuple[str, ...]:
    """Return the cuts that divide a range into pieces of a length such as 6h, 1d, 2w or 1mo, both ends included.

    Months are counted from the begin: those of 31 January end on the last day of each shorter month.

    Raises:
        ValueError: the length can't be read, or gives more than `MOST_PIECES` pieces.
    """
    found = _STEP.fullmatch(step)
    if not found:
        raise ValueError("is not a length such as 6h, 1d, 1w or 1mo")
    cuts = [since]
    for cut in _cuts(datetime.fromisoformat(since), int(found["count"]), found["unit"]):
        if cut is None or cut >= datetime.fromisoformat(until):
            return (*cuts, until)
        if len(cuts) == MOST_PIECES:
            raise ValueError(f"gives more than {MOST_PIECES:,} pieces: name a greater one, or a shorter range")
        cuts.append(cut.isoformat())
    raise AssertionError


def even(since: str, until: str, pieces: int) -> tuple[str, ...]:
    """Return the cuts that divide a range into so many pieces of one length, as far as microseconds allow."""
    first, microseconds = datetime.fromisoformat(since), length(since, until)
    pieces = max(1, min(pieces, microseconds, MOST_PIECES))
    inner = (first + timedelta(microseconds=microseconds * number // pieces) for number in range(1, pieces))
    return (since, *(cut.isoformat() for cut in inner), until)


def length(since: str, until: str) -> int:
    """Return the microseconds from one moment to another."""
    return (datetime.fromisoformat(until) - datetime.fromisoformat(since)) // timedelta(microseconds=1)


def whole_days(text: str) -> str:
    """Return the first date whose midnight is not before a moment: what a `date` column is compared with."""
    found = datetime.fromisoformat(text)
    day = found.date()
    if found.time() == time.min:
        return day.isoformat()
    return (day + timedelta(days=1)).isoformat() if day < date.max else "10000-01-01"


def _cuts(first: datetime, count: int, unit: str) -> Iterator[datetime | None]:
    """Yield the cuts behind the first one; None where the calendar ends."""
    for number in range(1, MOST_PIECES + 2):
        try:
            yield first + number * count * _UNITS[unit] if unit in _UNITS else _month(first, number * count)
        except (OverflowError, ValueError):
            yield None


def _month(first: datetime, months: int) -> datetime:
    year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    last = monthrange(year, month + 1)[1]
    return first.replace(year=year, month=month + 1, day=min(first.day, last))
