"""Looking after the whole at each tick: tables that have gone stale, a transaction that holds the horizon."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from math import inf

import msgspec

from tidelog.errors import Retryable, TidelogError
from tidelog.horizon import Horizon
from tidelog.marks import Marks
from tidelog.notices import Notices
from tidelog.parameters import Parameters, Summary
from tidelog.source import Source
from tidelog.tables import TableName

_MARK = "horizon"
_NAMED = 20
_AWAITED = 200
_STALE_REMEDY = """\
Look first at the dead letters (tidelog dead-letters list), then at the worker's log. If it only does not keep up, raise
WorkConcurrency or WorkerMemory, or take fewer ticks. Nothing is lost: what is new is read once it runs again."""


class _Seen(msgspec.Struct, frozen=True):
    horizon: int
    since: str


class Watch(msgspec.Struct, frozen=True):
    """After how many seconds something is told of."""

    stale_seconds: float
    horizon_seconds: float


class Sight(msgspec.Struct, frozen=True):
    """What was seen.

    Attributes:
        stalest: seconds since the table was read that was not read for longest; 0 without tables.
        stale: the tables that were not read for too long, each with its seconds, the longest first.
        held: seconds that the horizon has not moved, while transactions went on; as fine as the ticks are.
        holder: who holds it, as far as the role may see it.
    """

    stalest: float
    stale: tuple[tuple[str, float], ...]
    held: float
    holder: str


class Watching:
    """Looks after the tables of a tick.

    Args:
        source: the database.
        parameters: when each table was read last.
        marks: since when the horizon stands.
        notices: tells the administrators.
        watch: what is too long.
        now: the clock, with a zone.
    """

    def __init__(
        self,
        *,
        source: Source,
        parameters: Parameters,
        marks: Marks,
        notices: Notices,
        watch: Watch,
        now: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._parameters = parameters
        self._marks = marks
        self._notices = notices
        self._watch = watch
        self._now = now

    def horizon(self) -> tuple[Horizon, float]:
        """Return the horizon, and for how many seconds ticks have seen it where it is; 0 where nobody holds it.

        Raises:
            TidelogError: the database or Parameter Store could not be reached.
        """
        horizon = self._source.horizon()
        return horizon, self._held(horizon)

    def look(
        self,
        tables: Collection[TableName],
        known: Mapping[TableName, Summary] | None = None,
        asked: Mapping[TableName, datetime] | None = None,
    ) -> Sight:
        """Look at the tables and at the horizon; tell of what is wrong, at most once an hour.

        Args:
            tables: those in which something may be new; the others are fresh.
            known: their summaries, where they were just read.
            asked: since when each of them is asked for without a pause: nobody has waited for it any longer.

        Raises:
            TidelogError: the database or Parameter Store could not be reached.
        """
        if known is None:
            known = dict(self._parameters.read_all(lenient=True))
        ages = self._ages(tables, known, asked or {})
        stale = tuple((table, age) for table, age in ages if age >= self._watch.stale_seconds)
        horizon, held = self.horizon()
        sight = Sight(
            stalest=ages[0][1] if ages else 0.0,
            stale=stale,
            held=held,
            holder=horizon.who if horizon.held else "",
        )
        if stale:
            subject = "1 table has gone stale" if len(stale) == 1 else f"{len(stale)} tables have gone stale"
            self._tell("stale tables", subject, _stale_text(sight))
        if held >= self._watch.horizon_seconds:
            self._tell("horizon", "a transaction holds the horizon", _horizon_text(held, horizon))
        return sight

    def _ages(
        self, tables: Collection[TableName], known: Mapping[TableName, Summary], asked: Mapping[TableName, datetime]
    ) -> list[tuple[str, float]]:
        """Return for how long each table was not read, the longest first. One never seen is awaited from now on."""
        now = self._now()
        ages = [
            (str(table), min(known[table].age(now), (now - asked[table]).total_seconds() if table in asked else inf))
            for table in tables
            if table in known
        ]
        with suppress(Retryable):  # Parameter Store takes few writes a second: the rest at the next ticks.
            for table in islice((table for table in tables if table not in known), _AWAITED):
                self._parameters.expect(table, now)
        return sorted(ages, key=lambda each: -each[1])

    def _held(self, horizon: Horizon) -> float:
        """Return for how long the horizon was seen where it is."""
        if not horizon.held:
            return 0.0
        now = self._now()
        mark = self._marks.read(_MARK)
        seen = _seen(mark.value) if mark else None
        if seen and seen.horizon == horizon.horizon:
            return max(0.0, (now - datetime.fromisoformat(seen.since)).total_seconds())
        self._marks.write(_MARK, msgspec.json.encode(_Seen(horizon.horizon, now.isoformat())).decode(), mark)
        return 0.0

    def _tell(self, about: str, subject: str, text: str) -> None:
        with suppress(TidelogError):  # The alarm on the metric tells of it too.
            self._notices.send(about, subject, text)


def _seen(value: str) -> _Seen | None:
    try:
        seen = msgspec.json.decode(value, type=_Seen)
        return seen if datetime.fromisoformat(seen.since).tzinfo else None
    except (msgspec.DecodeError, ValueError):
        return None


def _stale_text(sight: Sight) -> str:
    lines = [f"    {table}  ({_words(age)})" for table, age in sight.stale[:_NAMED]]
    more = len(sight.stale) - _NAMED
    return "\n".join(
        [
            "Nothing was read from these tables for longer than StaleSeconds, although ticks asked for it:",
            "",
            *lines,
            *([f"    and {more} more"] if more > 0 else []),
            "",
            _STALE_REMEDY,
            "",
            "This is told at most once an hour.",
        ]
    )


def _horizon_text(held: float, horizon: Horizon) -> str:
    return (
        f"A transaction has held the horizon for {_words(held)}: {horizon.who}.\n\n"
        "Rows of other transactions are ingested all the same, but each of their ids has to be remembered, and VACUUM "
        "can't clean up behind it. What the transaction itself writes comes when it commits.\n\n"
        f"{horizon.remedy}\n\nThis is told at most once an hour."
    )


def _words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
