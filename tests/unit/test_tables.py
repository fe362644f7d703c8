"""Names of tables, on their way into messages, SQL and object keys; what can be ingested."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidelog.errors import NotIngestible
from tidelog.lake import event_key, read_event_key
from tidelog.quoting import identifier, literal
from tidelog.tables import Column, Relation, Table, TableName, obstacle, refuse

PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=63).filter(
    lambda part: len(part.encode()) <= 63  # all that a database has room for
)
ODD_PARTS = st.text(alphabet='ab."/\\% ~\n-_é²', min_size=1, max_size=6)
NAMES = st.builds(TableName, PARTS | ODD_PARTS, PARTS | ODD_PARTS)


@given(NAMES)
@example(TableName("a.b", "c"))
@example(TableName('"', '""'))
@example(TableName("..", "."))
def test_a_name_reads_back_from_its_text_and_from_its_path(name: TableName) -> None:
    """Dots, quotes, slashes and every letter included."""
    assert TableName.parse(str(name)) == name
    assert TableName.from_path(name.path) == name


@pytest.mark.parametrize("part", ["x" * 64, "é" * 32, "x" * 10_000])
def test_a_name_longer_than_any_in_a_database_is_refused(part: str) -> None:
    """PostgreSQL would cut it off, and mean another table."""
    with pytest.raises(ValueError, match="is not a table name") as refused:
        TableName.parse(f"public.{part}")
    assert len(str(refused.value)) < 400


@given(NAMES, NAMES)
@example(TableName("a.b", "c"), TableName("a", "b.c"))
@example(TableName("a", "b%2Fc"), TableName("a", "b/c"))
def test_no_two_tables_share_a_path_or_a_text(one: TableName, other: TableName) -> None:
    """Else two tables would write into one ledger."""
    assert (one == other) == (one.path == other.path) == (str(one) == str(other))


@given(NAMES)
def test_a_path_is_one_part_of_a_key(name: TableName) -> None:
    """Nothing in it divides a key, is a directory of its own, or has to be escaped in a file name or a URL."""
    assert set(name.path) & set(" /\\\"'?*:<>|~\n") == set()
    assert name.path.count(".") == 1
    assert name.path not in (".", "..")
    assert read_event_key(event_key(name, 7)) == (name, 7)


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("public.orders", "public", "orders"),
        ("Public.Orders", "Public", "Orders"),
        ('"my.schema".t', "my.schema", "t"),
        ('a."b""c"', "a", 'b"c'),
        ("public.my table", "public", "my table"),
        ("shop.Bestellungen_ä", "shop", "Bestellungen_ä"),
    ],
)
def test_names_are_taken_as_they_are_written(text: str, schema: str, name: str) -> None:
    """No case is folded; quotes are needed only around dots and quotes."""
    assert TableName.parse(text) == TableName(schema, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "orders",
        "a.b.c",
        "a.b.",
        ".a.b",
        "a..b",
        "a.",
        ".b",
        '"a".',
        '"a.b',
        'a"b.c',
        'a."b"c',
        '"".b',
        "a.b\0",
        "a.\ud800",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """A ValueError says how one is written."""
    with pytest.raises(ValueError, match=r"is not a table name: write schema\.table, such as public\.orders"):
        TableName.parse(text)


@given(PARTS)
def test_quoted_sql_holds_one_token(text: str) -> None:
    """Every quote inside is doubled, whatever the text is."""
    for quoted, mark in ((identifier(text), '"'), (literal(text), "'")):
        assert quoted[0] == quoted[-1] == mark
        assert quoted[1:-1].replace(mark * 2, "").count(mark) == 0
        assert quoted[1:-1].replace(mark * 2, mark) == text


@pytest.mark.parametrize("quote", [identifier, literal])
def test_a_nul_is_never_sent(quote: type[str]) -> None:
    """PostgreSQL would take the text to end there."""
    with pytest.raises(ValueError, match="can't hold a NUL"):
        quote("a\0b")


def test_timestamp_columns_are_known_by_name_and_type() -> None:
    """A created_time in epoch milliseconds is not a timestamp, nor is a timestamp that tells of something else."""
    types = {"created_time": 20, "created_at": 1184, "modifieddate": 1114, "update_date": 1082, "born": 1184}
    columns = tuple(Column(name, oid, "") for name, oid in types.items())
    table = Table(1, "s", "t", "r", columns, key=(), leaves=(), types=())
    assert table.timestamp_columns == ("created_at", "modifieddate", "update_date")


@pytest.mark.parametrize("kind", ["r", "p", "m"])
def test_relations_with_row_versions_of_their_own_are_taken(kind: str) -> None:
    """Tables, partitioned tables and materialized views."""
    assert obstacle(kind) is None
    refuse(TableName("s", "t"), kind)


@pytest.mark.parametrize(
    ("kind", "words"), [("v", "a view"), ("f", "a foreign table"), ("S", "a sequence"), ("?", "of kind ?")]
)
def test_other_relations_are_refused_with_the_reason(kind: str, words: str) -> None:
    """The error says what it is, why that can't be ingested, and what to do."""
    with pytest.raises(NotIngestible, match=r"no row versions of its own\. Name the tables") as refused:
        refuse(TableName("s", "t"), kind)
    assert words in str(refused.value)


def test_a_materialized_view_is_taken_once_it_was_refreshed() -> None:
    """Before that it can't be read."""
    assert Relation("s", "m", "m").obstacle is None
    assert Relation("s", "m", "m", populated=False).obstacle == "a materialized view that was never refreshed"
