"""The latest row of every key, found by DuckDB on disk and written to one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from tidelog.errors import InvalidSetting, UnreadableData
from tidelog.quoting import identifier, literal
from tidelog.read import LakeTable, never_null
from tidelog.rows import raw_values
from tidelog.schema import ColumnDocument, SchemaDocument
from tidelog.stored import Stored
from tidelog_cli.carried import Carried, carried
from tidelog_cli.output import counted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = ("parquet", "csv", "jsonl")
Told = Callable[[int, int, str], object]
"""Is told what is done, what there is in all, and what is being done."""

_BATCH_BYTES = 64 * 2**20
_ROWS = 10_000
_LEAST_OBJECT = 2**20
_QUOTE, _NESTED = ord('"'), frozenset(b"[{")
_Line = Mapping[str, msgspec.Raw]
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Written:
    """A column as it stands in the file."""

    name: str
    type: str
    """PostgreSQL's."""
    written_as: str
    remark: str = ""
    """Why it is text, where it is and the type says otherwise."""


@dataclass(frozen=True, slots=True)
class Export:
    """What came of it."""

    rows: int
    lines: int
    """That were read."""
    keyless: int
    """Lines of before there was this key, left out: rows that are still there have newer versions."""
    segments: int
    bytes: int
    """Of the file."""
    columns: tuple[Written, ...]


def export(table: LakeTable, to: Path, form: Format, key: Sequence[str], *, megabytes: int, tell: Told) -> Export:
    """Write the latest row of every key to a file, which appears when it is complete.

    Numbers never pass through a float. In CSV and JSON Lines each value is what the lake has; in Parquet it has the
    type of its column where that carries every value exactly, and else it is the text.

    Args:
        table: the table.
        to: the file.
        form: its format.
        key: the columns that tell rows apart; empty for the primary key.
        megabytes: memory that DuckDB may take; beyond it takes the disk, beside the file.
        tell: is told how far it is, in bytes read.

    Raises:
        InvalidSetting: the table has no primary key and none is named, or no columns; or nothing can be written there.
        UnknownColumn: there is no such column.
        UnreadableData, AccessDenied, StoreUnreachable: as they say.
    """
    import duckdb  # noqa: PLC0415 - it takes long to load

    document, segments = table.described()
    columns = table.key(document, key)
    if not document.columns:
        raise InvalidSetting("write", table.name, "it has no columns")
    with _scratch(to) as folder:
        place = Path(folder)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{megabytes}MiB",
            "temp_directory": str(place / "spilled"),
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        with duckdb.connect(place / "latest.duckdb", config=settings) as database:
            loading = _Loading(database, place / "batch.jsonl", document, form)
            loading.load(segments, columns, keyed=not key, tell=tell)
            tell(0, 0, "finding the latest versions")
            database.execute("CREATE TABLE latest AS SELECT max(n) AS n FROM lines GROUP BY k")
            database.execute("CREATE VIEW kept AS SELECT lines.* FROM lines SEMI JOIN latest USING (n)")
            tell(0, 0, f"writing {to.name}")
            whole = place / "whole"
            rows, written = _WRITERS[form](database, document.columns, whole)
            size = whole.stat().st_size
            whole.replace(to)
    return Export(rows, loading.lines, loading.keyless, len(segments), size, written)


def _scratch(to: Path) -> TemporaryDirectory[str]:
    """Make a folder beside a file, which takes its name when it is complete."""
    try:
        return TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent)
    except OSError as error:
        raise InvalidSetting(
            "write", to, f"{error.strerror}", "Name a file in a folder that you may write to"
        ) from error


class _Loading:
    """Lines on their way into DuckDB, each value as its text: DuckDB's own reader takes numbers for floats."""

    def __init__(self, database: DuckDBPyConnection, batch: Path, document: SchemaDocument, form: Format) -> None:
        columns = document.columns
        self._document = document
        self._database = database
        self._batch = batch
        self._whole = form == "jsonl"
        self._columns = [column.name for column in columns]
        self._json = [column.type in ("json", "jsonb") for column in columns]
        self._names = ["line"] if self._whole else [f"c{number}" for number in range(len(columns))]
        self._longest = 0
        self.lines = 0
        self.keyless = 0
        kinds = ", ".join(f"{name} VARCHAR" for name in self._names)
        database.execute(f"CREATE TABLE lines (n BIGINT, k VARCHAR, {kinds})")

    def load(
        self, segments: Sequence[tuple[Stored, Mapping[str, str]]], key: Sequence[str], *, keyed: bool, tell: Told
    ) -> None:
        """Load every line, numbered in the order of positions."""
        total, done = sum(segment.size for segment, _ in segments), 0
        file: BinaryIO = self._batch.open("wb")
        try:
            for segment, names in segments:
                for line in self._lines(segment, names, key, keyed=keyed):
                    file.write(line)
                    self._longest = max(self._longest, len(line))
                    if file.tell() >= _BATCH_BYTES:
                        file = self._take(file)
                done += segment.size
                tell(done, total, counted(self.lines, "line"))
            file = self._take(file)
        finally:
            file.close()

    def _lines(self, segment: Stored, names: Mapping[str, str], key: Sequence[str], *, keyed: bool) -> Iterator[bytes]:
        sources = [names.get(column) for column in self._columns]
        keys = [names.get(column) for column in key]
        wanted = [
            (was, b'"%b":' % name.encode(), is_json)
            for name, was, is_json in zip(self._names, sources, self._json, strict=False)
            if was is not None
        ]
        never = [key.index(column) for column in never_null(self._document, key, names)] if keyed else []
        plain = all(names.get(column) == column for column in self._columns) and len(names) == len(self._columns)
        for line in segment.lines():
            self.lines += 1
            try:
                row = raw_values(line)
            except msgspec.DecodeError as error:
                raise UnreadableData("read", segment.key, "a line of it is not JSON") from error
            identity = [_identity(row.get(name)) if name is not None else b"null" for name in keys]
            if any(identity[number] == b"null" for number in never):
                self.keyless += 1
                continue
            head = b'{"n":%d,"k":%b,' % (self.lines, _encode(b",".join(identity).decode()))
            if self._whole:
                whole = line if plain and len(row) == len(sources) else self._renamed(row, sources)
                yield b'%b"line":%b}\n' % (head, _encode(whole.decode()))
            else:
                values = [prefix + _text(row[was], is_json=is_json) for was, prefix, is_json in wanted if was in row]
                yield b"%b%b}\n" % (head, b",".join(values) or b'"c0":null')

    def _renamed(self, row: _Line, sources: Sequence[str | None]) -> bytes:
        values = (bytes(row[was]) if was is not None and was in row else b"null" for was in sources)
        return b"{%b}" % b",".join(
            b"%b:%b" % (_encode(name), value) for name, value in zip(self._columns, values, strict=True)
        )

    def _take(self, file: BinaryIO) -> BinaryIO:
        """Have DuckDB take what is written so far; return the file, empty again."""
        file.close()
        if self._longest:
            types = ", ".join(f"{name}: 'VARCHAR'" for name in ("k", *self._names))
            largest = max(_LEAST_OBJECT, 2 * self._longest)
            self._database.execute(
                f"INSERT INTO lines SELECT n, k, {', '.join(self._names)} FROM read_json({literal(str(self._batch))}, "
                f"format = 'newline_delimited', compression = 'none', maximum_object_size = {largest}, "
                f"columns = {{n: 'BIGINT', {types}}})"
            )
        self._longest = 0
        return self._batch.open("wb")


def _identity(value: msgspec.Raw | None) -> bytes:
    """Return what is the same for values that are: of numbers, zeros at the end mean nothing."""
    if value is None:
        return b"null"
    text = bytes(value)
    if text[:1] in b"-0123456789" and b"." in text and b"e" not in text:
        text = text.rstrip(b"0").rstrip(b".")
    return b"0" if text == b"-0" else text


def _text(value: msgspec.Raw, *, is_json: bool) -> bytes:
    """Return the text of a JSON value as a JSON string; null stays null."""
    raw = bytes(value)
    first = raw[0]
    if first in _NESTED or (first == _QUOTE and is_json):
        return _encode(raw.decode())
    return raw if first == _QUOTE or raw == b"null" else b'"%b"' % raw


def _write_parquet(
    database: DuckDBPyConnection, columns: Sequence[ColumnDocument], to: Path
) -> tuple[int, tuple[Written, ...]]:
    ways = [carried(column.type) for column in columns]
    misfits = _misfits(database, ways)
    written, values = [], []
    for number, (column, way, bad) in enumerate(zip(columns, ways, misfits, strict=True)):
        if way is None or bad:
            reason = f"{bad:,} values do not fit {way.type}" if way else f"nothing carries {column.type} exactly"
            written.append(Written(column.name, column.type, "VARCHAR", reason.replace("1 values do", "1 value does")))
            values.append(f"c{number}")
        else:
            written.append(Written(column.name, column.type, way.type))
            values.append(way.value(f"c{number}"))
    names = distinct([column.name for column in columns])
    fields = ", ".join(f"{value} AS {identifier(name)}" for value, name in zip(values, names, strict=True))
    copied = database.execute(f"COPY (SELECT {fields} FROM kept) TO {literal(str(to))} (FORMAT parquet)").fetchall()
    renamed = [
        w if w.name == name else Written(name, w.type, w.written_as, w.remark or f"{w.name} differs in case only")
        for w, name in zip(written, names, strict=True)
    ]
    return copied[0][0], tuple(renamed)


def distinct(names: Sequence[str]) -> list[str]:
    """Return names of which no two differ in case only, as most engines take those for one."""
    taken: set[str] = set()
    found = []
    for name in names:
        unique, number = name, 1
        while unique.lower() in taken or (unique != name and unique in names):
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.lower())
        found.append(unique)
    return found


def _misfits(database: DuckDBPyConnection, ways: Sequence[Carried | None]) -> list[int]:
    """Count, of each column, the values that its type does not carry exactly."""
    counts = [
        f"count(*) FILTER (c{number} IS NOT NULL AND NOT coalesce({way.fits(f'c{number}')}, false))" if way else "0"
        for number, way in enumerate(ways)
    ]
    [found] = database.execute(f"SELECT {', '.join(counts)} FROM kept").fetchall()
    return list(found)


def _write_csv(
    database: DuckDBPyConnection, columns: Sequence[ColumnDocument], to: Path
) -> tuple[int, tuple[Written, ...]]:
    """As PostgreSQL's COPY reads it: what is quoted is a value, what is empty and not quoted is NULL."""
    fields = [f"""coalesce('"' || replace(c{number}, '"', '""') || '"', '')""" for number in range(len(columns))]
    header = ",".join('"' + column.name.replace('"', '""') + '"' for column in columns)
    with to.open("wb") as file:
        file.write(header.encode() + b"\n")
        rows = _write_lines(database, f"concat_ws(',', {', '.join(fields)})", file)
    return rows, _as_text(columns, "text")


def _write_jsonl(
    database: DuckDBPyConnection, columns: Sequence[ColumnDocument], to: Path
) -> tuple[int, tuple[Written, ...]]:
    with to.open("wb") as file:
        rows = _write_lines(database, "line", file)
    return rows, _as_text(columns, "JSON")


def _write_lines(database: DuckDBPyConnection, line: str, file: BinaryIO) -> int:
    count = 0
    result = database.execute(f"SELECT {line} FROM kept")
    while rows := result.fetchmany(_ROWS):
        file.write("".join(f"{text}\n" for (text,) in rows).encode())
        count += len(rows)
    return count


def _as_text(columns: Sequence[ColumnDocument], what: str) -> tuple[Written, ...]:
    return tuple(Written(column.name, column.type, what) for column in columns)


_WRITERS = {"parquet": _write_parquet, "csv": _write_csv, "jsonl": _write_jsonl}
