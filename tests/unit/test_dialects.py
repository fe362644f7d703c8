"""What `tidelog ddl` calls the views and tables that it has an engine make."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.unit.test_tables import NAMES
from tidelog.schema import ColumnDocument
from tidelog.tables import TableName
from tidelog_cli.dialects import ENGINES, Spec
from tidelog_cli.engines import statements

PIECES = st.sampled_from(["a", "A", "b", "1", "_", ".", "é", "ü", "order", "lines", "_lines", "_objects", "_stage"])
ALIKE = st.lists(PIECES, min_size=1, max_size=4).map("".join)
TABLES = NAMES | st.builds(TableName, ALIKE, ALIKE)
CREATED = re.compile(r"^CREATE .*?(?:VIEW|TABLE|STAGE)(?: IF NOT EXISTS)? (\S+)", re.MULTILINE)


def created(engine: str, table: TableName) -> list[str]:
    """Return the names of all that the statements for a table create, without quotes."""
    spec = Spec(table, "s3://lake/data/", (ColumnDocument("id", "integer", True),), ("id",), True, frozenset())
    return [
        name.strip('`"').removeprefix("tidelog.")
        for statement in statements(engine, spec)
        for name in CREATED.findall(statement)
    ]


@given(TABLES, TABLES)
@example(TableName("sales", "order_items"), TableName("sales_order", "items"))
@example(TableName("public", "UPPER"), TableName("public", "upper"))
@example(TableName("public", "a.b"), TableName("public.a", "b"))
@example(TableName("public", "été"), TableName("public", "âgé"))
@example(TableName("public", "order"), TableName("public", "order_lines"))
@example(TableName("public", "order"), TableName("public", "order_stage"))
def test_no_two_tables_are_called_the_same(one: TableName, other: TableName) -> None:
    """Not even in part, or in another case: with IF NOT EXISTS the second would show the rows of the first."""
    assume(one != other)
    for engine in ENGINES:
        names = [name.lower() for table in (one, other) for name in created(engine, table)]
        assert len(names) == len(set(names)) >= 4


@given(TABLES)
def test_no_table_is_called_as_one_whose_name_is_taken_from_a_view(table: TableName) -> None:
    """Whatever is appended to a name, there may be a table that has it."""
    for name in created("snowflake", table):
        for place in range(1, len(name) - 1):
            other = TableName(name[:place], name[place + 1 :])
            if name[place] == "_" and other != table:
                assert not {*created("snowflake", table)} & {*created("snowflake", other)}


@given(TABLES)
@example(TableName("1", "a"))
@example(TableName("é" * 31, "é" * 31))
def test_every_engine_takes_the_names_without_quotes(table: TableName) -> None:
    """ASCII, a letter first, no longer than Glue and Snowflake allow."""
    for engine in ENGINES:
        for name in created(engine, table):
            assert re.fullmatch("[a-z][a-z0-9_]{0,254}", name)


@pytest.mark.parametrize(
    ("table", "view"),
    [
        (TableName("public", "sales_order"), "public_sales_order"),
        (TableName("public", "lines"), "public_lines"),
        (TableName("public", "log_20240101"), "public_log_20240101"),
        (TableName("sales_order", "items"), "sales_order_items__43461498"),
        (TableName("public", "Order items"), "public_order_items__4eff3f40"),
        (TableName("1", "é"), "t_1____3dd36cbc"),
    ],
    ids=str,
)
def test_a_table_is_called_the_same_for_ever(table: TableName, view: str) -> None:
    """Plain names are kept, others stay legible; queries that stand somewhere hold them."""
    assert created("duckdb", table)[-1] == view
