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
from tidelog.tables import Column, Table, Type

_BOOL, _JSON, _JSONB, _MONEY = 16, 114, 3802, 790
_INTEGERS = frozenset({20, 21, 23})
_VECTORS = frozenset({22, 30})
_BYTEA, _FRACTIONS = 17, frozenset({700, 701, 1700})

_BRANCHES = 32

# Copy out in this format prints the values of a row one after another, with a byte between them that no JSON holds.
# A backslash is printed twice, and a tab, which JSON text may have between its tokens, as a backslash and a t.
COPY_FORMAT = r"(FORMAT text, DELIMITER E'\x02', NULL 'null')"
COPY_MARK = b"\x02"

_JSON_SCALAR_SINCE = 17


def json_values(table: Table, row: str) -> str:
    """Return the select list of the values in each row's JSON object, copied out in `COPY_FORMAT`.

    `json_headings` stand before them. Whoever reads puts them there: they would cost the server as much as the values.

    Args:
        table: the table; its columns give the values, in their order.
        row: the alias of the relation that is read, as SQL.
    """
    types = {kind.oid: kind for kind in table.types}
    values: list[str] = []
    for column in table.columns:
        name = _column(table, column, row)
        if _base(column.type, types).oid == _BOOL:
            values.append(f"CASE WHEN {name} THEN 'true' WHEN NOT {name} THEN 'false' END")
        else:
            values.append(_value(name, column.type, types, table.version))
    return ", ".join(values) or "''"


def json_headings(table: Table) -> tuple[bytes, ...]:
    """Return what stands before each of `json_values`. What stands behind the last one is a brace."""
    headings = tuple(_heading(number, column.name).encode() for number, column in enumerate(table.columns))
    return headings or (b"{",)


def holds_tabs(table: Table) -> bool:
    """Say whether there may be tabs in the JSON of a row: between the tokens of a json value, and nowhere else."""
    types = {kind.oid: kind for kind in table.types}
    return any(_holds_json(column.type, types) for column in table.columns)


def json_text(table: Table, row: str) -> str:
    """Return as SQL the text of one row's JSON object, the same as `json_headings` and `json_values` make."""
    types = {kind.oid: kind for kind in table.types}
    parts = [
        f"{literal(_heading(number, column.name))} || " + _text(_column(table, column, row), column.type, types)
        for number, column in enumerate(table.columns)
    ]
    return f"({_joined(parts)} || '}}')" if parts else "'{}'"


def key_text(table: Table, row: str) -> str:
    """Return as SQL the text of a row's primary key: its values as JSON, with commas between them."""
    types, columns = {kind.oid: kind for kind in table.types}, {column.name: column for column in table.columns}
    parts = [_text(f"{row}.{identifier(name)}", columns[name].type, types) for name in table.key]
    between = " || ',' || "
    return f"({between.join(parts)})"


def _column(table: Table, column: Column, row: str) -> str:
    """Return a column as SQL.

    A virtual one is computed as the table says that is asked, which a partition need not do (PostgreSQL documentation,
    "Generated Columns"). The expression has names of columns alone. The cast to the column's type is not printed in it.
    """
    if column.generated == "v" and table.kind == "p":
        return f"({column.default})::{column.type_name}"
    return f"{row}.{identifier(column.name)}"


def _heading(number: int, name: str) -> str:
    return f"{',' if number else '{'}{json.dumps(name, ensure_ascii=False)}:"


def _text(column: str, oid: int, types: Mapping[int, Type]) -> str:
    return f"coalesce(({_value(column, oid, types)})::text, 'null')"


def _joined(parts: Sequence[str]) -> str:
    """Return texts put together, in a tree: the server's parser follows no chain of thousands."""
    while len(parts) > 1:
        parts = [f"({' || '.join(parts[at : at + _BRANCHES])})" for at in range(0, len(parts), _BRANCHES)]
    return parts[0]


def _value(column: str, oid: int, types: Mapping[int, Type], version: int = 0) -> str:
    # The same text as that of to_json, which looks up the type again for each value.
    to_json = "JSON_SCALAR" if version >= _JSON_SCALAR_SINCE else "to_json"
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
        return f"{to_json}({column}::text)"
    if kind.element:
        if _base(kind.element, types).oid == _MONEY:
            column = f"{column}::numeric[]"
        value = f"CASE WHEN array_dims({column}) ~ '\\[(?!1:)' THEN to_json({column}::text) ELSE to_json({column}) END"
    else:
        value = f"{to_json}({column})"
    return _one_line(f"({value})::text") if _holds_json(kind.oid, types) else value


def remarks(table: Table) -> dict[str, tuple[str, ...]]:
    """Return what a reader of some columns' values has to know, each remark with its columns."""
    types = {kind.oid: kind for kind in table.types}
    found: dict[str, tuple[str, ...]] = {}
    for column in table.columns:
        if remark := _remark(column.type, types):
            found[remark] = (*found.get(remark, ()), column.name)
    return found


def _remark(oid: int, types: Mapping[int, Type]) -> str:
    kind = _base(oid, types)
    if _unreadable(kind.oid, types):
        return "as PostgreSQL's own text"
    element = _base(kind.element, types) if kind.element else kind
    if element.oid in (_JSON, _JSONB):
        return "JSON null reads back as SQL NULL"
    if element.oid == _MONEY:
        return "as numeric, without the currency"
    if element.oid == _BYTEA:
        return "hexadecimal text; a value above 510 MB can't be read"
    if element.oid in _FRACTIONS:
        return "NaN and the infinities are strings"
    return "as array text where the first index is not 1" if kind.element else ""


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
