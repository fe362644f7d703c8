"""The configuration document: which tables are taken, and how each is read. TOML, read strictly."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from tidelog.errors import InvalidSetting
from tidelog.selection import Left, Selection, canonical, is_pattern, meets
from tidelog.tables import Relation, TableName
from tidelog.tablesettings import Section, TableSettings

LARGEST = 8192
"""Bytes of a document: what an advanced parameter holds."""
_SHOWN = 80
_LONGEST_LOOK_BACK = 7 * 86400
_NAME_BYTES = 63
_EXAMPLE = '[tables."public.orders"]'

Value = tuple[str, ...] | str | int


class Key(msgspec.Struct, frozen=True):
    """A key of the document.

    Attributes:
        value: in words, what it must be.
        fault: says of a value of the right type what is wrong with it; empty if nothing is.
        kind: its type.
    """

    value: str
    fault: Callable[[Any], str]
    kind: type = list


def _fault_of_number(low: int, high: int | None = None) -> Callable[[int], str]:
    return lambda number: "" if low <= number and (high is None or number <= high) else "it is out of range"


def _fault_of_list(fault: Callable[[str], str], *, empty: str = "") -> Callable[[list[Any]], str]:
    """Return what finds a fault in a list; `empty` says why it may not be empty, if it may not."""

    def find(values: list[Any]) -> str:
        if not values:
            return empty
        for number, value in enumerate(values):
            if not isinstance(value, str):
                return f"{_shown(value)} is not text"
            if value in values[:number]:
                return f"{_shown(value)} stands there twice"
            if found := fault(value):
                return f"{_shown(value)} {found}"
        return ""

    return find


def _fault_of_table(text: str) -> str:
    """Say what is wrong with the name of a table, or a pattern; empty if nothing is."""
    if text != text.strip():
        return "has white space around it"
    if text.count('"') % 2:
        return "has a quote that is not closed"
    if "," in "".join(text.split('"')[::2]):
        return "has a comma: write each name as a text of its own"
    if not is_pattern(text):
        try:
            TableName.parse(text)
        except ValueError:
            return "is neither a table name nor a pattern: write schema.table, such as public.orders, or public.*"
    return ""


def _fault_of_column(text: str) -> str:
    size = len(text.encode("utf-8", "replace"))
    return "" if 0 < size <= _NAME_BYTES and "\0" not in text else "can be no column's name"


KEYS: dict[str, Key] = {
    "include": Key("a list of names and patterns", _fault_of_list(_fault_of_table, empty="it takes no table")),
    "exclude": Key("a list of names and patterns", _fault_of_list(_fault_of_table)),
}
"""Those at the top."""

TABLE_KEYS: dict[str, Key] = {
    "exclude_columns": Key("a list of columns", _fault_of_list(_fault_of_column)),
    "timestamp_columns": Key("a list of columns", _fault_of_list(_fault_of_column)),
    "strategy": Key(
        '"timestamp" or "xmin"', lambda text: "" if text in ("timestamp", "xmin") else "it is neither", str
    ),
    "look_back_seconds": Key(
        f"a whole number from 0 to {_LONGEST_LOOK_BACK}", _fault_of_number(0, _LONGEST_LOOK_BACK), int
    ),
    "chunk_megabytes": Key("a whole number from 1 on", _fault_of_number(1), int),
}
"""Those of a section."""


class TableSection(msgspec.Struct, frozen=True):
    """A section: the table or the pattern that it is about, and its keys."""

    pattern: str
    values: Mapping[str, Value]

    @property
    def section(self) -> Section:
        """How it is written, and whether it is about one table."""
        return Section(_header(self.pattern), exact=not is_pattern(self.pattern))


class Configuration(msgspec.Struct, frozen=True):
    """What the document says.

    Attributes:
        lists: `include` and `exclude`, if they are there.
        tables: the sections, of which later ones win key by key.
        version: of the parameter that it stands in; 0 where there is none.
    """

    lists: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    tables: tuple[TableSection, ...] = ()
    version: int = 0

    @classmethod
    def parse(cls, text: str, *, version: int = 0, subject: str = "the configuration") -> Configuration:
        """Read a document.

        Raises:
            InvalidSetting: naming the key, the value and the remedy; or it is larger than `LARGEST`.
        """
        if (size := len(text.encode("utf-8", "surrogatepass"))) > LARGEST:
            reason = f"it has {size:,} bytes, and Parameter Store takes {LARGEST:,}"
            raise InvalidSetting("read", subject, reason, "Let patterns stand for many tables, and leave comments out")
        try:
            data = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            end = f"at the end, line {len(text.splitlines())}"
            reason = str(error).replace("at end of document", end) if isinstance(error, ValueError) else "too deep"
            raise InvalidSetting("read", subject, f"it is not TOML: {reason}", "Mend that line") from error
        try:
            return cls(
                lists={key: _value("", key, value, KEYS) for key, value in data.items() if key != "tables"},
                tables=tuple(_sections(data.get("tables", {}))),
                version=version,
            )
        except _FaultError as fault:
            raise InvalidSetting("read", subject, str(fault)) from None

    def selection(self, default: Selection) -> Selection:
        """Return which tables are taken: as it says, else as the default does."""
        return Selection(self.lists.get("include", default.include), self.lists.get("exclude", default.exclude))

    def table(self, name: TableName) -> TableSettings:
        """Return what it says of a table."""
        values: dict[str, Any] = {}
        sections: dict[str, Section] = {}
        for each in self.tables:
            if meets(str(name), (each.pattern,)):
                values |= each.values
                sections |= dict.fromkeys(each.values, each.section)
        megabytes = values.get("chunk_megabytes")
        return TableSettings(
            exclude_columns=values.get("exclude_columns", ()),
            timestamp_columns=values.get("timestamp_columns"),
            strategy=values.get("strategy"),
            look_back=values.get("look_back_seconds"),
            chunk_bytes=None if megabytes is None else megabytes * 2**20,
            sections=sections,
        )

    def unmet(self, relations: Iterable[Relation]) -> tuple[Left, ...]:
        """Return the tables that have a section of their own and are not there: a name may be misspelt."""
        known = [str(relation.table_name) for relation in relations]
        names = [canonical(each.pattern) for each in self.tables if each.section.exact]
        return tuple(
            Left(name, f"{_header(name)}: no such table{_nearest(name, known)}") for name in names if name not in known
        )

    def difference(self, older: Configuration) -> list[str]:
        """Say line by line how this differs from an older one."""
        was, now = ({(s, k): v for s, k, v in each.entries()} for each in (older, self))
        lines = [
            f"{f'{section} {key}'.strip()}: {_words(was.get((section, key)))} → {_words(now.get((section, key)))}"
            for section, key in dict.fromkeys([*was, *now])
            if was.get((section, key)) != now.get((section, key))
        ]
        common = {each.pattern for each in self.tables} & {each.pattern for each in older.tables}
        before, after = ([s.pattern for s in each.tables if s.pattern in common] for each in (older, self))
        return [*lines, *(["the order of the sections"] if before != after else [])]

    def entries(self) -> Iterable[tuple[str, str, Value]]:
        """Yield the section, empty at the top, the key and the value of all that is set."""
        yield from (("", key, value) for key, value in self.lists.items())
        yield from ((each.section.name, key, value) for each in self.tables for key, value in each.values.items())


class _FaultError(Exception):
    """What is wrong with a document."""


def _sections(data: Any) -> Iterable[TableSection]:
    if not isinstance(data, dict):
        raise _FaultError(f"tables = {_shown(data)} must be sections: write {_EXAMPLE}")
    seen: set[str] = set()
    for pattern, keys in data.items():
        header = _header(pattern)
        if isinstance(keys, dict) and (inner := [key for key, value in keys.items() if isinstance(value, dict)]):
            meant = _header(f"{pattern}.{inner[0]}")
            raise _FaultError(f"[tables.{pattern}.{inner[0]}] is a section within a section: write {meant}")
        if fault := _fault_of_table(pattern):
            raise _FaultError(f"{header}: {_shown(pattern)} {fault}")
        if not isinstance(keys, dict):
            raise _FaultError(f"tables.{_shown(pattern)} = {_shown(keys)} must be a section: write {header}")
        if canonical(pattern) in seen:
            raise _FaultError(f"{header}: the table has another section: put them together")
        seen.add(canonical(pattern))
        yield TableSection(pattern, {key: _value(f"{header} ", key, value, TABLE_KEYS) for key, value in keys.items()})


def _value(place: str, key: str, value: Any, known: Mapping[str, Key]) -> Any:
    """Return the value of a key, lists as tuples."""
    if key not in known:
        raise _FaultError(f"{place}{_bare(key)} is no setting{_remedy(key, known)}")
    rule = known[key]
    must = f"{place}{key} = {_shown(value)} must be {rule.value}"
    if not isinstance(value, rule.kind) or isinstance(value, bool):
        example = f": write {key} = [{_shown(value)}]" if isinstance(value, str) and rule.kind is list else ""
        raise _FaultError(must + example)
    if fault := rule.fault(value):
        raise _FaultError(f"{must}: {fault}")
    return tuple(value) if isinstance(value, list) else value


def _remedy(key: str, known: Mapping[str, Key]) -> str:
    """Return what to do about an unknown key."""
    if key in KEYS:
        return " of a section: it stands at the top, before the first section"
    if key in TABLE_KEYS:
        return f" at the top: it stands in a section, such as {_EXAMPLE}"
    there = [*known, "tables"] if known is KEYS else list(known)
    return _nearest(key, there) or f": there are {', '.join(there)}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]}?" if near else ""


def _header(pattern: str) -> str:
    return f"[tables.{json.dumps(pattern, ensure_ascii=False)}]"


def _bare(key: str) -> str:
    return key if key.isidentifier() and len(key) <= _SHOWN else _shown(key)


def _shown(value: Any) -> str:
    """Return a value as TOML has it, or nearly."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _words(value: Value | None) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return "not set" if value is None else str(value)
