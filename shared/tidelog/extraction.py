"""The steps of an ingestion as plain functions, for programs that put them together themselves.

They stand on the same parts as the worker: state in Parameter Store, rows from the same COPY, segments committed
through the ledger. By default the parts are built from the environment that the worker has; `using` passes others.

A table is named `schema.table`, as everywhere. Errors are those of `tidelog.errors`: an unknown table or column is a
KeyError, a database or store that can't be reached a ConnectionError, a sequential id that was used a FileExistsError.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from typing import Any, overload

import msgspec

from tidelog import timestamps
from tidelog.errors import SegmentExists, SequenceBroken, UnknownColumn, UnknownTable
from tidelog.events import Supplied
from tidelog.lake import Position, segment_key
from tidelog.ledger import OffsetTakenError
from tidelog.parameters import Summary
from tidelog.parts import Parts
from tidelog.pipeline import build_parts
from tidelog.readings import Segment
from tidelog.rows import Row, decode_lines, encode_row, latest_timestamp
from tidelog.settings import read_worker_settings
from tidelog.state import State
from tidelog.tables import TableName
from tidelog.windows import Bound, Window

__all__ = [
    "collect_rows",
    "latest_timestamp",
    "read_sequential_id",
    "read_timestamps",
    "write_rows",
    "write_sequential_id",
    "write_timestamps",
]

_SECONDS = 840
"""The longest that one statement may take: what a function's 15 minutes leave."""


@overload
def read_timestamps(table: None = None, *, using: Parts | None = None) -> dict[str, str | None]: ...
@overload
def read_timestamps(table: str, *, using: Parts | None = None) -> str | None: ...
def read_timestamps(table: str | None = None, *, using: Parts | None = None) -> dict[str, str | None] | str | None:
    """Return the latest ingested timestamp of one table, or of every table as a dictionary.

    A table without timestamp columns has None. The text is the database's own.

    Raises:
        UnknownTable: (a KeyError) nothing was ever ingested of the table.
        StoreUnreachable: (a ConnectionError) Parameter Store could not be reached.
    """
    parameters = (using or _parts()).parameters
    if table is None:
        return {str(name): summary.timestamp for name, summary in parameters.read_all() if not summary.is_blank}
    return _known(using, _name(table)).timestamp


def write_timestamps(latest: Mapping[str, str | None], *, using: Parts | None = None) -> None:
    """Write the latest ingested timestamp of each table in a dictionary.

    They are what `read_timestamps` returns. The worker's own window hangs on the ledger, not on them.

    Raises:
        ValueError: a value is not a timestamp in ISO 8601; nothing is written.
        StoreUnreachable: (a ConnectionError) Parameter Store could not be reached.
    """
    parameters = (using or _parts()).parameters
    for text in latest.values():
        if text is not None:
            timestamps.order(text)
    for table, text in latest.items():
        name = _name(table)
        summary = parameters.read(name)
        known = Summary() if summary is None or summary.is_blank else summary
        parameters.write(name, msgspec.structs.replace(known, timestamp=text))


def collect_rows(table: str, timestamp: str | None, *, using: Parts | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table created or updated after a timestamp, as dictionaries keyed by column headings.

    They stream: memory does not grow with the table, which stays open until the iterator is used up or closed. Columns
    that the configuration excludes are not among them.

    Args:
        table: the table.
        timestamp: rows later than it; None yields every row.
        using: the parts to work with.

    Raises:
        UnknownTable: (a KeyError) there is no such table.
        UnknownColumn: (a KeyError) it has no column that says when a row was created or updated.
        ValueError: the timestamp is not one.
        DatabaseUnreachable: (a ConnectionError) as it says.
    """
    if timestamp is not None:
        timestamps.order(timestamp)
    blocks = _collect(using or _parts(), _name(table), timestamp)
    next(blocks)  # opens the table, so that what is wrong with it is raised here
    return decode_lines(blocks)


def _collect(parts: Parts, table: TableName, timestamp: str | None) -> Iterator[bytes]:
    parts.configurations.follow()
    with parts.source.open(table, seconds=_SECONDS) as opened:
        columns = opened.table.timestamp_columns
        if timestamp is not None and not columns:
            raise UnknownColumn("read", table, "it has no timestamp column", "Pass None to read every row")
        window = Window() if timestamp is None else Window(bound=Bound(columns, timestamp, exclusive=True))
        yield b""
        for leaf in opened.table.leaves:
            with closing(opened.lines(leaf, window)) as blocks:
                yield from blocks


def write_rows(
    table: str, timestamp: str | None, rows: Iterable[Row], sequential_id: int, *, using: Parts | None = None
) -> None:
    """Write rows of a table to S3 as its increment of some sequential id.

    The segment is committed through the ledger like the worker's own. Parameter Store is left to `write_timestamps` and
    `write_sequential_id`.

    Args:
        table: the table.
        timestamp: the latest timestamp ingested once they are written.
        rows: the rows; they are streamed.
        sequential_id: one greater than that of the table's last increment.
        using: the parts to work with.

    Raises:
        SegmentExists: (a FileExistsError) the sequential id was used before.
        SequenceBroken: (a ValueError) a sequential id was left out.
        StoreUnreachable: (a ConnectionError) S3 could not be reached.
    """
    parts, name = using or _parts(), _name(table)
    if timestamp is not None:
        timestamps.order(timestamp)
    state = _state(parts, name)
    _check_sequence(name, state, sequential_id)
    segment = _prepare(parts, name, state, rows, sequential_id)
    while True:
        try:
            parts.ledger.append(name, state, Supplied(segment, sequential_id, timestamp), finished=0)
            break
        except OffsetTakenError:
            state = _state(parts, name)
            try:
                _check_sequence(name, state, sequential_id)
            except SegmentExists:
                parts.segments.abort(segment)
                raise
    parts.segments.publish(segment)


def _prepare(parts: Parts, table: TableName, state: State, rows: Iterable[Row], sequential_id: int) -> Segment:
    schema = state.schema
    if schema is None:
        parts.configurations.follow()
        with parts.source.open(table, seconds=_SECONDS) as opened:
            document = opened.table.document()
        parts.segments.describe(table, document)
        schema = document.fingerprint
    position = Position(state.timeline, state.horizon, increment=True, number=sequential_id)
    with parts.segments.prepare(segment_key(table, datetime.now(UTC).strftime("%Y-%m-%d"), position)) as upload:
        count = 0
        for row in rows:
            upload.write(encode_row(row))
            count += 1
        return upload.finish(schema, count)


def read_sequential_id(table: str, *, using: Parts | None = None) -> int:
    """Return the sequential id of a table's last increment, 0 before the first.

    Raises:
        UnknownTable: (a KeyError) nothing was ever ingested of the table.
        StoreUnreachable: (a ConnectionError) Parameter Store could not be reached.
    """
    return _known(using, _name(table)).sequential_id


def write_sequential_id(table: str, sequential_id: int, *, using: Parts | None = None) -> None:
    """Write the sequential id of a table's last increment.

    Raises:
        UnknownTable: (a KeyError) nothing was ever ingested of the table.
        SequenceBroken: (a ValueError) it is not one greater than the previous.
        StoreUnreachable: (a ConnectionError) Parameter Store could not be reached.
    """
    name = _name(table)
    summary = _known(using, name)
    if sequential_id != summary.sequential_id + 1:
        raise _broken(name, sequential_id, summary.sequential_id)
    (using or _parts()).parameters.write(name, msgspec.structs.replace(summary, sequential_id=sequential_id))


@cache
def _parts() -> Parts:
    return build_parts(read_worker_settings(os.environ))


def _name(table: str) -> TableName:
    try:
        return TableName.parse(table)
    except ValueError as error:
        raise UnknownTable("find", table, str(error)) from error


def _known(using: Parts | None, table: TableName) -> Summary:
    summary = (using or _parts()).parameters.read(table)
    if summary is None or summary.is_blank:
        raise UnknownTable("read the state of", table, "nothing was ever ingested of it", "Check its name")
    return summary


def _state(parts: Parts, table: TableName) -> State:
    head = parts.ledger.head(table)
    return head.state if head else State()


def _check_sequence(table: TableName, state: State, sequential_id: int) -> None:
    if 1 <= sequential_id <= state.sequential_id:
        hint = f"The next is {state.sequential_id + 1}"
        raise SegmentExists("write", table, f"sequential id {sequential_id} was used before", hint)
    if sequential_id != state.sequential_id + 1:
        raise _broken(table, sequential_id, state.sequential_id)


def _broken(table: TableName, given: int, previous: int) -> SequenceBroken:
    hint = f"The next is {previous + 1}"
    return SequenceBroken("write", table, f"sequential id {given} does not follow on {previous}", hint)
