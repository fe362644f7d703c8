"""Timestamps as the database writes them: text that is compared and moved, never a float, never truncated."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

# The names seen in real schemas, without case and underscores.
_CREATED = frozenset({
    "createdat", "created", "createdate", "createddate", "createdtime", "createdon", "creationdate", "creationtime",
    "datecreated", "insertedat", "insertedon", "insertdate", "publishedat",
})  # fmt: skip
_UPDATED = frozenset({
    "updatedat", "updated", "updatedate", "updateddate", "updatedtime", "updatetime", "updatedon", "dateupdated",
    "lastupdate", "lastupdated", "lastupdatedat", "lastupdatets", "lastmodified", "lastmodifiedat", "lastmodifieddate",
    "modifiedat", "modified", "modifieddate", "modifiedtime", "modifiedon", "datemodified",
})  # fmt: skip

_TEXT = re.compile(
    r"(?P<year>\d{4,})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"(?:[T ](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?"
    r"(?P<zone>[+-]\d\d(?::?\d\d)?(?::?\d\d)?|Z)?)?"
    r"(?P<bc> BC)?"
)


def role(column: str) -> str | None:
    """Say what a column's name means: "created", "updated" or None."""
    plain = column.lower().replace("_", "")
    if plain in _UPDATED:
        return "updated"
    return "created" if plain in _CREATED else None


def order(text: str) -> tuple[int, ...]:
    """Return a key that sorts timestamps as PostgreSQL does: -infinity, BC, AD, infinity.

    A timestamp without a zone counts as UTC, as in tidelog's sessions.

    Raises:
        ValueError: the text is not a timestamp in ISO 8601 as PostgreSQL writes it.
    """
    if text in ("infinity", "-infinity"):
        return (1,) if text == "infinity" else (-1,)
    found = _TEXT.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not a timestamp in ISO 8601, such as 2026-11-23T12:00:00.5+00:00")
    year = int(found["year"])
    if found["bc"]:
        year = 1 - year
    clock = [int(found[name] or 0) for name in ("hour", "minute", "second")]
    microseconds = int((found["fraction"] or "").ljust(6, "0"))
    seconds = clock[0] * 3600 + clock[1] * 60 + clock[2] - _zone_seconds(found["zone"])
    return (0, _days(year, int(found["month"]), int(found["day"])) * 86400 + seconds, microseconds)


def latest(texts: Iterable[str | None]) -> str | None:
    """Return the latest of some timestamps, None where there is none."""
    return max((text for text in texts if text is not None), key=order, default=None)


def before(text: str, seconds: float) -> str | None:
    """Return the timestamp that many seconds earlier, or None where it leaves the years 1 to 9999 or is infinite."""
    found = _TEXT.fullmatch(text)
    if not found or found["bc"] or len(found["year"]) > 4:
        return None
    moment = datetime.fromisoformat(text)
    try:
        return (
            (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
            .__sub__(timedelta(seconds=seconds))
            .isoformat()
        )
    except OverflowError:
        return None


def _zone_seconds(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(6, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
    return -seconds if zone[0] == "-" else seconds


def _days(year: int, month: int, day: int) -> int:
    """Days since 0000-03-01 in the proleptic Gregorian calendar.

    Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    """
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
