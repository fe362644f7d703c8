"""Tables: their names, what the catalog says of them, and which of them are taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import msgspec

from tidelog import timestamps
from tidelog.errors import NotIngestible
from tidelog.partitions import Partitions
from tidelog.quoting import identifier
from tidelog.schema import ColumnDocument, SchemaDocument, fingerprint_of

_TIMESTAMP_TYPES = {1082: "date", 1114: "timestamp", 1184: "timestamptz"}
_PLAIN = re.compile(r"[^\W\d][\w$-]*")
_WIDTH = 128.0  # of a row, where nobody knows better
_NAME_BYTES = 63  # NAMEDATALEN, less the zero at its end
_PART = r'(?:"((?:[^"]|"")+)"|([^".]+))'
_NAME = re.compile(rf"{_PART}\.{_PART}")


class TableName(msgspec.Struct, frozen=True, order=True):
    """A schema and a table, exactly as the database stores them."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Read `schema.table`; a part with a dot, a quote or a space stands in double quotes, as in SQL.

        A part without quotes is taken as it is: unlike SQL, no case is folded.

        Raises:
            ValueError: the text has not exactly two parts, or one that no database could have for a name.
        """
        found = _NAME.fullmatch(text)
        quoted, plain = (found.group(1, 3), found.group(2, 4)) if found else ((), ())
        parts = [q.replace('""', '"') if q else p for q, p in zip(quoted, plain, strict=True)]
        if not parts or not all(map(_storable, parts)):
            raise ValueError(f"{text[:200]!r} is not a table name: write schema.table, such as public.orders")
        return cls(*parts)

    @property
    def sql(self) -> str:
        """The name as SQL, always quoted."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    @property
    def path(self) -> str:
        """The name as one part of an object key: all but letters, digits, `_` and `-` is percent-encoded.

        Letters of any script stay as they are, so the longest names still fit a file name.
        """
        return ".".join(_percent(part) for part in (self.schema, self.name))

    @classmethod
    def from_path(cls, path: str) -> TableName:
        """Read what `path` wrote."""
        schema, _, name = path.partition(".")
        return cls(unquote(schema), unquote(name))

    def __str__(self) -> str:
        return ".".join(
            part if _PLAIN.fullmatch(part) else '"' + part.replace('"', '""') + '"' for part in (self.schema, self.name)
        )


def _storable(part: str) -> bool:
    """Say whether PostgreSQL could have a name: a longer one it would cut off, and mean another table."""
    try:
        data = part.encode()
    except UnicodeEncodeError:
        return False
    return b"\0" not in data and len(data) <= _NAME_BYTES


def _percent(part: str) -> str:
    # Not urllib's quote: it leaves dots and tildes as they are.
    return "".join(c if c.isalnum() or c in "_-" else "".join(f"%{b:02X}" for b in c.encode()) for c in part)


class Field(msgspec.Struct, frozen=True):
    """A named part of a composite type."""

    name: str
    type: int
    number: int = 0


class Type(msgspec.Struct, frozen=True):
    """A type as far as its way into JSON depends on it; types refer to each other by oid."""

    oid: int
    name: str
    kind: str
    """`typtype`: b base, c composite, d domain, e enum, r range, m multirange, p pseudo."""
    base: int = 0
    """Of a domain, a range or a multirange: what it is over."""
    element: int = 0
    """Of an array: what it holds."""
    fields: tuple[Field, ...] = ()
    labels: tuple[str, ...] = ()
    default: str | None = None
    """Of columns that have none of their own."""
    json_cast: bool = False
    """A user's own cast to json exists, so `to_json` gives something that can't be read back."""


class Column(msgspec.Struct, frozen=True):
    """A column of a table."""

    name: str
    type: int
    type_name: str
    not_null: bool = False
    default: str | None = None
    """The expression of its default, or of what it is generated as."""
    generated: str = ""
    """"" , "s" (stored) or "v" (virtual)."""
    number: int = 0
    """Stays when it is renamed (`attnum`)."""


class Leaf(msgspec.Struct, frozen=True):
    """A relation that holds rows: a table itself, or a partition without partitions of its own."""

    oid: int
    schema: str
    name: str
    kind: str
    bytes: int
    locked: bool
    indexed: tuple[str, ...] = ()
    """The columns that lead a valid, whole btree or BRIN index."""
    filenode: int = 0
    """Of its file, which a rewrite changes."""
    pages: int = 0
    size: int = 0
    """Bytes on disk, those of large values kept apart included."""
    rows: int = -1
    """As the planner estimates; -1 where it was never analyzed."""
    filled: bool = False
    """It has a column that was added with a value for the rows that were there."""
    dropped: int | None = None
    """How many transactions ago a column of it was dropped last; None where none ever was."""

    @property
    def width(self) -> float:
        """Bytes on disk of a row, roughly."""
        return self.size / self.rows if self.rows > 0 else _WIDTH

    @property
    def table_name(self) -> TableName:
        """Its name."""
        return TableName(self.schema, self.name)


class Table(msgspec.Struct, frozen=True):
    """What the catalog says of one table."""

    oid: int
    schema: str
    name: str
    kind: str
    """`relkind`: r table, p partitioned table, m materialized view."""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """The columns of the primary key, in its order."""
    leaves: tuple[Leaf, ...]
    types: tuple[Type, ...]
    foreign: tuple[str, ...] = ()
    """Names of foreign tables among the partitions."""
    populated: bool = True
    """False for a materialized view that was never refreshed."""
    parents: tuple[str, ...] = ()
    """Names of the tables that it inherits from; that it is a partition of is not meant."""
    filled: tuple[str, ...] = ()
    """Columns that were added with a value for the rows that were there."""
    excluded: tuple[str, ...] = ()
    """Columns that its configuration leaves out."""
    dated_by: tuple[str, ...] | None = None
    """The timestamp columns that its configuration names; None where they are found by name."""
    version: int = 0
    """Major version of the server."""
    edition: str = ""
    """Changes with any catalog row that says what the table is and which relations hold its rows."""

    @property
    def table_name(self) -> TableName:
        """Its name."""
        return TableName(self.schema, self.name)

    @property
    def bytes(self) -> int:
        """Size of the rows on disk, without indexes and large values kept apart."""
        return sum(leaf.bytes for leaf in self.leaves)

    @property
    def size(self) -> int:
        """Size of the rows on disk, with large values kept apart."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def times(self) -> dict[str, str]:
        """Every column of type date, timestamp or timestamptz, whatever its name, and its type."""
        return {c.name: _TIMESTAMP_TYPES[c.type] for c in self.columns if c.type in _TIMESTAMP_TYPES}

    @property
    def files(self) -> str:
        """Fingerprint of the files of its relations, which a rewrite changes."""
        return fingerprint_of(sorted((leaf.oid, leaf.filenode) for leaf in self.leaves))

    def is_indexed(self, column: str) -> bool:
        """Say whether an index is led by a column, in every relation that holds rows."""
        return all(column in leaf.indexed for leaf in self.leaves)

    def numbers_of(self, columns: Iterable[str]) -> tuple[int, ...]:
        """Return the numbers of some columns."""
        numbers = {column.name: column.number for column in self.columns}
        return tuple(numbers[column] for column in columns)

    def gone(self, columns: Iterable[str], numbers: Iterable[int]) -> tuple[str, ...]:
        """Return those of some timestamp columns that are none any more, or are others of the same name."""
        now = {column.name: column.number for column in self.columns if column.name in self.times}
        return tuple(name for name, number in zip(columns, numbers, strict=True) if now.get(name) != number)

    @property
    def timestamp_columns(self) -> tuple[str, ...]:
        """The columns that say when a row was created or updated: by name and type, or as configured."""
        if self.dated_by is not None:
            return self.dated_by
        return tuple(c.name for c in self.columns if c.type in _TIMESTAMP_TYPES and timestamps.role(c.name))

    def document(self) -> SchemaDocument:
        """Return what readers of its segments have to know."""
        types = {kind.oid: kind for kind in self.types}
        return SchemaDocument(
            table=str(self.table_name),
            columns=tuple(
                _described(
                    ColumnDocument(
                        c.name,
                        c.type_name,
                        c.not_null,
                        types[c.type].default if c.default is None else c.default,
                        c.generated,
                        number=c.number,
                    ),
                    c.type,
                    types,
                )
                for c in self.columns
            ),
            key=self.key,
            excluded=self.excluded,
            parents=self.parents,
        )

    @property
    def partitions(self) -> Partitions | None:
        """Which relations hold its rows, if it is partitioned."""
        if self.kind != "p":
            return None
        return Partitions(str(self.table_name), {leaf.oid: str(leaf.table_name) for leaf in self.leaves})


def _described(document: ColumnDocument, oid: int, types: Mapping[int, Type]) -> ColumnDocument:
    """Add the labels and the fields of the type that a column's type is, is over or holds."""
    kind = types[oid]
    while inner := kind.base or kind.element:
        kind = types[inner]
    fields = (
        _described(ColumnDocument(field.name, types[field.type].name, number=field.number), field.type, types)
        for field in kind.fields
    )
    return msgspec.structs.replace(document, labels=kind.labels, fields=tuple(fields))


class Relation(msgspec.Struct, frozen=True):
    """A relation found in the catalog."""

    schema: str
    name: str
    kind: str
    populated: bool = True
    tally: str | None = None
    """What the server has counted of it and of its partitions, where that was asked for (`tallies`)."""

    @property
    def table_name(self) -> TableName:
        """Its name."""
        return TableName(self.schema, self.name)

    @property
    def obstacle(self) -> str | None:
        """Why it can't be ingested, None where it can."""
        return obstacle(self.kind, populated=self.populated)


def obstacle(kind: str, *, populated: bool = True) -> str | None:
    """Say why a relation of some `relkind` can't be ingested, None where it can."""
    if not populated:
        return "a materialized view that was never refreshed"
    if kind in "rpm":
        return None
    kinds = {"v": "a view", "f": "a foreign table", "S": "a sequence", "i": "an index", "I": "an index", "c": "a type"}
    return f"{kinds.get(kind, f'a relation of kind {kind}')}, which has no row versions of its own"


def refuse(subject: TableName, kind: str, *, populated: bool = True) -> None:
    """Do nothing for a relation that can be ingested.

    Raises:
        NotIngestible: it can't.
    """
    if reason := obstacle(kind, populated=populated):
        hint = "Name the tables that it shows rows of" if populated else "Refresh it"
        raise NotIngestible("read", subject, reason, hint)
