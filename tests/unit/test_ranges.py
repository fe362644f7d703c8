"""Ranges in time: read strictly, and cut into pieces without gap or overlap."""

from __future__ import annotations

import calendar
import contextlib
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.unit.test_timestamps import written
from tidelog import ranges, timestamps

MICROSECOND = timedelta(microseconds=1)
FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001 - hypothesis adds the zone
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC))
MIDNIGHTS = st.dates().map(lambda day: datetime.combine(day, time.min, UTC))
SHAPED = st.from_regex(
    r"[0-9]{4}-[01][0-9]-[0-3][0-9]"
    r"([T ][0-2][0-9]:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,7})?)?(Z|[+-][0-2][0-9](:?[0-9]{2})?)?)?",
    fullmatch=True,
)
"""What looks like a moment, and may be none."""


@st.composite
def spans(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a begin and a later end."""
    since, until = sorted([draw(MOMENTS | MIDNIGHTS), draw(MOMENTS | MIDNIGHTS)])
    assume(since < until)
    return since.isoformat(), until.isoformat()


@st.composite
def short_spans(draw: st.DrawFn, longest: timedelta) -> tuple[str, str]:
    """Draw a begin and an end that is not too far from it."""
    since = draw(MOMENTS | MIDNIGHTS)
    until = since + min(draw(st.timedeltas(MICROSECOND, longest)), LAST.replace(tzinfo=UTC) - since)
    assume(since < until)
    return since.isoformat(), until.isoformat()


@given(written())
def test_a_moment_is_read_in_every_way_it_is_written(pair: tuple[datetime, str]) -> None:
    """With or without a zone, a fraction, a T: the same moment in UTC, and that reads back as it is."""
    moment, text = pair
    read = ranges.moment(text)
    assert read == moment.astimezone(UTC).isoformat()
    assert ranges.moment(read) == read


@given(st.dates(), st.sampled_from(["", " 00:00", "T00:00", "T00:00Z", " 00:00:00.0+00", "T00:00-0000"]))
def test_a_date_is_its_midnight(day: date, midnight: str) -> None:
    """In UTC, as a time without a zone is."""
    assert ranges.moment(f"{day}{midnight}") == f"{day}T00:00:00+00:00"


@given(st.text() | SHAPED)
def test_anything_else_is_refused_with_a_value_error(text: str) -> None:
    """And with no other error; what is taken is a moment of Python's calendar."""
    with contextlib.suppress(ValueError):
        read = ranges.moment(text)
        assert datetime.fromisoformat(read).isoformat() == read
        assert datetime.fromisoformat(read).tzinfo == UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "yesterday",
        "infinity",
        "-infinity",
        "2024",
        "2024-02",
        "20240229",
        "2024-W09-4",
        "2024-2-9",
        "2024-02-30",
        "2023-02-29",
        "0000-01-01",
        "10000-01-01",
        "0044-03-15 BC",
        " 2024-01-01",
        "2024-01-01\n",
        "2024-01-01T",
        "2024-01-01Z",
        "2024-01-01T12",
        "2024-01-01T24:00",
        "2024-01-01T12:60",
        "2024-01-01T12:00:60",
        "2024-01-01T12:00:00.1234567",
        "2024-01-01T12:00:00,5",
        "2024-01-01T12:00 +02:00",
        "2024-01-01T12:00+2",
        "2024-01-01T12:00+02:75",
        "2024-01-01T12:00+16:00",
        "2024-01-01T12:00 Europe/Rome",
        "0001-01-01T00:00+01:00",
        "9999-12-31T23:59-01:00",
        "٢٠٢٤-01-01",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """With what it should look like: a date, a time without and with a zone, each of which is taken."""
    with pytest.raises(ValueError, match="is not a date or a timestamp such as") as refused:
        ranges.moment(text)
    shown = str(refused.value).partition(" such as ")[2].replace(" or ", ", ").split(", ")
    assert [ranges.moment(each) for each in shown] == [
        "2024-01-31T00:00:00+00:00",
        "2024-01-31T12:00:00+00:00",
        "2024-01-31T10:00:00+00:00",
    ]


@given(MOMENTS, MOMENTS)
def test_a_range_that_holds_nothing_is_refused(one: datetime, other: datetime) -> None:
    """Its end must be later than its begin, which the error names."""
    since, until = sorted([one, other])
    for first, end in [(until, since), (since, since)]:
        with pytest.raises(ValueError, match="must be later than") as refused:
            ranges.check_order(first.isoformat(), end.isoformat())
        assert first.isoformat() in str(refused.value)
    if since < until:
        ranges.check_order(since.isoformat(), until.isoformat())


def assert_partition(cuts: tuple[str, ...], since: str, until: str) -> list[timedelta]:
    """Hold cuts against the range that they divide; return the lengths of the pieces, none of which is empty."""
    assert (cuts[0], cuts[-1]) == (since, until)
    moments = [datetime.fromisoformat(cut) for cut in cuts]
    assert [moment.isoformat() for moment in moments] == list(cuts)
    lengths = [after - before for before, after in pairwise(moments)]
    assert all(length > timedelta(0) for length in lengths)
    assert len(lengths) <= ranges.MOST_PIECES
    return lengths


@given(short_spans(timedelta(days=99)), st.sampled_from(["h", "d", "w"]), st.integers(1, 99))
def test_pieces_are_of_the_length_asked_for(span: tuple[str, str], unit: str, count: int) -> None:
    """But for the last one, which ends with the range."""
    step = count * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[unit]
    *whole, last = assert_partition(ranges.steps(*span, f"{count}{unit}"), *span)
    assert set(whole) <= {step}
    assert last <= step


@given(short_spans(timedelta(days=3650)), st.integers(1, 30))
@example(("2024-01-31T12:00:00+00:00", "2026-01-31T12:00:00+00:00"), 1)
@example(("2024-02-29T00:00:00+00:00", "2030-01-01T00:00:00+00:00"), 12)
@example(("9999-10-15T00:00:00+00:00", "9999-12-31T00:00:00+00:00"), 1)
def test_pieces_of_months_end_on_the_same_day_or_on_the_last_one(span: tuple[str, str], count: int) -> None:
    """Counted from the begin, so that a short month does not shorten those that follow."""
    cuts = ranges.steps(*span, f"{count}mo")
    assert_partition(cuts, *span)
    first = datetime.fromisoformat(span[0])
    for number, cut in enumerate(map(datetime.fromisoformat, cuts[:-1])):
        assert number_of_months(span[0], cut.isoformat()) == number * count
        assert cut.day == min(first.day, calendar.monthrange(cut.year, cut.month)[1])
        assert cut.timetz() == first.timetz()
    assert number_of_months(cuts[-2], cuts[-1]) <= count


def number_of_months(since: str, until: str) -> int:
    """Return how many months two moments are apart, by the names of the months."""
    first, last = map(datetime.fromisoformat, (since, until))
    return (last.year * 12 + last.month) - (first.year * 12 + first.month)


def test_a_month_from_the_31st_is_what_a_calendar_says() -> None:
    """February of a leap year has 29 days."""
    cuts = ranges.steps("2024-01-31T00:00:00+00:00", "2024-05-31T00:00:00+00:00", "1mo")
    assert [cut[:10] for cut in cuts] == ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"]


@given(st.sampled_from(["h", "d", "w", "mo"]), st.integers(1, 9999))
def test_steps_end_where_the_calendar_does(unit: str, count: int) -> None:
    """The last piece is cut short there."""
    span = ("9999-10-15T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00")
    assert_partition(ranges.steps(*span, f"{count}{unit}"), *span)


@given(spans(), st.sampled_from(["h", "d", "w", "mo"]), st.integers(1, 9999))
def test_steps_are_a_partition_or_too_many(span: tuple[str, str], unit: str, count: int) -> None:
    """Whatever is asked for."""
    try:
        cuts = ranges.steps(*span, f"{count}{unit}")
    except ValueError as error:
        assert "gives more than 10,000 pieces: name a greater one, or a shorter range" in str(error)  # noqa: PT017 - it is one of two cases
        hours = ranges.length(*span) / 3_600_000_000 / {"h": 1, "d": 24, "w": 168, "mo": 28 * 24}[unit] / count
        assert hours > ranges.MOST_PIECES
    else:
        assert_partition(cuts, *span)


def test_ten_thousand_pieces_are_not_too_many() -> None:
    """One more is."""
    since, hours = "2024-01-01T00:00:00+00:00", ranges.MOST_PIECES
    until = datetime.fromisoformat(since) + timedelta(hours=hours)
    assert len(ranges.steps(since, until.isoformat(), "1h")) == hours + 1
    with pytest.raises(ValueError, match="more than 10,000 pieces"):
        ranges.steps(since, (until + MICROSECOND).isoformat(), "1h")


@pytest.mark.parametrize(
    "step", ["", "1", "d", "0d", "01d", "-1d", "1.5d", "1 d", "1D", "1m", "1min", "1y", "10000d", "1d\n", "P1D", "٣d"]
)
def test_what_is_no_length_is_refused(step: str) -> None:
    """With what it should look like, each of which is taken."""
    span = ("2024-01-01T00:00:00+00:00", "2024-02-01T00:00:00+00:00")
    with pytest.raises(ValueError, match="is not a length such as") as refused:
        ranges.steps(*span, step)
    for shown in str(refused.value).partition(" such as ")[2].replace(" or ", ", ").split(", "):
        assert_partition(ranges.steps(*span, shown), *span)


@given(spans() | short_spans(timedelta(microseconds=9)), st.integers(-1, 300))
def test_even_pieces_are_as_many_as_asked_for_and_of_one_length(span: tuple[str, str], count: int) -> None:
    """To the microsecond; at least one, and never an empty one."""
    lengths = assert_partition(ranges.even(*span, count), *span)
    assert len(lengths) == max(1, min(count, ranges.length(*span)))
    assert max(lengths) - min(lengths) <= MICROSECOND
    assert sum(lengths, timedelta(0)) == ranges.length(*span) * MICROSECOND


def test_even_pieces_are_no_more_than_ten_thousand() -> None:
    """However large a table is."""
    assert len(ranges.even("2000-01-01T00:00:00+00:00", "2030-01-01T00:00:00+00:00", 10**9)) == 10_001


@given(st.dates(), MOMENTS | MIDNIGHTS)
@example(date.max, LAST.replace(tzinfo=UTC))
def test_a_date_lies_behind_a_moment_as_its_midnight_does(day: date, moment: datetime) -> None:
    """So half-open ranges of moments become half-open ranges of dates, each date in the same one as its midnight."""
    text = moment.isoformat()
    for near in (day, moment.date(), min(moment.date(), date.max - timedelta(days=1)) + timedelta(days=1)):
        midnight = datetime.combine(near, time.min, UTC)
        behind = timestamps.order(near.isoformat()) >= timestamps.order(ranges.whole_days(text))
        assert behind == (midnight >= moment)


def test_the_day_after_the_last_one_is_no_more_than_that() -> None:
    """A database knows dates behind the year 9999; a range that ends within it does not hold them."""
    assert ranges.whole_days("9999-12-31T00:00:00+00:00") == "9999-12-31"
    assert ranges.whole_days("9999-12-31T00:00:00.000001+00:00") == "10000-01-01"
