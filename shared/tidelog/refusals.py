"""What a role lacks that was refused: the very statements that give it, in place of a hint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

from tidelog import catalog
from tidelog.advice import Access, Advice, grants
from tidelog.errors import AccessDenied
from tidelog.failures import sqlstate, told
from tidelog.tables import Table, TableName

_INSUFFICIENT_PRIVILEGE = "42501"
_SHOWN = 5


@contextmanager
def explained_refusals(connection: Connection, table: TableName) -> Iterator[None]:
    """Have a refusal for want of a privilege name the statements that grant what is lacking.

    Raises:
        AccessDenied: instead of the driver's error, if something is found to be lacking.
    """
    try:
        yield
    except DatabaseError as error:
        if sqlstate(error) == _INSUFFICIENT_PRIVILEGE:
            with suppress(DatabaseError):  # The refusal stands, whatever becomes of the question why.
                connection.run("ROLLBACK")
                if hint := _remedy(connection, table):
                    raise AccessDenied("read", table, told(error), hint) from error
        raise


def read_lacks(connection: Connection, table: Table, role: str, *, standby: bool) -> tuple[Advice, ...]:
    """Ask what a role lacks to read a table and all relations that hold its rows."""
    oids = dict.fromkeys([table.oid, *(leaf.oid for leaf in table.leaves)])
    [[answer]] = connection.run(catalog.access_query(oids))
    return grants(msgspec.json.decode(answer, type=list[Access]), role, standby=standby)


def _remedy(connection: Connection, table: TableName) -> str:
    [[role]] = connection.run("SELECT current_user::text")
    found = catalog.read_table(table, connection.run(catalog.table_query(table)))
    statements = [each for lack in read_lacks(connection, found, role, standby=False) for each in lack.statements]
    more = [f"and {len(statements) - _SHOWN} more of the kind"] if len(statements) > _SHOWN else []
    return f"Run {' '.join([*statements[:_SHOWN], *more])}".removesuffix(";") if statements else ""
