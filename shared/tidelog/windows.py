"""Which row versions one run reads, and why.

A run reads, of every relation that holds rows, the row versions that are visible in its snapshot and whose transaction
id is at or above the last horizon and was not emitted before. The horizon of a snapshot is the oldest transaction id
that was still running: all below it have ended, so whatever they wrote is visible or never will be. Of those at or
above it some have committed: their rows are visible as a whole, are emitted, and their ids are remembered as `ahead`.

Transaction ids are 64 bits wide here. A row stores the lower 32 bits, and PostgreSQL's `age(xmin)` is the signed
distance from that to the next id to be given out (`next`): exact for what lies less than 2**31 transactions back, and
cheap. A table that was not read for so long starts a new timeline. A row version frozen 2**32 transactions ago has the
stored id of a new one, and is emitted once more. It must not have that one taken for committed: see `planning`.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidelog import timestamps
from tidelog.hidden import Unseen
from tidelog.quoting import identifier, literal
from tidelog.ranges import whole_days
from tidelog.tables import Table
from tidelog.tablesettings import TableSettings

REACH = 2**31 - 1
"""How many transactions back `age` can tell."""

EPOCH = 2**32
"""So many transaction ids a row can tell apart. Where none has this number yet, no two that have ended are alike."""

AHEAD_CAP = 100_000
"""How many ids at or above the horizon are remembered; where there are more, a run reads below the horizon only."""


class Database(msgspec.Struct, frozen=True):
    """Which database answered."""

    system: str
    """The system identifier of the cluster."""
    oid: int
    name: str
    wal_timeline: int | None
    """Grows with every promotion of a standby. A standby knows only that it is at least so."""


class Snapshot(msgspec.Struct, frozen=True):
    """What a transaction's snapshot says of transaction ids, read once it is taken."""

    database: Database
    horizon: int
    """Every transaction below it has ended."""
    limit: int
    """No transaction at or above it is visible (the snapshot's xmax)."""
    next: int
    """The id that `age` counts back from; never below `limit`."""
    read_at: str
    """When the transaction started, by the server's clock."""
    seen_at: str | None
    """A moment before which no id from `next` on was given out: `read_at`, and on a standby when the last transaction
    was committed that it has heard of, None if it has heard of none."""
    standby: bool
    wal_position: str | None
    """Up to where the write-ahead log was written after the snapshot was taken, or replayed on a standby: all that the
    snapshot sees is before it. A primary's horizon may be relied on once its log is on disk up to there."""
    replayed: str | None = None
    """Of a standby: up to where it had replayed the log before the snapshot was taken, which sees all of that."""
    unended: bool = False
    """Transactions that a standby has shown as ended had not ended on the primary before the snapshot was taken."""


def log_offset(position: str | None) -> int:
    """Return a position of the write-ahead log as a number of bytes; 0 where there is none."""
    high, low = (position or "0/0").split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Bound(msgspec.Struct, frozen=True):
    """A lower bound in time: row versions with any of these columns at or past it, or only past it if `exclusive`."""

    columns: tuple[str, ...]
    since: str
    exclusive: bool = False

    def condition(self, row: str) -> str:
        """Return the bound as SQL."""
        past = f"{'>' if self.exclusive else '>='} {literal(self.since)}"
        return "(" + " OR ".join(f"{row}.{identifier(column)} {past}" for column in self.columns) + ")"


class Times(msgspec.Struct, frozen=True):
    """Row versions with any of some columns in [since, until), and none of them in [begin, since).

    So each row of a range that begins there is in exactly one of its pieces, whichever of its columns say so.

    Attributes:
        columns: by name, each with whether it is a `date`, which stands for its midnight.
        begin: where the whole range begins.
        since: where the piece begins, inclusive.
        until: where it ends, exclusive.
    """

    columns: tuple[tuple[str, bool], ...]
    begin: str
    since: str
    until: str

    def condition(self, row: str) -> str:
        """Return the range as SQL."""
        within = self._any(self.since, self.until, row)
        if self.begin == self.since:
            return within
        return f"{within} AND NOT coalesce({self._any(self.begin, self.since, row)}, false)"

    def _any(self, since: str, until: str, row: str) -> str:
        parts = []
        for name, is_date in self.columns:
            first, end = (whole_days(text) if is_date else text for text in (since, until))
            column = f"{row}.{identifier(name)}"
            parts.append(f"({column} >= {literal(first)} AND {column} < {literal(end)})")
        return f"({' OR '.join(parts)})"


class Window(msgspec.Struct, frozen=True):
    """The row versions to read of one relation.

    Attributes:
        start: transaction ids from here on, inclusive; 0 reads everything visible.
        ahead: ids at or above `start` that were emitted before.
        bound: lower bound in time, where the table is read by its timestamp columns.
        end: transaction ids below it, exclusive; None reads up to what the snapshot sees.
        also: ids at or above `end` to read all the same.
        pages: the first page to read, and the one behind the last; None reads all.
        times: a range in time.
        unseen: only what earlier windows have hidden.
    """

    start: int = 0
    ahead: tuple[int, ...] = ()
    bound: Bound | None = None
    end: int | None = None
    also: tuple[int, ...] = ()
    pages: tuple[int, int] | None = None
    times: Times | None = None
    unseen: Unseen | None = None

    def glance(self, row: str) -> str:
        """Return a window of the next run as SQL that is good under any snapshot in reach of `start`."""
        parts = [f"age({row}.xmin) BETWEEN 1 AND age('{self.start % 2**32}'::xid)"] if self.start else []
        parts += [f"NOT {_among(self.ahead, row)}"] if self.ahead else []
        parts += [self.bound.condition(row)] if self.bound else []
        return " AND ".join(parts) or "true"

    def condition(self, snapshot: Snapshot, row: str) -> str:
        """Return the window as SQL.

        Raises:
            OverflowError: `start` is more than `REACH` transactions back.
        """
        parts: list[str] = []
        if self.pages:
            first, end = self.pages
            parts.append(f"{row}.ctid >= '({first},0)'::tid AND {row}.ctid < '({end},0)'::tid")
        if self.times:
            parts.append(self.times.condition(row))
        if self.start:
            if snapshot.next - self.start > REACH:
                raise OverflowError(f"horizon {self.start} is out of the reach of {snapshot.next}")
            parts += [
                f"age({row}.xmin) <= {snapshot.next - self.start}",
                f"age({row}.xmin) > {snapshot.next - snapshot.limit}",
            ]
        if self.ahead:
            parts.append(f"NOT {_among(self.ahead, row)}")
        if self.end is not None:
            below = f"NOT ({at_or_above(self.end, snapshot, row)})"
            parts.append(f"({below} OR {_among(self.also, row)})" if self.also else below)
        if self.bound:
            parts.append(self.bound.condition(row))
        if self.unseen:
            parts.append(self.unseen.condition(row, snapshot.next))
        return " AND ".join(parts) or "true"


def at_or_above(xid: int, snapshot: Snapshot, row: str) -> str:
    """Return as SQL that a visible row's transaction id is at or above `xid`, which is at most `REACH` back."""
    distance = f"age({row}.xmin)"
    return f"{distance} <= {snapshot.next - xid} AND {distance} > {snapshot.next - snapshot.limit}"


def _among(xids: Iterable[int], row: str) -> str:
    stored = ",".join(str(xid % 2**32) for xid in xids)
    return f"({row}.xmin = ANY ('{{{stored}}}'::xid[]))"


def widen(stored: int, limit: int) -> int:
    """Return the 64-bit id of a visible row's stored 32-bit one: the greatest below the snapshot's `limit`.

    An id equal to the lower half of `limit` is not visible yet, so it belongs to the epoch before.
    """
    low = limit % 2**32
    return limit - low + stored - (2**32 if stored >= low else 0)


class Found(msgspec.Struct, frozen=True):
    """What a window holds, before it is read.

    Attributes:
        rows: number of row versions.
        rows_above: how many of them are of a transaction at or above the snapshot's horizon.
        above: the distinct ids of those transactions.
        timestamps: the latest value of each timestamp column that was asked for.
    """

    rows: int
    rows_above: int
    above: tuple[int, ...]
    timestamps: tuple[str | None, ...]


class Strategy(msgspec.Struct, frozen=True):
    """How a table's windows are found.

    Attributes:
        name: "timestamp" bounds the index range to read; "xmin" looks at every row.
        columns: the timestamp columns of the bound.
        reason: why, in words.
    """

    name: str
    columns: tuple[str, ...]
    reason: str


def choose_strategy(table: Table, *, time_bound_bytes: int, settings: TableSettings | None = None) -> Strategy:
    """Choose how to find a table's new rows.

    A bound in time is used only where it can't hide a new row for long: every timestamp column leads an index, or one
    that says when a row was updated does and is never NULL. The table's configuration may choose otherwise.

    Raises:
        InvalidSetting: the configuration wants a bound in time, and there is no timestamp column.
    """
    if settings and settings.strategy:
        return _chosen(table, settings)
    if not table.timestamp_columns:
        return Strategy("xmin", (), "it has no timestamp column")
    if table.bytes < time_bound_bytes:
        return Strategy("xmin", (), f"at {table.bytes / 2**20:.1f} MiB it is small enough to look at every row")
    indexed = [column for column in table.timestamp_columns if table.is_indexed(column)]
    if not indexed:
        return Strategy("xmin", (), f"no index is led by {' or '.join(table.timestamp_columns)}")
    never_null = {column.name for column in table.columns if column.not_null}
    sure = [column for column in indexed if timestamps.role(column) == "updated" and column in never_null]
    if set(indexed) == set(table.timestamp_columns) or sure:
        return Strategy("timestamp", tuple(indexed), f"{' and '.join(indexed)} lead an index")
    missing = [column for column in table.timestamp_columns if column not in indexed]
    return Strategy("xmin", (), f"no index is led by {' and '.join(missing)}, which may alone tell of a new row")


def _chosen(table: Table, settings: TableSettings) -> Strategy:
    """Return the strategy that the table's configuration names."""
    reason, columns = "its configuration says so", table.timestamp_columns
    if settings.strategy == "xmin":
        return Strategy("xmin", (), reason)
    if not columns:
        raise settings.refusal("strategy", table.table_name, "it has no timestamp column", "Name timestamp_columns")
    missing = [column for column in columns if not table.is_indexed(column)]
    though = f", though no index is led by {' or '.join(missing)}" if missing else ""
    return Strategy("timestamp", columns, reason + though)


def next_bound(previous: str | None, watermark: str | None, began: str | None, look_back: float) -> str | None:
    """Return the lower bound in time of the next window: it never goes back.

    Args:
        previous: the bound of the window before; None if there was none.
        watermark: the latest timestamp ingested.
        began: a moment before which none of the next window's transaction ids was given out, however long they are
            open; so rows dated in the future don't push the bound past it either.
        look_back: seconds before both that are read again.

    Returns:
        The bound; None where nothing is known that it could follow from, or that lies beyond the years 1 to 9999.
    """
    if watermark is None or began is None:
        return previous
    return timestamps.latest([previous, timestamps.before(min(watermark, began, key=timestamps.order), look_back)])
