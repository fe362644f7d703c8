"""The layout of the lake: which object lies where, and why names sort by position.

    data/<schema>.<table>/dt=2026-11-23/<timeline>-<horizon>-i<sequential id>.jsonl.gz   an increment
    data/<schema>.<table>/dt=2026-11-23/<timeline>-<horizon>-b<plan>-<chunk>.jsonl.gz    a snapshot or backfill chunk
    ledger/<schema>.<table>/<offset>.json                                                 an event
    schema/<schema>.<table>/<fingerprint>.json                                            a schema document
    schema/<schema>.<table>/partitions-<fingerprint>.json                                 its partitions at some time

Numbers are padded with zeros and `b` sorts before `i`, so the last parts of a table's segment names sort as their
positions do: of two versions of a row, the one in the segment that sorts later is the same or newer.
"""

from __future__ import annotations

import re

import msgspec

from tidelog.tables import TableName

_SEGMENT = re.compile(
    r"data/(?P<table>[^/]+)/dt=(?P<day>\d{4}-\d\d-\d\d)/(?P<timeline>\d{6})-(?P<horizon>\d{20})-"
    r"(?:i(?P<sequential_id>\d{12})|b(?P<plan>\d{12})-(?P<chunk>\d{9}))\.jsonl\.gz"
)
_EVENT = re.compile(r"ledger/(?P<table>[^/]+)/(?P<offset>\d{12})\.json")


class Position(msgspec.Struct, frozen=True, order=True):
    """Where a segment stands among those of its table.

    A backfill (`increment` false) emits only what was there under its horizon, so it comes before the increment of the
    same horizon.
    """

    timeline: int
    horizon: int
    increment: bool
    number: int
    """Sequential id of an increment, plan of a chunk."""
    chunk: int = 0

    def __str__(self) -> str:
        kind = f"i{self.number:012}" if self.increment else f"b{self.number:012}-{self.chunk:09}"
        return f"{self.timeline:06}-{self.horizon:020}-{kind}"


def segment_key(table: TableName, day: str, position: Position) -> str:
    """Return the key of a segment; `day` is the UTC date of the run, such as 2026-11-23."""
    return f"data/{table.path}/dt={day}/{position}.jsonl.gz"


def read_segment_key(key: str) -> tuple[TableName, Position]:
    """Read what `segment_key` wrote.

    Raises:
        ValueError: the key is not a segment's.
    """
    found = _SEGMENT.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is not the key of a segment")
    number = found["sequential_id"] or found["plan"]
    return TableName.from_path(found["table"]), Position(
        timeline=int(found["timeline"]),
        horizon=int(found["horizon"]),
        increment=found["sequential_id"] is not None,
        number=int(number),
        chunk=int(found["chunk"] or 0),
    )


def event_key(table: TableName, offset: int) -> str:
    """Return the key of an event."""
    return f"{ledger_prefix(table)}{offset:012}.json"


def read_event_key(key: str) -> tuple[TableName, int]:
    """Read what `event_key` wrote.

    Raises:
        ValueError: the key is not an event's.
    """
    found = _EVENT.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is not the key of an event")
    return TableName.from_path(found["table"]), int(found["offset"])


def ledger_prefix(table: TableName) -> str:
    """Return what the keys of a table's events begin with."""
    return f"ledger/{table.path}/"


def schema_key(table: TableName, fingerprint: str) -> str:
    """Return the key of a schema document."""
    return f"schema/{table.path}/{fingerprint}.json"


def schema_prefix(table: TableName) -> str:
    """Return what the keys of a table's schema documents, and of its partitions', begin with."""
    return f"schema/{table.path}/"


def data_prefix(table: TableName) -> str:
    """Return what the keys of a table's segments begin with."""
    return f"data/{table.path}/"
