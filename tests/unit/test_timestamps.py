"""Timestamps: compared and moved as the text that the database writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog import timestamps

ZONES = st.integers(-15 * 60, 15 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=ZONES | st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zones


@st.composite
def written(draw: st.DrawFn) -> tuple[datetime, str]:
    """Draw a moment and one of the ways in which PostgreSQL or a person writes it."""
    moment = draw(MOMENTS)
    text = moment.replace(tzinfo=None).isoformat(sep=draw(st.sampled_from("T ")))
    if moment.microsecond and draw(st.booleans()):
        text = text.rstrip("0")
    offset = f"{moment:%z}"
    zones = [f"{offset[:3]}:{offset[3:]}", offset]
    if not moment.utcoffset():
        zones += ["", "Z"]
    if offset.endswith("00"):
        zones.append(offset[:3])
    return moment, text + draw(st.sampled_from(zones))


@given(written(), written())
def test_timestamps_sort_as_the_moments_they_stand_for(one: tuple[datetime, str], other: tuple[datetime, str]) -> None:
    """Whatever zone, separator and precision they are written in."""
    assert (timestamps.order(one[1]) < timestamps.order(other[1])) == (one[0] < other[0])
    assert (timestamps.order(one[1]) == timestamps.order(other[1])) == (one[0] == other[0])


@given(st.integers(0, 3_652_058), st.integers(0, 3_652_058))
def test_days_are_counted_through_every_calendar_rule(one: int, other: int) -> None:
    """Two dates are as many days apart as Python's proleptic Gregorian calendar says."""
    days = [datetime(1, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in (one, other)]
    seconds = [timestamps.order(f"{day.date()}")[1] for day in days]
    assert seconds[1] - seconds[0] == (days[1] - days[0]).total_seconds()


def test_time_runs_from_minus_infinity_over_bc_to_infinity() -> None:
    """Years before Christ count backwards, years beyond 9999 have five digits, and the infinities are the ends."""
    in_order = [
        "-infinity",
        "4713-01-01T00:00:00 BC",
        "0044-03-15 BC",
        "0044-03-15T12:00:00+00:00 BC",
        "0001-12-31T23:59:59.999999 BC",
        "0001-01-01",
        "2026-11-23T12:00:00.000001+00:00",
        "2026-11-23T12:00:00.00001+00:00",
        "9999-12-31T23:59:59",
        "10000-01-01",
        "294276-12-31T23:59:59.999999",
        "infinity",
    ]
    backwards = in_order[::-1]
    assert sorted(backwards, key=timestamps.order) == in_order


def test_the_last_second_before_christ_is_followed_by_the_first_after() -> None:
    """There is no year 0."""
    last, first = timestamps.order("0001-12-31T23:59:59 BC"), timestamps.order("0001-01-01T00:00:00")
    assert first[1] - last[1] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-11-23T",
        "2026-11-23 12:00",
        "2026-1-2",
        "1764000000",
        "2026-11-23T12:00:00 UTC",
        "٢٠٢٦-11-23x",
    ],
)
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    """A ValueError names the text and shows how one looks."""
    with pytest.raises(ValueError, match="is not a timestamp in ISO 8601, such as 2026"):
        timestamps.order(text)


@given(st.lists(st.none() | written().map(lambda pair: pair[1])))
def test_the_latest_is_at_or_after_every_other(texts: list[str | None]) -> None:
    """It is one of them, as it was written; None stands for no timestamp."""
    latest = timestamps.latest(texts)
    there = [text for text in texts if text is not None]
    assert (latest is None) == (not there)
    assert latest is None or (latest in there and timestamps.order(latest) == max(map(timestamps.order, there)))


@given(written(), st.floats(0, 10 * 365 * 86400))
def test_before_goes_back_by_exactly_so_many_seconds(moment: tuple[datetime, str], seconds: float) -> None:
    """To the microsecond; where that leaves the years 1 to 9999 there is none."""
    earlier = timestamps.before(moment[1], seconds)
    try:
        expected = moment[0].astimezone(UTC) - timedelta(seconds=seconds)
    except OverflowError:
        assert earlier is None
    else:
        assert earlier is not None
        assert datetime.fromisoformat(earlier) == expected


@pytest.mark.parametrize("text", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01T00:00:00", "0001-01-01"])
def test_before_is_none_outside_of_pythons_calendar(text: str) -> None:
    """A bound that can't be computed is no bound."""
    assert timestamps.before(text, 60) is None


@pytest.mark.parametrize(
    ("column", "role"),
    [
        *[
            (name, "created")
            for name in ("created_at", "created", "create_date", "published_at", "datecreated", "CreatedAt")
        ],
        *[
            (name, "updated")
            for name in ("updated_at", "last_update", "last_updated", "last_update_ts", "modifieddate")
        ],
        *[(name, None) for name in ("id", "updated_by", "deleted_at", "timestamp", "birthday", "create", "")],
    ],
)
def test_names_of_real_schemas_say_what_a_column_means(column: str, role: str | None) -> None:
    """Case and underscores do not count; what merely resembles such a name is left alone."""
    assert timestamps.role(column) == role
