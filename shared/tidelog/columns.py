"""How each column becomes JSON on the server: as `row_to_json` would, or so that it can be read back.

A line read with `json_populate_record` gives the row back. The types that need help, and why:

- integers and jsonb are JSON as they are printed; booleans once they are text; all others go through `to_json`
- an array's lower bounds are lost in JSON: an array with another bound than 1 travels as PostgreSQL's own array text
- json[] and jsonb[]: a JSON array or null inside can't be told from a dimension or an SQL NULL: array text
- int2vector, oidvector, arrays over domains over arrays, types with a cast to json of their own (hstore): text
- a composite that holds an array or any of these: composite text
- money prints as lc_monetary says: as numeric
- json keeps its white space; a raw newline would end the line: replaced by a space

Not expressible: a json or jsonb column that holds JSON null reads back as SQL NULL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tidelog.quoting import identifier, literal
from tidelog.tables import Table, Type

_BOOL, _JSON, _JSONB, _MONEY = 16, 114, 3802, 790
_INTEGERS = frozenset({20, 21, 23})
_VECTORS = frozenset({22, 30})

# A select list holds at most 1664 entries (MaxTupleAttributeNumber), a table 1600 columns; a column takes two entries.
_MOST_COLUMNS = 800

_BRANCHES = 32

# Copy out in this format prints the fields of a row one after another, and these two bytes, which no JSON text holds,
# wherever it separates or quotes. Without them the row is its JSON text.
COPY_FORMAT = r"(FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01', NULL 'null')"
COPY_MARKS = b"\x01\x02"


def json_fields(table: Table, row: str) -> str:
    """Return the select list that makes one JSON object per row when copied out in `COPY_FORMAT` without `COPY_MARKS`.

    Args:
        table: the table; its columns give the keys, in their order.
        row: the alias of the relation that is read, as SQL.
    """
    if not table.columns:
        return "'{}'"
    types = {kind.oid: kind for kind in table.types}
    separate = len(table.columns) <= _MOST_COLUMNS
    fields: list[str] = []
    for number, column in enumerate(table.columns):
        key = _heading(number, column.name)
        value = _value(f"{row}.{identifier(column.name)}", column.type, types)
        fields += [key, value] if separate else [f"{key} || coalesce(({value})::text, 'null')"]
    return ", ".join([*fields, "'}'"])


def json_text(table: Table, row: str) -> str:
    """Return as SQL the text of one row's JSON object, the same as `json_fields` make."""
    types = {kind.oid: kind for kind in table.types}
    parts = [
        f"{_heading(number, column.name)} || " + _text(f"{row}.{identifier(column.name)}", column.type, types)
        for number, column in enumerate(table.columns)
    ]
    return f"({_joined(parts)} || '}}')" if parts else "'{}'"


def key_text(table: Table, row: str) -> str:
    """Return as SQL the text of a row's primary key: its values as JSON, with commas between them."""
    types, columns = {kind.oid: kind for kind in table.types}, {column.name: column for column in table.columns}
    parts = [_text(f"{row}.{identifier(name)}", columns[name].type, types) for name in table.key]
    between = " || ',' || "
    return f"({between.join(parts)})"


def _heading(number: int, name: str) -> str:
    return literal(f"{',' if number else '{'}{json.dumps(name, ensure_ascii=False)}:")


def _text(column: str, oid: int, types: Mapping[int, Type]) -> str:
    return f"coalesce(({_value(column, oid, types)})::text, 'null')"


def _joined(parts: Sequence[str]) -> str:
    """Return texts put together, in a tree: the server's parser follows no chain of thousands."""
    while len(parts) > 1:
        parts = [f"({' || '.join(parts[at : at + _BRANCHES])})" for at in range(0, len(parts), _BRANCHES)]
    return parts[0]


def _value(column: str, oid: int, types: Mapping[int, Type]) -> str:
    kind = _base(oid, types)
    if kind.oid in _INTEGERS or kind.oid == _JSONB:
        return column
    if kind.oid == _BOOL:
        return f"{column}::text"
    if kind.oid == _MONEY:
        return f"{column}::numeric"
    if kind.oid == _JSON:
        return _one_line(f"{column}::text")
    if _unreadable(kind.oid, types):
        return f"to_json({column}::text)"
    if kind.element:
        if _base(kind.element, types).oid == _MONEY:
            column = f"{column}::numeric[]"
        value = f"CASE WHEN array_dims({column}) ~ '\\[(?!1:)' THEN to_json({column}::text) ELSE to_json({column}) END"
    else:
        value = f"to_json({column})"
    return _one_line(f"({value})::text") if _holds_json(kind.oid, types) else value


def _one_line(text: str) -> str:
    return f"replace(replace({text}, E'\\n', ' '), E'\\r', ' ')"


def _base(oid: int, types: Mapping[int, Type]) -> Type:
    kind = types[oid]
    while kind.kind == "d":
        kind = types[kind.base]
    return kind


def _unreadable(oid: int, types: Mapping[int, Type]) -> bool:
    """Say whether `to_json` of a type can't be read back by `json_populate_record`."""
    kind = _base(oid, types)
    if kind.oid in _VECTORS or kind.json_cast:
        return True
    if kind.element:
        element = _base(kind.element, types)
        return bool(element.element) or element.oid in (_JSON, _JSONB) or _unreadable(element.oid, types)
    return any(_base(field.type, types).element != 0 or _unreadable(field.type, types) for field in kind.fields)


def _holds_json(oid: int, types: Mapping[int, Type]) -> bool:
    kind = _base(oid, types)
    return (
        kind.oid == _JSON
        or (kind.element != 0 and _holds_json(kind.element, types))
        or any(_holds_json(field.type, types) for field in kind.fields)
    )
