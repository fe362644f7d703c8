"""Which tables the patterns of an operator take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_tables import NAMES
from tidelog.errors import InvalidSetting
from tidelog.selection import Left, Selection, unmet
from tidelog.tables import Relation, TableName

RELATIONS = [
    Relation("public", "orders", "r"),
    Relation("public", "orders_archive", "r"),
    Relation("public", "Orders", "p"),
    Relation("shop", "my.table", "r"),
    Relation("shop", "a,b", "r"),
    Relation("shop", "x[1]", "r"),
    Relation("public", "totals", "v"),
    Relation("public", "remote", "f"),
    Relation("public", "summary", "m", populated=False),
]
VIEW = "a view, which has no row versions of its own"


def taken(include: str, exclude: str = "") -> list[str]:
    """Return the tables that a selection takes, as they are shown."""
    return [str(table) for table in Selection.parse(include, exclude).apply(RELATIONS).tables]


@pytest.mark.parametrize(
    ("include", "exclude", "tables"),
    [
        (
            "",
            "",
            ["public.Orders", "public.orders", "public.orders_archive", 'shop."a,b"', 'shop."my.table"', 'shop."x[1]"'],
        ),
        ("*", "public.*", ['shop."a,b"', 'shop."my.table"', 'shop."x[1]"']),
        ("public.orders", "", ["public.orders"]),
        ("public.orders*", "*_archive", ["public.orders"]),
        ("public.?rders", "", ["public.Orders", "public.orders"]),
        ('shop."my.table"', "", ['shop."my.table"']),
        ('"public"."orders"', "", ["public.orders"]),
        ('"shop".*', "", []),
        ('shop."a,b" , public.orders', "", ["public.orders", 'shop."a,b"']),
        ('shop."x[1]"', "", ['shop."x[1]"']),
        ("shop.*[1]*", "", ['shop."x[1]"']),
        (" , ,", "shop.*", ["public.Orders", "public.orders", "public.orders_archive"]),
    ],
)
def test_patterns_take_and_leave_tables(include: str, exclude: str, tables: list[str]) -> None:
    """Case counts, brackets are brackets, and a comma inside quotes belongs to the name."""
    assert taken(include, exclude) == tables


def test_what_a_pattern_meets_but_cannot_be_read_is_skipped() -> None:
    """With the reason; that is no error."""
    selected = Selection.parse("public.*", "public.orders*").apply(RELATIONS)
    assert selected.tables == (TableName("public", "Orders"),)
    assert {left.table for left in selected.skipped} == {"public.totals", "public.remote", "public.summary"}
    assert Left("public.totals", VIEW) in selected.skipped
    assert Left("public.summary", "a materialized view that was never refreshed") in selected.skipped
    assert selected.refused == ()


def test_what_is_asked_for_by_name_but_cannot_be_read_is_refused() -> None:
    """Also where another pattern meets it, and also where there is no such table."""
    selected = Selection.parse("*,public.totals,public.nosuch,orders", "").apply(RELATIONS)
    assert set(selected.refused) == {
        Left("public.totals", VIEW),
        Left("public.nosuch", "no such table"),
        Left("orders", "no such table: write schema.table"),
    }
    assert "public.totals" not in {left.table for left in selected.skipped}


def test_a_pattern_that_meets_nothing_is_told_of() -> None:
    """It may be misspelt; the pattern of all tables meets none in an empty database."""
    names = ["public.orders", "shop.x"]
    assert unmet(["*", "public.*", "pubic.*", "ord*", "public.nosuch"], names) == (
        Left("pubic.*", "no table meets it"),
        Left("ord*", "no table meets it: write schema.table"),
    )
    assert unmet(["*"], []) == ()


def test_nothing_that_is_excluded_is_mentioned() -> None:
    """An operator who leaves the views out by name does not hear of them again."""
    assert Selection.parse("*", "public.totals,public.remote,public.summary").apply(RELATIONS).skipped == ()


@pytest.mark.parametrize("text", ['"public.orders', 'a."b', '"""'])
def test_a_quote_that_is_not_closed_is_an_error(text: str) -> None:
    """Guessing where it ends could take the wrong tables."""
    with pytest.raises(InvalidSetting, match="has a quote that is not closed"):
        Selection.parse(text, "")


@given(st.lists(NAMES, max_size=6, unique=True), st.data())
def test_every_table_can_be_taken_and_left_by_its_own_name(names: list[TableName], data: st.DataObject) -> None:
    """Whatever is in the name, but the wild cards."""
    names = [name for name in names if not set("*?") & set(str(name))]
    chosen = [name for name in names if data.draw(st.booleans())]
    relations = [Relation(name.schema, name.name, "r") for name in names]
    listed = ",".join(map(str, chosen))
    assert set(Selection.parse("", listed).apply(relations).tables) == set(names) - set(chosen)
    if chosen:
        assert set(Selection.parse(listed, "").apply(relations).tables) == set(chosen)
