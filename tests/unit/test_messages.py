"""Work messages: read strictly, and refused in words that help."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.test_tables import NAMES
from tests.unit.test_timestamps import MOMENTS
from tidelog import messages
from tidelog.errors import InvalidMessage, Permanent
from tidelog.messages import Backfill, Ingest, Message, ReadChunk
from tidelog.tables import TableName

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
VALID: dict[str, Any] = {"version": 1, "type": "ingest", "table": "public.orders", "tick": "2026-11-23T12:00:00Z"}
RANGE: dict[str, Any] = VALID | {"type": "backfill", "tick": ..., "from": "2024-01-31", "to": "2024-03-01"}
ALL: dict[str, Any] = RANGE | {"from": ..., "to": ..., "all": True}
CHUNK: dict[str, Any] = RANGE | {"from": ..., "to": ..., "plan": 7, "chunk": 1}
"""Messages with the fields that are not `...`."""
HEAD: dict[str, Any] = {"version": 1, "type": "backfill", "table": "public.orders"}
BACKFILL_FIELDS = [*HEAD, "from", "to", "all", "column", "step", "request", "plan", "chunk"]
PLANS = st.integers(1, 10**12)

WORDS = ["", "2024-01-31", "2024-03-01T12:00+02:00", "2024-02-30", "9999-12-31T23:59Z", "1h", "9mo", "both", "a.b"]
LIKELY = st.sampled_from(WORDS) | st.booleans() | st.integers() | st.none()


def body(message: dict[str, Any]) -> str:
    """Return a message as it is sent."""
    return json.dumps({field: value for field, value in message.items() if value is not ...})


@st.composite
def spans(draw: st.DrawFn) -> tuple[datetime, datetime]:
    """Draw a begin and a later end."""
    since, until = sorted([draw(MOMENTS), draw(MOMENTS)])
    assume(since < until)
    return since, until


@given(NAMES, st.text(), st.none() | st.integers(0, 2**31), PLANS, PLANS)
def test_a_message_reads_back_as_it_was_sent(
    table: TableName, tick: str, configuration: int | None, plan: int, chunk: int
) -> None:
    """And names the table, whatever characters are in it."""
    for message in (messages.ingest(table, tick, configuration), messages.chunk(table, plan, chunk)):
        assert messages.decode(messages.encode(message)) == message
        assert message.table_name == table


def test_what_is_sent_again_leaves_the_configuration_to_the_worker() -> None:
    """All else stays as it is, and so does what is no message of a tick."""
    table = TableName("public", "orders")
    assert messages.sent_again(messages.encode(messages.ingest(table, "now", 7))) == messages.encode(
        messages.ingest(table, "now")
    )
    for body in (messages.encode(messages.ingest(table, "now")), messages.encode(messages.chunk(table, 1, 2)), "{", ""):
        assert messages.sent_again(body) == body


OPTIONS = st.fixed_dictionaries(
    {}, optional={"column": st.text(), "step": st.sampled_from(["", "9999d", "12mo"]), "request": st.text()}
)


@given(NAMES, spans(), OPTIONS)
def test_a_backfill_reads_back_as_it_was_sent(
    table: TableName, span: tuple[datetime, datetime], options: dict[str, str]
) -> None:
    """Its ends are read as UTC, and are the same moments."""
    ends = {"from": span[0].isoformat(), "to": span[1].isoformat()}
    message = messages.decode(json.dumps(HEAD | {"table": str(table)} | ends | options))
    assert isinstance(message, Backfill)
    assert messages.decode(messages.encode(message)) == message
    assert (message.table_name, message.all) == (table, False)
    assert (message.column, message.step) == (options.get("column", "both"), options.get("step", ""))
    assert message.request == options.get("request", "")
    for text, moment in zip((message.since, message.until), span, strict=True):
        assert datetime.fromisoformat(text) == moment
        assert text.endswith("+00:00")


@given(NAMES, st.text())
def test_a_backfill_of_all_rows_reads_back_as_it_was_sent(table: TableName, request: str) -> None:
    """It has no ends."""
    message = messages.decode(json.dumps(HEAD | {"table": str(table), "all": True, "request": request}))
    assert isinstance(message, Backfill)
    assert messages.decode(messages.encode(message)) == message
    assert (message.table_name, message.all, message.request) == (table, True, request)
    assert (message.since, message.until, message.step, message.column) == ("", "", "", "both")


def test_a_range_may_be_written_in_any_zone_and_to_the_day() -> None:
    """What stands on the queue is UTC."""
    message = messages.decode(body(RANGE | {"to": "2024-03-01 12:00+02"}))
    assert isinstance(message, Backfill)
    assert (message.since, message.until) == ("2024-01-31T00:00:00+00:00", "2024-03-01T10:00:00+00:00")
    assert (message.column, message.step, message.all, message.request) == ("both", "", False, "")


@pytest.mark.parametrize(
    ("message", "kind"),
    [(VALID, Ingest), (RANGE, Backfill), (RANGE | {"all": False}, Backfill), (ALL, Backfill), (CHUNK, ReadChunk)],
)
def test_a_message_is_known_by_its_type_and_a_chunk_by_its_plan(message: dict[str, Any], kind: type) -> None:
    """Each of these is taken as it stands here."""
    assert type(messages.decode(body(message))) is kind


@pytest.mark.parametrize(("wrong", "kind"), [("", Ingest), (body(RANGE | {"x": 1}), Backfill)])
def test_few_fields_are_enough_for_a_person(wrong: str, kind: type) -> None:
    """The example that every refusal shows is one that is taken."""
    with pytest.raises(InvalidMessage) as refused:
        messages.decode(wrong)
    example = messages.decode(refused.value.hint.removeprefix("Send for example "))
    assert example.table_name == TableName("public", "orders")
    assert type(example) is kind


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
        ({"tick": "\ud800"}, "tick '\\ud800' holds half a character"),
        ({"configuration": None}, "configuration null must be a whole number"),
        ({"configuration": True}, "configuration true must be a whole number"),
        ({"configuration": -1}, "configuration -1 must be 0 or greater"),
        ({"from": "2024-01-31"}, "'from' '2024-01-31' is no field of a message of type ingest"),
        ({"tabel": "x.y"}, "'tabel' 'x.y' is no field of a message of type ingest"),
        ({"\ud800": 1}, "'\\ud800' 1 is no field"),
        ({"table": "x" * 100_000}, "… (100000 characters) is not a table name"),
        ({"x" * 100_000: 1}, "… (100000 characters) 1 is no field"),
    ],
)
def test_a_wrong_message_is_refused_with_field_value_and_remedy(change: dict[str, Any], words: str) -> None:
    """One line that a person can act on, however long or odd the value is."""
    refuse(VALID | change, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"from": ...}, "from '' is missing: a backfill needs from and to, or all"),
        ({"to": ...}, "to '' is missing: a backfill needs from and to, or all"),
        ({"from": ..., "to": ...}, "from '' is missing"),
        ({"from": ..., "to": ..., "all": False}, "from '' is missing"),
        ({"from": ""}, "from '' is missing"),
        ({"from": None}, "from null must be text"),
        ({"to": 20240301}, "to 20240301 must be text"),
        ({"from": "yesterday"}, "from 'yesterday' is not a date or a timestamp such as 2024-01-31"),
        ({"to": "2024-02-30"}, "to '2024-02-30' is not a date"),
        ({"to": "9" * 100_000}, "… (100000 characters) is not a date"),
        ({"to": "2024-01-31"}, "to '2024-01-31' must be later than 2024-01-31T00:00:00+00:00"),
        ({"to": "2024-01-30"}, "to '2024-01-30' must be later than 2024-01-31T00:00:00+00:00"),
        ({"to": "2024-01-31T01:00+02:00"}, "to '2024-01-31T01:00+02:00' must be later than 2024-01-31T00:00:00+00:00"),
        ({"step": "1y"}, "step '1y' is not a length such as 6h, 1d, 1w or 1mo"),
        ({"step": 1}, "step 1 must be text"),
        ({"step": "1h", "to": "2034-01-31"}, "step '1h' gives more than 10,000 pieces: name a greater one"),
        ({"all": True}, "from '2024-01-31' has no place beside all: leave one of the two out"),
        ({"all": True, "from": ...}, "to '2024-03-01' has no place beside all"),
        ({"all": 1}, "all 1 must be true or false"),
        ({"all": "yes"}, "all 'yes' must be true or false"),
        ({"column": 5}, "column 5 must be text"),
        ({"column": ["created_at"]}, 'column ["created_at"] must be text'),
        ({"column": "\ud800"}, "column '\\ud800' holds half a character"),
        ({"request": 7}, "request 7 must be text"),
        ({"request": "\udfff"}, "request '\\udfff' holds half a character"),
        ({"table": ...}, "table null must be text"),
        ({"table": "orders"}, "table 'orders' is not a table name: write schema.table"),
        ({"tables": ["public.orders"]}, "'tables' [\"public.orders\"] is no field of a message of type backfill"),
        ({"tick": "2026-11-23T12:00:00Z"}, "'tick' '2026-11-23T12:00:00Z' is no field of a message of type backfill"),
        ({"since": "2024-01-31"}, "'since' '2024-01-31' is no field of a message of type backfill"),
        ({"dry_run": True}, "'dry_run' true is no field of a message of type backfill"),
        ({"chunk": 1}, "'chunk' 1 is no field of a message of type backfill"),
    ],
)
def test_a_wrong_backfill_is_refused_with_field_value_and_remedy(change: dict[str, Any], words: str) -> None:
    """One that is taken is shown: of its kind, so that a person sees what a range looks like."""
    assert '"from"' in refuse(RANGE | change, words)


@pytest.mark.parametrize("field", ["column", "step"])
def test_all_rows_have_no_range_and_no_pieces(field: str) -> None:
    """Whoever names both means one of them, and only he knows which."""
    refuse(ALL | {field: "1d"}, f"{field} '1d' has no place beside all: leave one of the two out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan": "7"}, "plan '7' must be a whole number"),
        ({"plan": 7.0}, "plan 7.0 must be a whole number"),
        ({"plan": True}, "plan true must be a whole number"),
        ({"plan": None}, "plan null must be a whole number"),
        ({"chunk": False}, "chunk false must be a whole number"),
        ({"chunk": ...}, "chunk null must be a whole number"),
        ({"from": "2024-01-31"}, "'from' '2024-01-31' is no field of a message of type backfill"),
        ({"all": True}, "'all' true is no field of a message of type backfill"),
        ({"request": "x"}, "'request' 'x' is no field of a message of type backfill"),
    ],
)
def test_a_wrong_chunk_is_refused_with_field_value_and_remedy(change: dict[str, Any], words: str) -> None:
    """A person who meant a range sees how one is written."""
    assert '"from"' in refuse(CHUNK | change, words)


def refuse(message: dict[str, Any], words: str) -> str:
    """Have a message refused in words that help; return them."""
    with pytest.raises(InvalidMessage) as refused:
        messages.decode(body(message))
    text = str(refused.value)
    assert words in text
    assert "Send for example {" in text
    assert len(text.encode()) < 400
    assert isinstance(refused.value, Permanent)
    return text


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


@given(
    st.text()
    | JSON.map(json.dumps)
    | st.dictionaries(st.sampled_from([*VALID, "x"]), JSON).map(json.dumps)
    | st.dictionaries(st.sampled_from([*BACKFILL_FIELDS, "x"]), JSON | LIKELY).map(json.dumps)
    | st.dictionaries(st.sampled_from(BACKFILL_FIELDS), LIKELY).map(lambda some: json.dumps(HEAD | some))
    | st.fixed_dictionaries({}, optional=dict.fromkeys(BACKFILL_FIELDS, LIKELY)).map(
        lambda some: json.dumps(HEAD | {"from": "0001-01-01", "to": "9999-12-31"} | some)
    )
)
def test_no_body_raises_anything_else(body: str) -> None:
    """A body is a message, or it is an InvalidMessage."""
    with contextlib.suppress(InvalidMessage):
        message = messages.decode(body)
        assert messages.decode(messages.encode(message)) == message


def of_table(table: TableName, plan: int, chunk: int) -> list[Message]:
    """Return a message of each kind."""
    backfill = messages.read(HEAD | {"table": str(table), "all": True})
    return [messages.ingest(table, "now"), backfill, messages.chunk(table, plan, chunk)]


@given(NAMES, PLANS, PLANS)
def test_a_group_is_one_that_sqs_takes(table: TableName, plan: int, chunk: int) -> None:
    """At most 128 ASCII characters, and another for another table."""
    other = TableName(f"x{table.schema}"[:9], table.name)
    groups = [message.group for message in of_table(table, plan, chunk)]
    for group in groups:
        assert group.isascii()
        assert group.isprintable()
        assert 1 <= len(group) <= 128
        assert " " not in group
    assert other == table or not set(groups) & {message.group for message in of_table(other, plan, chunk)}


@given(NAMES, st.sets(st.tuples(PLANS, PLANS), min_size=2, max_size=9))
def test_chunks_are_read_side_by_side(table: TableName, chunks: set[tuple[int, int]]) -> None:
    """Each has a group of its own, and waits neither for the table's ticks nor for a backfill that is planned."""
    groups = {messages.chunk(table, *chunk).group for chunk in chunks}
    assert len(groups) == len(chunks)
    assert len(groups | {message.group for message in of_table(table, 1, 1)[:2]}) == len(chunks) + 2


@given(NAMES)
def test_backfills_of_a_table_are_planned_one_after_another(table: TableName) -> None:
    """Whatever their ranges are."""
    fields = HEAD | {"table": str(table)}
    one, other = (messages.read(fields | more) for more in ({"all": True}, {"from": "2024-01-01", "to": "2024-01-02"}))
    assert one.group == other.group
    assert one.deduplication != other.deduplication


def test_a_tick_that_comes_twice_sends_the_same_message_once() -> None:
    """The deduplication id hangs on table and tick, and on nothing else."""
    table, other = TableName("public", "a"), TableName("public", "b")
    sent = [messages.ingest(*each).deduplication for each in [(table, "1"), (table, "1"), (table, "2"), (other, "1")]]
    assert sent[0] == sent[1]
    assert len(set(sent)) == 3


@pytest.mark.parametrize("calm", ["yesterday", "2026-11-30T05:10:07", "2026-13-01T00:00:00Z"])
def test_since_when_a_table_is_calm_is_a_moment_with_a_zone(calm: str) -> None:
    """It is compared with others; without a zone it would be the worker's guess."""
    with pytest.raises(InvalidMessage, match=f"calm '{calm}' must be a moment with a zone"):
        messages.decode(json.dumps({"version": 1, "type": "ingest", "table": "public.t", "calm": calm}))
    sent = messages.ingest(TableName("public", "t"), "now", calm=datetime(2026, 11, 30, tzinfo=UTC))
    assert sent.calm == "2026-11-30T00:00:00.000+00:00"
    assert messages.decode(messages.encode(sent)) == sent
