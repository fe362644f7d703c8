"""The layout of the lake: keys that sort by position and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_tables import NAMES
from tidelog.lake import Position, event_key, ledger_prefix, read_event_key, read_segment_key, schema_key, segment_key
from tidelog.tables import TableName

INCREMENTS = st.builds(
    Position,
    timeline=st.integers(1, 999_999),
    horizon=st.integers(0, 2**63 - 1),
    increment=st.just(value=True),
    number=st.integers(1, 10**12 - 1),
)
CHUNKS = st.builds(
    Position,
    timeline=st.integers(1, 999_999),
    horizon=st.integers(0, 2**63 - 1),
    increment=st.just(value=False),
    number=st.integers(1, 10**12 - 1),
    chunk=st.integers(0, 10**9 - 1),
)
POSITIONS = INCREMENTS | CHUNKS
# Positions that differ in one part only are where an order goes wrong.
CLOSE = st.builds(
    Position, *(st.integers(1, 2) | st.integers(9, 10) for _ in range(2)), st.booleans(), st.integers(9, 10)
)


@given(POSITIONS | CLOSE, POSITIONS | CLOSE)
def test_names_of_segments_sort_as_their_positions(one: Position, other: Position) -> None:
    """So the newest version of a row is found by names alone; in S3 they sort by their bytes."""
    assert (str(one).encode() < str(other).encode()) == (one < other)
    assert (str(one) == str(other)) == (one == other)


@given(NAMES, st.dates().map(str), POSITIONS)
def test_a_segments_key_reads_back(table: TableName, day: str, position: Position) -> None:
    """Table and position; the day is for partition pruning only."""
    key = segment_key(table, day, position)
    assert read_segment_key(key) == (table, position)
    assert key.count("/") == 3


@given(NAMES, st.integers(1, 10**12 - 2))
def test_an_events_key_reads_back_and_sorts_by_offset(table: TableName, offset: int) -> None:
    """The ledger's order is the order of its keys."""
    assert read_event_key(event_key(table, offset)) == (table, offset)
    assert event_key(table, offset) < event_key(table, offset + 1)
    assert event_key(table, offset).startswith(ledger_prefix(table))


def test_the_keys_are_the_documented_ones() -> None:
    """The layout is an interface: whoever reads the lake relies on it."""
    table = TableName("public", "sales.order")
    increment = Position(timeline=1, horizon=84213, increment=True, number=7)
    chunk = Position(timeline=2, horizon=84213, increment=False, number=12, chunk=3)
    assert segment_key(table, "2026-11-23", increment) == (
        "data/public.sales%2Eorder/dt=2026-11-23/000001-00000000000000084213-i000000000007.jsonl.gz"
    )
    assert segment_key(table, "2026-11-23", chunk).endswith(
        "/000002-00000000000000084213-b000000000012-000000003.jsonl.gz"
    )
    assert event_key(table, 42) == "ledger/public.sales%2Eorder/000000000042.json"
    assert schema_key(table, "0123456789abcdef") == "schema/public.sales%2Eorder/0123456789abcdef.json"


@pytest.mark.parametrize(
    "key", ["", "data/a.b/x", "ledger/a.b/7.json", "ledger/a.b/000000000007.json.gz", "data/a.b/dt=2026-11-23/x"]
)
def test_other_keys_are_refused(key: str) -> None:
    """A file that somebody put into the lake is not taken for a segment or an event."""
    with pytest.raises(ValueError, match="is not the key of a segment"):
        read_segment_key(key)
    with pytest.raises(ValueError, match="is not the key of an event"):
        read_event_key(key)
