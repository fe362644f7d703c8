"""Whether transaction ids of now can be compared with those of the last run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tidelog.continuity import current_database, find_break
from tidelog.errors import ReplicaBehind
from tidelog.state import State
from tidelog.tables import Table
from tidelog.windows import REACH, Database, Snapshot, log_offset

DATABASE = Database(system="7001", oid=5, name="shop", wal_timeline=3)
TABLE = Table(100, "public", "orders", "r", columns=(), key=(), leaves=(), types=())
STATE = State(offset=9, horizon=1000, database=DATABASE, oid=100, wal_position="0/FFFF0000")
SNAPSHOT = Snapshot(
    DATABASE,
    horizon=1000,
    limit=1000,
    next=1000,
    read_at="now",
    seen_at="now",
    standby=False,
    wal_position="0/FFFF0000",
)


def snapshot(**changes: Any) -> Snapshot:
    """Return the last run's snapshot with changes, those of the database among them."""
    here = {name: changes.pop(name) for name in list(changes) if name in Database.__struct_fields__}
    return msgspec.structs.replace(SNAPSHOT, database=msgspec.structs.replace(DATABASE, **here), **changes)


@pytest.mark.parametrize(
    "now",
    [
        SNAPSHOT,
        snapshot(horizon=5000, limit=5001, next=5002),
        snapshot(name="renamed"),
        snapshot(next=1000 + REACH, limit=1000 + REACH),
        snapshot(wal_position="1/0"),
        snapshot(standby=True, replayed="0/FFFF0000"),
        snapshot(standby=True, replayed="1/0", wal_timeline=None),
        snapshot(standby=True, replayed="1/0", wal_timeline=2),  # what a standby knows of it may be old
    ],
)
def test_the_next_window_follows_on_the_last(now: Snapshot) -> None:
    """On the same server, however quiet or busy it was, and on a standby that is not behind."""
    assert find_break(STATE, now, TABLE) is None


@pytest.mark.parametrize("state", [State(), State(offset=3, database=DATABASE, oid=7), State(horizon=9)])
def test_there_is_no_break_before_the_first_reading(state: State) -> None:
    """A table is read whole then anyhow."""
    assert find_break(state, snapshot(system="other", oid=1), TABLE) is None


@pytest.mark.parametrize(
    ("now", "table", "reason"),
    [
        (snapshot(system="7002"), TABLE, "another cluster answered: system identifier 7002 after 7001"),
        (snapshot(oid=6, name="b"), TABLE, "another database answered: b (oid 6) after shop (oid 5)"),
        (SNAPSHOT, msgspec.structs.replace(TABLE, oid=101), "the table was created anew: oid 101 after 100"),
        (snapshot(horizon=999), TABLE, "the database went back: horizon 999 after 1000"),
        (snapshot(wal_position="0/1"), TABLE, "the database went back: its log ends at 0/1 after 0/FFFF0000"),
        (snapshot(next=1001 + REACH), TABLE, f"the table was not read for {REACH + 1} transactions"),
        # What is wrong twice is named by what weighs more: nothing before is good any more.
        (snapshot(system="7002", wal_timeline=9, horizon=3), TABLE, "another cluster answered"),
        (snapshot(wal_timeline=9), msgspec.structs.replace(TABLE, oid=101), "the table was created anew"),
    ],
)
def test_the_table_is_read_whole_where_nothing_can_be_compared(now: Snapshot, table: Table, reason: str) -> None:
    """And the reason is in words that go into the ledger."""
    found = find_break(STATE, now, table)
    assert found is not None
    assert found.reason.startswith(reason)
    assert not found.rewind


@pytest.mark.parametrize("horizon", [900, 1000, 2000])
def test_after_a_failover_an_earlier_window_may_still_be_good(horizon: int) -> None:
    """Wherever the new primary's horizon is; one that only has grown may hide ids that were given out twice."""
    found = find_break(STATE, snapshot(wal_timeline=4, horizon=horizon), TABLE)
    assert found is not None
    assert found.rewind
    assert "WAL timeline 4 after WAL timeline 3" in found.reason


def test_a_standby_may_know_of_a_failover() -> None:
    """It was built anew from the new primary, and may have as much of the log as the old one had written."""
    found = find_break(STATE, snapshot(wal_timeline=4, standby=True, replayed="0/1", horizon=900), TABLE)
    assert found is not None
    assert found.rewind


def test_a_primary_after_a_standby_of_unknown_timeline_may_have_failed_over() -> None:
    """Nobody knows; the ledger's first versions did not ask a standby for it."""
    state = msgspec.structs.replace(STATE, database=msgspec.structs.replace(DATABASE, wal_timeline=None))
    found = find_break(state, SNAPSHOT, TABLE)
    assert found is not None
    assert found.rewind
    assert "after a standby" in found.reason


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (
            snapshot(horizon=999, standby=True, replayed="1/0"),
            "the standby is at transaction 999, the last run at 1000",
        ),
        (
            snapshot(standby=True, replayed="0/FFFEFFFF"),
            "has replayed the log up to 0/FFFEFFFF, the last run 0/FFFF0000",
        ),
        (snapshot(horizon=999, oid=6, standby=True, replayed="0/1"), "the standby is at transaction 999"),
    ],
)
def test_a_standby_that_is_behind_is_waited_for(now: Snapshot, reason: str) -> None:
    """It will replay what another server has shown already, a database that was created anew among it."""
    with pytest.raises(ReplicaBehind, match=reason):
        find_break(STATE, now, TABLE)


@pytest.mark.parametrize("now", [snapshot(horizon=999), snapshot(unended=True)])
def test_a_primary_that_has_not_ended_what_a_standby_shows_is_waited_for(now: Snapshot) -> None:
    """It will; but where its log ends before, it has gone back."""
    state = msgspec.structs.replace(STATE, standby=True)
    with pytest.raises(ReplicaBehind, match="have not ended on the primary"):
        find_break(state, now, TABLE)
    assert find_break(state, msgspec.structs.replace(now, wal_position="0/1"), TABLE) is not None


@pytest.mark.parametrize(
    ("heard", "told", "known"), [(3, None, 3), (3, 2, 3), (3, 4, 4), (None, 4, 4), (None, None, None)]
)
def test_a_standbys_wal_timeline_is_at_least_the_one_last_heard_of(
    heard: int | None, told: int | None, known: int | None
) -> None:
    """So a change between a primary and its standby is no failover."""
    state = msgspec.structs.replace(STATE, database=msgspec.structs.replace(DATABASE, wal_timeline=heard))
    assert current_database(state, snapshot(wal_timeline=told, standby=True)).wal_timeline == known
    assert current_database(state, snapshot(wal_timeline=1)).wal_timeline == 1


@pytest.mark.parametrize(
    ("position", "offset"), [(None, 0), ("0/0", 0), ("0/A", 10), ("1/0", 2**32), ("FF/FFFFFFFF", 2**40 - 1)]
)
def test_positions_of_the_log_are_numbers(position: str | None, offset: int) -> None:
    """Their halves are hexadecimal and have no leading zeros: as text they have no order."""
    assert log_offset(position) == offset
