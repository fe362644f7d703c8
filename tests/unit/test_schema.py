"""Schema documents: fingerprints that change when readers have to know, and differences in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tidelog.schema import ColumnDocument, Difference, SchemaDocument

ID = ColumnDocument("id", "integer", not_null=True, number=1)
NAME = ColumnDocument("name", "text", number=2)
MOOD = ColumnDocument("mood", "mood", labels=("sad", "ok"), number=3)
BASE = SchemaDocument("public.t", (ID, NAME, MOOD), ("id",))

COLUMNS = st.builds(
    ColumnDocument,
    name=st.sampled_from(["a", "b"]),
    type=st.sampled_from(["text", "integer"]),
    not_null=st.booleans(),
    default=st.none() | st.sampled_from(["1", ""]),
    generated=st.sampled_from(["", "s", "v"]),
    labels=st.sampled_from([(), ("x",), ("x", "y")]),
    number=st.integers(1, 3),
)
DOCUMENTS = st.builds(
    SchemaDocument,
    table=st.just("public.t"),
    columns=st.lists(COLUMNS, max_size=2, unique_by=(lambda column: column.name, lambda column: column.number)).map(
        tuple
    ),
    key=st.sampled_from([(), ("a",), ("a", "b")]),
)


@given(DOCUMENTS, DOCUMENTS)
def test_two_documents_share_a_fingerprint_only_if_they_are_the_same(
    one: SchemaDocument, other: SchemaDocument
) -> None:
    """It names an object that is never written twice."""
    assert (one.fingerprint == other.fingerprint) == (one == other)


def test_the_tables_name_is_not_part_of_the_fingerprint() -> None:
    """A renamed table's columns have not changed."""
    assert SchemaDocument("other.name", BASE.columns, BASE.key).fingerprint == BASE.fingerprint


@pytest.mark.parametrize(
    ("columns", "key", "words"),
    [
        ((ID, NAME, MOOD, ColumnDocument("x", "text", number=4)), ("id",), "column x added"),
        ((ID, NAME), ("id",), "column mood dropped"),
        ((ID, replace(NAME, type="bytea"), MOOD), ("id",), "column name changed (type 'text' to 'bytea')"),
        (
            (ID, replace(NAME, default="''", not_null=True), MOOD),
            ("id",),
            """column name changed (not_null False to True, default none to "''")""",
        ),
        ((ID, replace(NAME, name="title"), MOOD), ("id",), "column name renamed to title"),
        (
            (ID, replace(NAME, name="title", type="bytea"), MOOD),
            ("id",),
            "column name renamed to title; column title changed (type 'text' to 'bytea')",
        ),
        ((ID, MOOD, replace(NAME, number=4)), ("id",), "column name added; column name dropped"),
        (
            (ID, replace(NAME, name="mood"), replace(MOOD, name="name")),
            ("id",),
            "column name renamed to mood; column mood renamed to name",
        ),
        (
            (ID, NAME, replace(MOOD, labels=("blue", "ok"))),
            ("id",),
            "column mood changed (labels 'sad' to 'blue')",
        ),
        (
            (ID, NAME, replace(MOOD, labels=("sad", "so", "ok"))),
            ("id",),
            "column mood changed (labels 'so' added)",
        ),
        (
            (ID, NAME, replace(MOOD, labels=("blue", "ok", "new"))),
            ("id",),
            "column mood changed (labels 'sad', 'ok' to 'blue', 'ok', 'new')",
        ),
        ((ID, NAME, MOOD), (), "primary key id to none"),
        ((NAME, ID, MOOD), ("id",), "order or numbers of columns changed"),
        ((NAME, MOOD), (), "column id dropped; primary key id to none"),
    ],
)
def test_a_difference_is_told_in_words(columns: tuple[ColumnDocument, ...], key: tuple[str, ...], words: str) -> None:
    """What was added, dropped, renamed or changed, and from what to what."""
    assert SchemaDocument("public.t", columns, key).compare(BASE).words == words


def test_what_a_table_inherits_from_is_told() -> None:
    """Its rows are the same."""
    child = SchemaDocument("public.t", BASE.columns, BASE.key, ("public.a",))
    assert child.compare(BASE) == Difference("inherits public.a")
    assert BASE.compare(child) == Difference("no longer inherits public.a")


def test_a_thousand_labels_are_not_all_told() -> None:
    """The event stays small."""
    many = replace(MOOD, labels=(*MOOD.labels, *(f"label {number}" for number in range(1000))))
    words = SchemaDocument("public.t", (ID, NAME, many), ("id",)).compare(BASE).words
    assert words.endswith("'label 19' … and 980 more added)")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((ID, MOOD), "field mood added, field name dropped"),
        ((ID, replace(NAME, name="title")), "field name renamed to title"),
        ((replace(ID, type="bigint"), NAME), "field id changed (type 'integer' to 'bigint')"),
        ((NAME, ID), "order of fields"),
    ],
)
def test_a_difference_within_a_composite_type_is_told_too(fields: tuple[ColumnDocument, ...], words: str) -> None:
    """Its fields change the lines without a column of the table being touched."""
    new, old = (SchemaDocument("t", (ColumnDocument("pair", "pair[]", fields=f),), ()) for f in (fields, (ID, NAME)))
    assert new.compare(old).words == f"column pair changed ({words})"


ADDED = ColumnDocument("x", "text", number=4)
PAIR = ColumnDocument("pair", "public.pair", fields=(ID, NAME), number=5)
VIRTUAL = ColumnDocument("twice", "integer", default="(id * 2)", generated="v", number=6)
STORED = replace(VIRTUAL, generated="s")
OUTDATED: dict[str, tuple[ColumnDocument | None, ColumnDocument | None, str]] = {
    "a nullable column added": (None, ADDED, ""),
    "a column added with a default": (None, replace(ADDED, default="1"), "column x was added with a default"),
    "a virtual column added": (None, VIRTUAL, "column twice was added with an expression"),
    "a stored generated column added": (None, STORED, ""),
    "a column dropped": (ADDED, None, ""),
    "a column renamed": (ADDED, replace(ADDED, name="y"), "column x was renamed to y"),
    "a column dropped and added": (ADDED, replace(ADDED, number=7), "column x was added under the name of another"),
    "a column of that name generated": (replace(STORED, number=7), STORED, ""),
    "not null": (ADDED, replace(ADDED, not_null=True), ""),
    "a changed default": (replace(ADDED, default="1"), replace(ADDED, default="2"), ""),
    "another virtual expression": (
        VIRTUAL,
        replace(VIRTUAL, default="(id * 3)"),
        "column twice is generated by another expression",
    ),
    "another stored expression": (STORED, replace(STORED, default="(id * 3)"), ""),
    "a label added": (MOOD, replace(MOOD, labels=("sad", "so", "ok")), ""),
    "a label renamed": (MOOD, replace(MOOD, labels=("sad", "fine")), "labels of column mood were renamed"),
    "labels exchanged": (MOOD, replace(MOOD, labels=("ok", "sad")), "labels of column mood were renamed"),
    "an enum renamed": (MOOD, replace(MOOD, type="public.humour"), ""),
    "a field added": (PAIR, replace(PAIR, fields=(ID, NAME, ADDED)), "fields of column pair are others"),
    "a field dropped": (PAIR, replace(PAIR, fields=(ID,)), "fields of column pair are others"),
    "a field renamed": (
        PAIR,
        replace(PAIR, fields=(ID, replace(NAME, name="title"))),
        "fields of column pair are others",
    ),
    "a label renamed within a field": (
        replace(PAIR, fields=(MOOD,)),
        replace(PAIR, fields=(replace(MOOD, labels=("sad", "fine")),)),
        "fields of column pair are others",
    ),
    "a label added within a field": (
        replace(PAIR, fields=(MOOD,)),
        replace(PAIR, fields=(replace(MOOD, labels=("sad", "ok", "new")),)),
        "",
    ),
}
RETYPED = [
    ("text", "character varying(9)", True),
    ("character varying(9)", "character varying(20)", True),
    ("character varying(9)[]", "text[]", True),
    ("numeric(10,2)", "numeric(12,2)", True),
    ("timestamp(3) without time zone", "timestamp without time zone", True),
    ("integer", "bigint", True),
    ("integer[]", "bigint[]", True),
    ("text", "jsonb", True),
    ("timestamp without time zone", "timestamp with time zone", False),
    ("timestamp with time zone", "timestamp without time zone", False),
    ("cidr", "inet", False),
    ("integer", "oid", False),
    ("text", "text[]", False),
    ("text", "public.citext", False),
]


@pytest.mark.parametrize("what", OUTDATED)
def test_what_changes_old_rows_without_a_new_version_is_told_apart(what: str) -> None:
    """By what it does to lines that were written before."""
    old, new, outdated = OUTDATED[what]
    before, after = (SchemaDocument("t", (ID, *([column] if column else [])), ()) for column in (old, new))
    assert after.compare(before).outdated == outdated


@pytest.mark.parametrize(("old", "new", "harmless"), RETYPED)
def test_a_type_changes_old_lines_unless_the_table_is_rewritten_or_the_text_is_the_same(
    old: str, new: str, harmless: bool
) -> None:
    """Of types that are not known it is taken for granted that they share their bytes and not their text."""
    before, after = (SchemaDocument("t", (replace(NAME, type=kind),), ()) for kind in (old, new))
    assert after.compare(before).outdated == ("" if harmless else f"column name went from type {old} to {new}")


def test_a_default_that_was_dropped_since_still_fills_old_rows() -> None:
    """The rows of before have it; the catalog says so."""
    after = SchemaDocument("t", (ID, ADDED), ())
    assert after.compare(SchemaDocument("t", (ID,), ()), filled=["x"]).outdated == "column x was added with a default"


def test_columns_of_a_table_created_anew_are_compared_by_name() -> None:
    """Their numbers are others, and mean nothing."""
    anew = SchemaDocument("t", (replace(NAME, number=1), replace(ID, number=2), MOOD), ("id",))
    assert anew.compare(BASE, anew=True) == Difference("order or numbers of columns changed")
    assert "renamed" in anew.compare(BASE).words


@given(DOCUMENTS, DOCUMENTS, st.booleans())
def test_a_difference_names_every_column_that_is_not_in_both(
    one: SchemaDocument, other: SchemaDocument, anew: bool
) -> None:
    """And what outdates lines is always part of a difference."""
    found = one.compare(other, anew=anew)
    for column in {c.name for c in one.columns} ^ {c.name for c in other.columns}:
        assert f"column {column} " in found.words or f"renamed to {column}" in found.words
    if one == other:
        assert not found.outdated
    assert found.words


@given(DOCUMENTS)
def test_what_only_takes_away_outdates_nothing(document: SchemaDocument) -> None:
    """Lines of before have keys that the table has no more."""
    for column in document.columns:
        rest = tuple(each for each in document.columns if each is not column)
        assert not SchemaDocument(document.table, rest, ()).compare(document).outdated


def test_a_column_that_is_excluded_or_taken_in_again_was_not_altered() -> None:
    """Lines lack what was excluded, whatever the column is like; one that is dropped while it is excluded is gone."""
    name = replace(ADDED, name="name", default="'x'")
    whole, part = SchemaDocument("t", (ID, name), ()), SchemaDocument("t", (ID,), (), excluded=("name",))
    assert part.compare(whole) == Difference("column name is excluded")
    assert whole.compare(part) == Difference("column name is no longer excluded", "column name is no longer excluded")
    assert SchemaDocument("t", (ID,), ()).compare(part) == Difference("column name dropped")
