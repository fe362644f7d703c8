"""Statements with which query engines read a table in place: its lines with typed columns, and the latest versions.

Every engine but Spark reads whole lines as text and takes the values out of them: a number then never passes through a
float. A cast that a value does not fit fails the query, and never gives another value.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from tidelog.schema import ColumnDocument
from tidelog_cli.carried import TEXTS, TypeName
from tidelog_cli.dialects import ENGINES, Dialect, Spec
from tidelog_cli.export import distinct


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a view: its name there, SQL of its value, and what to know of it."""

    name: str
    value: str
    remark: str = ""


def statements(engine: str, spec: Spec) -> list[str]:
    """Return the statements for an engine, comments in them, without semicolons."""
    dialect = ENGINES[engine](spec)
    names = [column.name for column in spec.columns]
    if dialect.plain:
        names = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in names]
    *shown, position, newest = distinct([*names, "position", "newest"])
    fields = [_field(column, name, spec, dialect) for column, name in zip(spec.columns, shown, strict=True)]
    lines = f"{spec.view}_lines"
    name = dialect.identifier
    selected = [
        *(f"  {field.value} AS {name(field.name)}" for field in fields),
        f"  {dialect.position} AS {name(position)}",
    ]
    remarks = [f"-- {_plain(field.name)}: {field.remark}" for field in fields if field.remark]
    made = [
        *dialect.source,
        "\n".join(
            [
                f"-- Every line of {_plain(str(spec.table))}. Of two versions of a row, the later position counts.",
                *remarks,
                f"{dialect.create} {name(lines)} AS",
                "SELECT",
                ",\n".join(selected),
                f"FROM {dialect.rows}",
            ]
        ),
    ]
    if not spec.key:
        return [*made[:-1], f"-- Without a key there is no latest version: name one with --key.\n{made[-1]}"]
    places = dict(zip((column.name for column in spec.columns), shown, strict=True))
    keys = [name(places[column]) for column in spec.key]
    where = f"\n  WHERE {' AND '.join(f'{key} IS NOT NULL' for key in keys)}" if spec.primary else ""
    ranked = f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {name(position)} DESC) AS {name(newest)}"
    every = ", ".join(name(field.name) for field in fields)
    latest = (
        "-- The latest version of every row. A deleted row keeps its last one.\n"
        f"{dialect.create} {name(spec.view)} AS\nSELECT {every}\nFROM (\n"
        f"  SELECT {every}, {ranked}\n  FROM {name(lines)}{where}\n) AS ranked\nWHERE {name(newest)} = 1"
    )
    return [*made, latest]


def _field(column: ColumnDocument, name: str, spec: Spec, dialect: Dialect) -> Field:
    remarks = [] if name == column.name else [f"{_plain(column.name)} is called otherwise here"]
    found = TypeName.parse(column.type)
    scalar = found and not found.many and found.name not in ("json", "jsonb")
    value = dialect.text(column) if scalar or column.labels else dialect.json(column)
    if column.name in spec.texts or (found and found.name in TEXTS and not found.many):
        return Field(name, value, "; ".join(remarks))
    if typed := dialect.typed(column):
        return Field(name, typed, "; ".join(remarks))
    remarks.append(f"text, as nothing here carries {_plain(column.type)} exactly")
    if dialect.caution:
        remarks.append(dialect.caution)
    return Field(name, value, "; ".join(remarks))


def _plain(text: str) -> str:
    """Return a name that can't end a comment."""
    return text if text.isprintable() else json.dumps(text)
