"""What an operator is advised about a table before it is ingested: indexes, its key, grants."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tidelog import timestamps
from tidelog.quoting import identifier
from tidelog.tables import Table, TableName
from tidelog.windows import Strategy


class Advice(msgspec.Struct, frozen=True):
    """What is to be done.

    Attributes:
        reason: why, in words.
        statements: the SQL that does it, each to be run by itself; none where something else is to be done.
    """

    reason: str
    statements: tuple[str, ...] = ()


class Access(msgspec.Struct, frozen=True):
    """What a role may do with a relation that holds rows of a table, or with the table itself."""

    schema: str
    name: str
    usage: bool
    """It may look into the schema."""
    select: bool
    """It may read all columns."""
    guarded: bool
    """Row-level security would hide rows from it."""
    unlogged: bool


def index_advice(table: Table, strategy: Strategy, time_bound_bytes: int) -> Advice | None:
    """Return the indexes by which a table's new rows are found without a look at every row; None where none is needed.

    One on a column that tells of updates and is never NULL is enough; else each timestamp column needs one.

    Args:
        table: the table.
        strategy: how it is read as it is.
        time_bound_bytes: from this size on a table is read through its timestamps.
    """
    columns = strategy.columns
    if strategy.name == "xmin" and table.bytes >= time_bound_bytes:
        never_null = {column.name for column in table.columns if column.not_null}
        told = [each for each in table.timestamp_columns if timestamps.role(each) == "updated" and each in never_null]
        columns = tuple(told[:1]) or table.timestamp_columns
    missing = [column for column in columns if not table.is_indexed(column)]
    if not missing:
        return None
    led = " and ".join(missing)
    reason = f"each tick looks at every row: an index on {led} lets it look only at what was stamped lately"
    return Advice(
        reason,
        tuple(
            f"CREATE INDEX CONCURRENTLY ON {leaf.table_name.sql} ({identifier(column)});"
            for column in missing
            for leaf in table.leaves
            if column not in leaf.indexed
        ),
    )


def remarks_of(table: Table, strategy: Strategy, time_bound_bytes: int) -> tuple[str, ...]:
    """Return what there is to know of a table that nothing needs to be done about."""
    found = []
    if not table.key:
        found.append("no primary key: a reader can't tell which lines are versions of one row")
    if not table.timestamp_columns and table.bytes >= time_bound_bytes and strategy.name == "xmin":
        found.append(
            f"each tick looks at all of its {table.bytes / 2**20:,.0f} MiB: no column tells when a row changed"
        )
    if any(leaf.rows < 0 for leaf in table.leaves):
        found.append("never analyzed, so how many rows it has is not known")
    return tuple(found)


def grants(found: Iterable[Access], role: str, *, standby: bool) -> tuple[Advice, ...]:
    """Return what a role lacks to read a table, and the SQL that mends it; nothing where it lacks nothing.

    Args:
        found: the table and the relations that hold its rows.
        role: the role that reads.
        standby: whether the server is one.
    """
    found, reader = list(found), identifier(role)
    closed = list(dict.fromkeys(each.schema for each in found if not each.usage))
    unread = [TableName(each.schema, each.name) for each in found if not each.select]
    lacks = []
    if closed:
        statements = tuple(f"GRANT USAGE ON SCHEMA {identifier(schema)} TO {reader};" for schema in closed)
        lacks.append(Advice(f"{role} lacks USAGE on the schema {', '.join(closed)}", statements))
    if unread:
        statements = tuple(f"GRANT SELECT ON {name.sql} TO {reader};" for name in unread)
        lacks.append(Advice(f"{role} lacks SELECT on {_several(unread)}", statements))
    if any(each.guarded for each in found):
        statement = f"ALTER ROLE {reader} BYPASSRLS;"
        lacks.append(Advice(f"row-level security would hide rows from {role}", (statement,)))
    if standby and any(each.unlogged for each in found):
        lacks.append(Advice("it is unlogged, and a standby has nothing of it: read it from the primary, or exclude it"))
    return tuple(lacks)


def _several(names: list[TableName]) -> str:
    return str(names[0]) if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
