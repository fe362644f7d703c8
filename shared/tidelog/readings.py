"""What one pass over a table has read, and the segment that it was written to."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise

import msgspec

from tidelog.windows import Database


class Segment(msgspec.Struct, frozen=True):
    """One data object, prepared as a multipart upload: enough for anybody to publish it."""

    key: str
    upload: str
    etags: tuple[str, ...]
    """Of the parts, in their order."""
    rows: int
    bytes: int
    """As stored, compressed."""
    text_bytes: int
    """Of the JSON lines."""
    schema: str
    """Fingerprint of the schema document that describes its lines."""
    digest: str
    """SHA-256 of the object, in hexadecimal digits."""


class Moment(msgspec.Struct, frozen=True):
    """A moment, and the first transaction id that was not given out by then."""

    at: str
    """By the server's clock."""
    next: int


class LeafReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was read of one relation: row versions from `start` on, but those of `ahead`."""

    oid: int
    start: int = 0
    """0: everything visible."""
    ahead: tuple[int, ...] | None = ()
    """Ids emitted before, delta-coded (`deltas`); None where they are the reading's `before`."""
    bounded: bool = False
    """Rows before the reading's bound were not looked at."""


class Reading(msgspec.Struct, frozen=True):
    """One pass over all relations of a table under one snapshot."""

    leaves: tuple[LeafReading, ...]
    columns: tuple[str, ...]
    """The timestamp columns of the bound; empty where every row was looked at."""
    bound: str | None
    """Of the leaves that are `bounded`: rows with all of the columns before it were not looked at."""
    below: bool
    """Only row versions below the horizon were read: by chunks, or as there were too many ids above it to remember."""
    strategy: str
    """Why it was read this way."""
    database: Database
    oid: int
    """Of the table."""
    horizon: int
    """Of the snapshot: where the next window starts."""
    ahead: tuple[int, ...]
    """Ids at or above the horizon that are emitted by now, delta-coded (`deltas`)."""
    read_at: str
    """When the snapshot was taken, by the server's clock; of a standby, when the last commit was that it shows."""
    timestamp: str | None
    """The watermark after it: the latest timestamp ingested on this timeline, None where there is none."""
    next_bound: str | None
    """The bound of the next window."""
    numbers: tuple[int, ...] = ()
    """Of the columns of the bound, within the table."""
    began: str | None = None
    """A moment before which no transaction id at or above the horizon was given out, by the server's clock."""
    moment: Moment | None = None
    """A later one, which takes its place once the horizon has passed its id."""
    partitions: str | None = None
    """Fingerprint of the document that names the relations of a partitioned table."""
    times: tuple[str, ...] = ()
    """The timestamp columns that the watermark and the next bound tell of."""
    wal_position: str | None = None
    """All that the snapshot saw is before it in the write-ahead log."""
    standby: bool = False
    """A standby has answered."""
    files: str = ""
    """Fingerprint of the files of its relations, which a rewrite changes."""
    before: tuple[int, ...] = ()
    """Ids that were emitted before it of most relations, of which there may be thousands, delta-coded."""

    def ahead_of(self, leaf: LeafReading) -> tuple[int, ...]:
        """Return the ids that were emitted of a relation before, delta-coded."""
        return self.before if leaf.ahead is None else leaf.ahead


def deltas(xids: Iterable[int]) -> tuple[int, ...]:
    """Return distinct transaction ids as the first one and the distances from each to the next."""
    ordered = sorted(set(xids))
    return (*ordered[:1], *(b - a for a, b in pairwise(ordered)))


def undelta(coded: Iterable[int]) -> tuple[int, ...]:
    """Return what `deltas` took, in order."""
    return tuple(accumulate(coded))
