"""What the configuration says of one table, and the table as it is then."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

import msgspec
from msgspec.structs import replace

from tidelog.errors import InvalidSetting
from tidelog.tables import Table, TableName

_REMEDY = "Mend the configuration: tidelog config push"


class Section(msgspec.Struct, frozen=True):
    """A section of the document: as it is written, and whether it is about one table, and not about a pattern's."""

    name: str
    exact: bool


class TableSettings(msgspec.Struct, frozen=True):
    """What the configuration says of one table; of a key that is not set, the default.

    Attributes:
        exclude_columns: columns that are never read.
        timestamp_columns: those that say when a row was created or updated; None finds them by name.
        strategy: how new rows are found; None chooses.
        look_back: seconds before the watermark that are read again.
        chunk_bytes: more than this is read in chunks.
        sections: of each key that is set, where.
    """

    exclude_columns: tuple[str, ...] = ()
    timestamp_columns: tuple[str, ...] | None = None
    strategy: Literal["timestamp", "xmin"] | None = None
    look_back: float | None = None
    chunk_bytes: int | None = None
    sections: Mapping[str, Section] = msgspec.field(default_factory=dict)

    def refusal(self, key: str, table: TableName, reason: str, remedy: str = _REMEDY) -> InvalidSetting:
        """Return the error that a key does not fit a table."""
        return InvalidSetting("read", table, f"{self.sections[key].name} {key}: {reason}", remedy)

    def known(self, key: str, columns: tuple[str, ...], table: Table) -> tuple[str, ...]:
        """Return those of some columns that a table has: of one that is named, it has to have all.

        Raises:
            InvalidSetting: naming the column, and the nearest that there is.
        """
        there = [column.name for column in table.columns]
        missing = [column for column in columns if column not in there]
        if missing and self.sections[key].exact:
            near = get_close_matches(missing[0], there, n=1)
            question = f"Did you mean {near[0]}? " if near else ""
            raise self.refusal(key, table.table_name, f"it has no column {missing[0]}", question + _REMEDY)
        return tuple(column for column in columns if column in there)


def configured(table: Table, settings: TableSettings) -> Table:
    """Return a table without its excluded columns, and with its own timestamp columns.

    Where a pattern names timestamp columns of which the table has none, they are found by name.

    Raises:
        InvalidSetting: the settings do not fit the table.
    """
    excluded = settings.known("exclude_columns", settings.exclude_columns, table) if settings.exclude_columns else ()
    if held := [column for column in table.key if column in excluded]:
        reason, remedy = f"{held[0]} is part of its primary key", "Leave the table out instead: exclude, at the top"
        raise settings.refusal("exclude_columns", table.table_name, reason, remedy)
    columns = tuple(column for column in table.columns if column.name not in excluded)
    rest = replace(table, columns=columns, excluded=tuple(sorted(excluded)))
    named = settings.timestamp_columns
    if named is None:
        return rest
    if both := [column for column in named if column in excluded and settings.sections["timestamp_columns"].exact]:
        raise settings.refusal("timestamp_columns", table.table_name, f"{both[0]} is one of its exclude_columns")
    dated = settings.known("timestamp_columns", named, rest) if named else ()
    types = {column.name: column.type_name for column in rest.columns}
    if wrong := [column for column in dated if column not in rest.times]:
        reason = f"{wrong[0]} is of type {types[wrong[0]]}, and not date, timestamp or timestamptz"
        raise settings.refusal("timestamp_columns", table.table_name, reason)
    return replace(rest, dated_by=dated) if dated or not named else rest
