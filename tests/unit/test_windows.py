"""Windows: wide transaction ids, bounds in time, and which way a table is read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tidelog import timestamps
from tidelog.errors import InvalidSetting
from tidelog.tables import Column, Leaf, Table
from tidelog.tablesettings import Section, TableSettings
from tidelog.windows import REACH, Bound, Database, Snapshot, Strategy, Window, choose_strategy, next_bound, widen

TIMESTAMPTZ, TEXT = 1184, 25
EPOCHS = st.builds(lambda epoch, near: max(3, epoch * 2**32 + near), st.integers(0, 5), st.integers(-50, 50))
WIDE = st.integers(3, 2**63 - 1) | EPOCHS


@given(WIDE, st.integers(1, 2**32) | st.integers(1, 100))
def test_a_stored_id_widens_to_what_it_was(limit: int, back: int) -> None:
    """For every id that a snapshot can see: below its limit, by up to a whole epoch."""
    xid = limit - back
    assume(xid >= 3)
    assert widen(xid % 2**32, limit) == xid


def test_a_stored_id_equal_to_the_lower_half_of_the_limit_is_an_epoch_old() -> None:
    """The limit itself is not visible."""
    assert widen(7, 2**32 + 7) == 7
    assert widen(6, 2**32 + 7) == 2**32 + 6


def test_a_window_out_of_reach_is_no_window() -> None:
    """The distance that `age` measures would have turned round."""
    here = Snapshot(
        Database("1", 1, "d", 1), 10 + REACH, 10 + REACH, 10 + REACH, "now", "now", standby=False, wal_position=None
    )
    Window(start=10).condition(here, "r")
    with pytest.raises(OverflowError):
        Window(start=9).condition(here, "r")


def test_a_bound_names_every_column_and_which_end_is_open() -> None:
    """Rows with any of the columns at or past it are in; at it, too, unless it is exclusive."""
    assert Bound(("a", 'b"'), "2026-11-23 12:00:00+00").condition("r") == (
        """(r."a" >= '2026-11-23 12:00:00+00' OR r."b""" + '""' + """" >= '2026-11-23 12:00:00+00')"""
    )
    assert Bound(("a",), "o'clock", exclusive=True).condition("r") == """(r."a" > 'o''clock')"""


def table(size: int, *columns: str, leaves: list[tuple[str, ...]], not_null: tuple[str, ...] = ()) -> Table:
    """Return a table of so many bytes, the columns of each leaf's indexes given."""
    described = tuple(Column(name, TIMESTAMPTZ, "timestamptz", not_null=name in not_null) for name in columns)
    parts = tuple(
        Leaf(oid, "s", f"t{oid}", "r", size // len(leaves), locked=True, indexed=indexed)
        for oid, indexed in enumerate(leaves, 2)
    )
    return Table(1, "s", "t", "r", (Column("id", TEXT, "text"), *described), key=(), leaves=parts, types=())


@pytest.mark.parametrize(
    ("described", "columns", "words"),
    [
        (table(99, "updated_at", leaves=[("updated_at",)]), (), "small enough to look at every row"),
        (table(100, leaves=[()]), (), "it has no timestamp column"),
        (table(100, "updated_at", leaves=[("id",)]), (), "no index is led by updated_at"),
        (table(100, "updated_at", "created_at", leaves=[()]), (), "no index is led by updated_at or created_at"),
        (table(100, "updated_at", leaves=[("id", "updated_at")]), ("updated_at",), "updated_at lead an index"),
        (
            table(100, "updated_at", "created_at", leaves=[("created_at", "updated_at")]),
            ("updated_at", "created_at"),
            "updated_at and created_at lead an index",
        ),
        # Where one column is not indexed, the other alone is enough only if no row can be without it.
        (table(100, "updated_at", "created_at", leaves=[("updated_at",)]), (), "led by created_at, which may alone"),
        (table(100, "updated_at", "created_at", leaves=[("created_at",)]), (), "led by updated_at, which may alone"),
        (
            table(100, "updated_at", "created_at", leaves=[("updated_at",)], not_null=("updated_at",)),
            ("updated_at",),
            "updated_at lead an index",
        ),
        (
            table(100, "updated_at", "created_at", leaves=[("created_at",)], not_null=("created_at",)),
            (),
            "no index is led by updated_at, which may alone",
        ),
        # Every leaf has to have the index; their sizes add up.
        (table(100, "updated_at", leaves=[("updated_at",), ("updated_at",)]), ("updated_at",), "lead an index"),
        (table(100, "updated_at", leaves=[("updated_at",), ()]), (), "no index is led by updated_at"),
    ],
)
def test_a_bound_in_time_is_used_only_where_it_is_safe_and_cheap(
    described: Table, columns: tuple[str, ...], words: str
) -> None:
    """And the reason is in words, which go into the event and the log."""
    strategy = choose_strategy(described, time_bound_bytes=100)
    assert strategy.columns == columns
    assert strategy.name == ("timestamp" if columns else "xmin")
    assert words in strategy.reason


CHOSEN = TableSettings(strategy="timestamp", sections={"strategy": Section('[tables."s.t"]', exact=True)})


def test_a_configuration_chooses_the_strategy_whatever_size_or_index() -> None:
    """The reason says that it does, and that an index is missing; without a timestamp column it is refused."""
    indexed = table(10**9, "updated_at", leaves=[("updated_at",)])
    xmin = choose_strategy(indexed, time_bound_bytes=100, settings=TableSettings(strategy="xmin"))
    assert xmin == Strategy("xmin", (), "its configuration says so")
    small = choose_strategy(table(1, "updated_at", leaves=[("updated_at",)]), time_bound_bytes=100, settings=CHOSEN)
    assert small == Strategy("timestamp", ("updated_at",), "its configuration says so")
    bare = table(1, "updated_at", "created_at", leaves=[("created_at",)])
    assert choose_strategy(bare, time_bound_bytes=100, settings=CHOSEN) == Strategy(
        "timestamp", ("updated_at", "created_at"), "its configuration says so, though no index is led by updated_at"
    )
    with pytest.raises(InvalidSetting, match=r'\[tables\."s\.t"\] strategy: it has no timestamp column'):
        choose_strategy(table(1, leaves=[()]), time_bound_bytes=100, settings=CHOSEN)


MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat)  # noqa: DTZ001 - hypothesis adds the zone
MARKS = MOMENTS | st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "20000-01-01", "2026-11-23"])


@given(st.lists(st.tuples(st.none() | MARKS, MOMENTS), max_size=10), st.floats(0, 10**7))
def test_a_bound_never_goes_back(readings: list[tuple[str | None, str]], look_back: float) -> None:
    """Nor does it ever pass the look-back before the watermark, or before the oldest transaction got its id."""
    bound: str | None = None
    for watermark, began in readings:
        after = next_bound(bound, watermark, began, look_back)
        if after != bound:
            assert after is not None
            assert bound is None or timestamps.order(after) >= timestamps.order(bound)
            assert watermark is not None
            newest = min(timestamps.order(watermark), timestamps.order(began))
            moved = (datetime.fromisoformat(after) + timedelta(seconds=look_back)).isoformat()
            assert timestamps.order(moved) <= newest
        bound = after


@pytest.mark.parametrize(
    ("watermark", "bound"),
    [
        ("2026-11-23T11:00:00+00:00", "2026-11-23T10:45:00+00:00"),
        ("2026-11-23T13:00:00+02:00", "2026-11-23T10:45:00+00:00"),
        ("2026-11-23", "2026-11-22T23:45:00+00:00"),
        # A row dated in the future does not push the bound past the rows of now.
        ("2077-01-01T00:00:00+00:00", "2026-11-23T11:45:00+00:00"),
        ("infinity", "2026-11-23T11:45:00+00:00"),
        ("-infinity", None),
        ("0044-03-15 BC", None),
        (None, None),
    ],
)
def test_a_bound_looks_back_from_the_watermark(watermark: str | None, bound: str | None) -> None:
    """By 15 minutes here; where there is nothing to look back from there is no bound."""
    assert next_bound(None, watermark, "2026-11-23T12:00:00+00:00", 900) == bound
    assert next_bound(None, watermark, None, 900) is None
