"""Which tables are taken: patterns of names to include and to exclude."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import msgspec

from tidelog.errors import InvalidSetting
from tidelog.tables import Relation, TableName


class Left(msgspec.Struct, frozen=True):
    """A relation that was not taken, and why."""

    table: str
    reason: str


class Selected(msgspec.Struct, frozen=True):
    """The outcome of a selection."""

    tables: tuple[TableName, ...]
    skipped: tuple[Left, ...]
    """Met by a pattern, but of a kind that can't be ingested."""
    refused: tuple[Left, ...]
    """Asked for by name, but not there or of a kind that can't be ingested: an error."""


class Selection(msgspec.Struct, frozen=True):
    """Patterns of tables to take and to leave.

    A pattern is a table name in which `*` and `?` stand for any text and any character; where a name itself has
    unusual characters, the pattern is written as the name is shown, quotes and all.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    @classmethod
    def parse(cls, include: str, exclude: str) -> Selection:
        """Read two comma-separated lists; an empty `include` takes every table.

        Raises:
            InvalidSetting: a quote is not closed.
        """
        return cls(_split(include) or ("*",), _split(exclude))

    def apply(self, relations: Iterable[Relation]) -> Selected:
        """Divide the relations of a database."""
        known = {str(relation.table_name): relation for relation in relations}
        wanted = [name for name in known if self.takes(name)]
        named = [pattern for pattern in self.include if not is_pattern(pattern)]
        asked = {canonical(name): name for name in named}
        refused = [
            Left(name, known[key].obstacle or "") if key in known else Left(name, f"no such table{_schema(name)}")
            for key, name in asked.items()
            if key not in known or known[key].obstacle
        ]
        return Selected(
            tables=tuple(sorted(known[name].table_name for name in wanted if not known[name].obstacle)),
            skipped=tuple(
                Left(name, known[name].obstacle or "")
                for name in sorted(wanted)
                if known[name].obstacle and name not in asked
            ),
            refused=tuple(refused),
        )

    def takes(self, name: str) -> bool:
        """Say whether a relation of some name, as it is shown, is taken if it can be ingested."""
        return meets(name, self.include) and not meets(name, self.exclude)


def meets(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a table's name, as it is shown, is one of some patterns' or names'."""
    return any(
        fnmatchcase(name, pattern.replace("[", "[[]")) if is_pattern(pattern) else name == canonical(pattern)
        for pattern in patterns
    )


def unmet(patterns: Iterable[str], names: Iterable[str]) -> tuple[Left, ...]:
    """Return the patterns that meet none of some tables' names; the one that takes all may."""
    known = list(names)
    return tuple(
        Left(pattern, f"no table meets it{_schema(pattern)}")
        for pattern in patterns
        if is_pattern(pattern) and pattern != "*" and not any(meets(name, (pattern,)) for name in known)
    )


def is_pattern(text: str) -> bool:
    """Say whether a text stands for many names, and not for one."""
    return "*" in text or "?" in text


def canonical(name: str) -> str:
    """Return a table's name as it is shown; what is no name stays as it is."""
    try:
        return str(TableName.parse(name))
    except ValueError:
        return name


def _schema(name: str) -> str:
    return "" if "." in name else ": write schema.table"


def _split(text: str) -> tuple[str, ...]:
    """Split at commas outside double quotes."""
    if text.count('"') % 2:
        raise InvalidSetting("read", "the list of tables", f"{text!r} has a quote that is not closed")
    parts = re.findall(r'(?:"(?:[^"]|"")*"|[^,"])+', text)
    return tuple(part.strip() for part in parts if part.strip())
