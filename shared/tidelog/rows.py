"""Rows as dictionaries, from and to JSON lines, without losing a digit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tidelog import timestamps
from tidelog.errors import UnknownColumn

Row = Mapping[str, Any]
"""Column headings to values: None, bool, int, Decimal, str, list or dict. What JSON can't say otherwise is text."""

_INT_DIGITS = 4300  # Python refuses longer ones: sys.int_info.default_max_str_digits
_encoder = msgspec.json.Encoder(decimal_format="number")
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]')


def decode_lines(blocks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the rows of JSON lines that come in blocks of any size."""
    rest = b""
    for block in blocks:
        # Only a newline ends a line: JSON text may hold other characters that Python's splitlines() takes for one.
        *lines, rest = (rest + block).split(b"\n")
        yield from map(decode_line, lines)
    if rest:
        yield decode_line(rest)


def decode_line(line: bytes) -> dict[str, Any]:
    """Return the row of one JSON line; numbers with a fraction or an exponent become Decimal."""
    row: dict[str, Any] = json.loads(line, parse_float=Decimal, parse_int=_integer)
    return row


def raw_values(line: bytes) -> Mapping[str, msgspec.Raw]:
    """Return the values of a JSON line as they stand there, by column heading.

    Raises:
        msgspec.DecodeError: it is not a JSON object.
    """
    try:
        return _raw.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return _split(line)  # A json column may hold half of a surrogate pair, and thousands of brackets in brackets.


def _split(line: bytes) -> Mapping[str, msgspec.Raw]:
    try:
        if not isinstance(json.loads(line), dict):
            raise msgspec.ValidationError("it is not an object")
    except RecursionError:
        pass
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error
    values, heading, begin, depth = dict[str, msgspec.Raw](), b"", 0, 0
    for found in _MARKS.finditer(line):
        mark = found[0][:1]
        if depth == 1:
            if mark == b'"' and not begin:
                heading = found[0]
            elif mark == b":":
                begin = found.end()
            elif mark in b",}" and begin:
                values[json.loads(heading)] = msgspec.Raw(line[begin : found.start()])
                begin = 0
        depth += (mark in b"[{") - (mark in b"]}")
    return values


def encode_row(row: Row) -> bytes:
    """Return a row as a JSON line, its newline included."""
    return _encoder.encode(dict(row)) + b"\n"


def latest_timestamp(rows: Iterable[Row]) -> str | None:
    """Return the latest timestamp of when any of the rows was created or updated.

    Returns:
        The text as it stands in the row; None where there is no row or none has a timestamp.

    Raises:
        UnknownColumn: (a KeyError) a row has no column that says when it was created or updated.
        ValueError: such a column holds something else.
    """
    return timestamps.latest(text for row in rows for text in _timestamps(row))


def _timestamps(row: Row) -> list[str | None]:
    columns = [column for column in row if timestamps.role(column)]
    if not columns:
        hint = "It needs a column such as created_at or last_updated"
        raise UnknownColumn("find the latest timestamp of", "the rows", f"there is none among {', '.join(row)}", hint)
    return [row[column] for column in columns]


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INT_DIGITS else Decimal(digits)
