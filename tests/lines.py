"""Lines against rows: what is lost when each line is given to `json_populate_record`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from tests.tide import Database
from tidelog.tables import TableName


class Landed(Protocol):
    """A database, and the lines that were made of its tables."""

    @property
    def database(self) -> Database:
        """The database."""

    def lines(self, table: str) -> Sequence[bytes]:
        """Return every line of a table."""


def lost_rows(tide: Landed, table: str) -> list[str]:
    """Return the rows that the lines of a table do not give back, and those that they give and the table has not.

    White space of type json is the one thing that may differ: a newline there is a space.
    """
    name = TableName.parse(table).sql
    given = json.dumps([line.decode() for line in tide.lines(table)])
    with tide.database.session() as session:
        session.run(
            "SET search_path = pg_catalog; SET xmloption = content; SET lc_monetary = 'C'; SET TimeZone = 'UTC'"
        )
        [[has_json]] = session.run(
            f"SELECT bool_or(atttypid::regtype::text ~ 'json') FROM pg_attribute WHERE attrelid = '{name}'::regclass"
        )
        text = "replace(replace(r::text, E'\\n', ' '), E'\\r', ' ')" if has_json else "r::text"
        rows = f"SELECT {text} FROM {name} r"
        back = (
            f"SELECT {text} FROM json_array_elements_text(CAST(:lines AS json)) line "
            f"CROSS JOIN LATERAL json_populate_record(NULL::{name}, line::json) r"
        )
        lost = session.run(f"({rows}) EXCEPT ALL ({back})", lines=given)
        made = session.run(f"({back}) EXCEPT ALL ({rows})", lines=given)
    return [f"lost {row}" for (row,) in lost] + [f"made {row}" for (row,) in made]
