"""Schema documents: fingerprints that change when readers have to know, and differences in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog.schema import ColumnDocument, SchemaDocument

ID = ColumnDocument("id", "integer", not_null=True)
NAME = ColumnDocument("name", "text")
MOOD = ColumnDocument("mood", "mood", labels=("sad", "ok"))
BASE = SchemaDocument("public.t", (ID, NAME, MOOD), ("id",))

COLUMNS = st.builds(
    ColumnDocument,
    name=st.sampled_from(["a", "b"]),
    type=st.sampled_from(["text", "integer"]),
    not_null=st.booleans(),
    default=st.none() | st.sampled_from(["1", ""]),
    generated=st.sampled_from(["", "s", "v"]),
    labels=st.sampled_from([(), ("x",), ("x", "y")]),
)
DOCUMENTS = st.builds(
    SchemaDocument,
    table=st.just("public.t"),
    columns=st.lists(COLUMNS, max_size=2, unique_by=lambda column: column.name).map(tuple),
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
        ((ID, NAME, MOOD, ColumnDocument("x", "text")), ("id",), "column x added"),
        ((ID, NAME), ("id",), "column mood dropped"),
        ((ID, ColumnDocument("name", "bytea"), MOOD), ("id",), "column name changed (type 'text' to 'bytea')"),
        (
            (ID, ColumnDocument("name", "text", default="''", not_null=True), MOOD),
            ("id",),
            """column name changed (not_null False to True, default None to "''")""",
        ),
        (
            (ID, NAME, ColumnDocument("mood", "mood", labels=("blue", "ok"))),
            ("id",),
            "column mood changed (labels ('sad', 'ok') to ('blue', 'ok'))",
        ),
        ((ID, NAME, MOOD), (), "primary key id to none"),
        ((NAME, ID, MOOD), ("id",), "order of columns changed"),
        ((NAME, MOOD), (), "column id dropped; primary key id to none"),
    ],
)
def test_a_difference_is_told_in_words(columns: tuple[ColumnDocument, ...], key: tuple[str, ...], words: str) -> None:
    """What was added, dropped or changed, and from what to what."""
    assert SchemaDocument("public.t", columns, key).difference(BASE) == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((ID, MOOD), "field mood added, field name dropped"),
        ((ColumnDocument("id", "bigint", not_null=True), NAME), "field id changed (type 'integer' to 'bigint')"),
        ((NAME, ID), "order of fields"),
    ],
)
def test_a_difference_within_a_composite_type_is_told_too(fields: tuple[ColumnDocument, ...], words: str) -> None:
    """Its fields change the lines without a column of the table being touched."""
    new, old = (SchemaDocument("t", (ColumnDocument("pair", "pair[]", fields=f),), ()) for f in (fields, (ID, NAME)))
    assert new.difference(old) == f"column pair changed ({words})"
