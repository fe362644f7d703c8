"""Lines of an older schema document, written as the table would write them now: columns by their numbers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

import msgspec
from msgspec.structs import replace

from tidelog.rows import raw_values
from tidelog.schema import ColumnDocument, SchemaDocument


class Step(msgspec.Struct, frozen=True):
    """A change of a table's document.

    Attributes:
        document: what it became.
        outdated: what of lines of before the event has called outdated.
        filled: columns that rows of before are known to have a value in.
    """

    document: SchemaDocument
    outdated: str = ""
    filled: Collection[str] = ()


class Shape(msgspec.Struct, frozen=True):
    """How lines of some segments are read.

    Attributes:
        columns: of a line of now, the text before each value, and the name that the column had; None where the lines
            have no such column. None in place of all where the lines are as they would be now.
        key: the names of the key's columns; None where the lines have not all of them.
        sure: whether the result is what the table says now. If not, the lines are outdated.
    """

    columns: tuple[tuple[bytes, str | None], ...] | None
    key: tuple[str, ...] | None
    sure: bool

    def line(self, line: bytes) -> bytes:
        """Return a line as it would be now.

        Raises:
            msgspec.DecodeError: it is not a JSON object.
        """
        if self.columns is None:
            return line
        values = raw_values(line)
        null = b"null"
        parts = [begin + bytes(values.get(name, null)) if name else begin + null for begin, name in self.columns]
        return b"".join(parts) + b"}" if parts else b"{}"


def shape(document: SchemaDocument, steps: Iterable[Step], now: SchemaDocument) -> Shape:
    """Return how lines of a document are read.

    Args:
        document: theirs.
        steps: what it has become, in order, up to what it is now.
        now: what it is now, with the key that counts.
    """
    unsure: set[int | str] = set()
    at = document
    for step in steps:
        unsure = {identity for identity in unsure if identity in map(_identity, step.document.columns)}
        unsure |= set(_unsure(at, step))
        at = step.document
    was = {_identity(column): column.name for column in document.columns}
    names = [was.get(_identity(column)) for column in now.columns]
    begins = [_begin(number, column.name) for number, column in enumerate(now.columns)]
    same = names == [column.name for column in now.columns] == [column.name for column in document.columns]
    known = dict(zip((column.name for column in now.columns), names, strict=True))
    return Shape(
        columns=None if same else tuple(zip(begins, names, strict=True)),
        key=now.key if all(known[name] for name in now.key) else None,
        sure=not unsure,
    )


def _begin(number: int, name: str) -> bytes:
    return f"{',' if number else '{'}{json.dumps(name, ensure_ascii=False)}:".encode()


def _unsure(older: SchemaDocument, step: Step) -> Iterable[int | str]:
    """Yield the columns whose values rows of before may have otherwise than their lines say."""
    was = {_identity(column): column for column in older.columns}
    for column in step.document.columns:
        before = was.get(_identity(column))
        if before is None:
            given = column.default is not None or column.generated or column.name in (*step.filled, *older.excluded)
            if given or f"column {column.name} was added" in step.outdated:
                yield _identity(column)
        elif _reads_otherwise(column, before):
            yield _identity(column)


def _reads_otherwise(column: ColumnDocument, before: ColumnDocument) -> bool:
    new, old = (
        SchemaDocument("", (each,), ()) for each in (column, replace(before, name=column.name))
    )  # a name alone changes no value
    return bool(new.compare(old).outdated)


def _identity(column: ColumnDocument) -> int | str:
    return column.number or column.name
