"""Work messages: read strictly, and refused in words that help."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_tables import NAMES
from tidelog import messages
from tidelog.errors import InvalidMessage, Permanent
from tidelog.tables import TableName

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
VALID: dict[str, Any] = {"version": 1, "type": "ingest", "table": "public.orders", "tick": "2026-11-23T12:00:00Z"}


@given(NAMES, st.text())
def test_a_message_reads_back_as_it_was_sent(table: TableName, tick: str) -> None:
    """And names the table, whatever characters are in it."""
    message = messages.ingest(table, tick)
    assert messages.decode(messages.encode(message)) == message
    assert message.table_name == table


def test_three_fields_are_enough_for_a_person() -> None:
    """The example that every refusal shows is one that is taken."""
    with pytest.raises(InvalidMessage) as refused:
        messages.decode("")
    example = refused.value.hint.removeprefix("Send for example ")
    assert messages.decode(example).table_name == TableName("public", "orders")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2 must be 1"),
        ({"version": True}, "version true must be 1"),
        ({"version": "1"}, "version '1' must be 1"),
        ({"version": ...}, "version null must be 1"),
        ({"type": "ingets"}, "type 'ingets' must be one of ingest"),
        ({"type": ["ingest"]}, 'type ["ingest"] must be one of ingest'),
        ({"table": ...}, "table null must be text"),
        ({"table": 7}, "table 7 must be text"),
        ({"table": "orders"}, "table 'orders' is not a table name: write schema.table"),
        ({"table": "a.b.c"}, "table 'a.b.c' is not a table name"),
        ({"table": "a.\ud800"}, "table 'a.\\ud800' is not a table name"),
        ({"table": "a.b\0"}, "table 'a.b\\x00' is not a table name"),
        ({"tick": 5}, "tick 5 must be text"),
        ({"tabel": "x.y"}, "'tabel' 'x.y' is no field of a message of type ingest"),
        ({"\ud800": 1}, "'\\ud800' 1 is no field"),
        ({"table": "x" * 100_000}, "… (100000 characters) is not a table name"),
        ({"x" * 100_000: 1}, "… (100000 characters) 1 is no field"),
    ],
)
def test_a_wrong_message_is_refused_with_field_value_and_remedy(change: dict[str, Any], words: str) -> None:
    """One line that a person can act on, however long or odd the value is."""
    message = {field: value for field, value in (VALID | change).items() if value is not ...}
    with pytest.raises(InvalidMessage) as refused:
        messages.decode(json.dumps(message))
    text = str(refused.value)
    assert words in text
    assert "Send for example {" in text
    assert len(text.encode()) < 400
    assert isinstance(refused.value, Permanent)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ("1" * 5000, "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"version":' + "[" * 900 + "]" * 900 + "}", "must be 1"),
    ],
)
def test_what_is_no_object_is_refused(body: str, words: str) -> None:
    """Even what only wants to exhaust the reader."""
    with pytest.raises(InvalidMessage, match=words):
        messages.decode(body)


def test_no_depth_of_nesting_gets_through_as_another_error() -> None:
    """Python's own recursion limit may be met while the value is read or while it is shown."""
    for depth in range(800, 1100):
        with pytest.raises(InvalidMessage):
            messages.decode('{"version":' + "[" * depth + "]" * depth + "}")


@given(st.text() | JSON.map(json.dumps) | st.dictionaries(st.sampled_from([*VALID, "x"]), JSON).map(json.dumps))
def test_no_body_raises_anything_else(body: str) -> None:
    """A body is a message, or it is an InvalidMessage."""
    with contextlib.suppress(InvalidMessage):
        message = messages.decode(body)
        assert messages.decode(messages.encode(message)) == message


@given(NAMES)
def test_the_group_of_a_table_is_one_that_sqs_takes(table: TableName) -> None:
    """At most 128 ASCII characters, and another for another table."""
    group = messages.ingest(table, "now").group
    assert group.isascii()
    assert group.isprintable()
    assert 1 <= len(group) <= 128
    assert " " not in group
    assert group != messages.ingest(TableName(table.schema + "x", table.name), "now").group


def test_a_tick_that_comes_twice_sends_the_same_message_once() -> None:
    """The deduplication id hangs on table and tick, and on nothing else."""
    table, other = TableName("public", "a"), TableName("public", "b")
    sent = [messages.ingest(*each).deduplication for each in [(table, "1"), (table, "1"), (table, "2"), (other, "1")]]
    assert sent[0] == sent[1]
    assert len(set(sent)) == 3
