"""Dead letters: why a message failed, as SQS can carry it, and how long one rests that is tried again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pg8000.exceptions import DatabaseError

from tests.unit.test_tables import NAMES
from tidelog.deadletters import Letter
from tidelog.errors import AccessDenied, TidelogError, UnknownTable
from tidelog.letters import (
    Failure,
    Origin,
    Received,
    failure_of,
    from_attributes,
    retry_seconds,
    size,
    to_attributes,
)
from tidelog.messages import encode, ingest
from tidelog.tables import TableName

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MESSAGE = Received("id", "receipt", "{}", "tidelog-work.fifo", "public.orders", 3, "2026-11-23T11:50:00+00:00")
SOME = st.text(min_size=1)
FAILURES = st.builds(
    Failure,
    error=SOME,
    reason=SOME,
    hint=st.text(),
    table=st.text(),
    run=SOME,
    tries=st.integers(1, 1000),
    first_seen=SOME,
    failed_at=SOME,
)
ORIGINS = st.builds(Origin, queue=SOME, group=SOME)


def sendable(text: str) -> bool:
    """Whether SQS takes a text: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html."""
    return text != "" and all(
        code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF
        for code in map(ord, text)
    )


@pytest.mark.parametrize(("tries", "seconds"), [(1, 60), (2, 120), (3, 240), (4, 480), (5, 960)])
def test_a_message_rests_twice_as_long_each_time(tries: int, seconds: int) -> None:
    """Give or take a fifth, by chance."""
    chances = (0.0, 0.5, 1.0)
    assert [retry_seconds(60, tries, chance) for chance in chances] == [seconds * 0.8, seconds, seconds * 1.2]


@given(st.floats(0, 1e9), st.integers(1, 10**6), st.floats(0, 1))
@example(3600, 10, 1.0)
@example(0, 1, 0.0)
@example(1, 10**6, 1.0)
def test_no_rest_is_too_short_or_longer_than_sqs_can_hide(base: float, tries: int, chance: float) -> None:
    """At least a second, at most 12 hours from the receipt; in between a fifth off at most, but for rounding."""
    seconds = retry_seconds(base, tries, chance)
    assert 1 <= seconds <= 12 * 3600 - 900  # less what the worker may have taken
    meant = base * 2.0 ** min(tries - 1, 100)
    if 1.25 <= meant <= 30_000:
        assert 0.8 * meant - 0.5 <= seconds <= 1.2 * meant + 0.5


@given(FAILURES, ORIGINS)
def test_a_failure_reads_back_from_its_attributes(failure: Failure, origin: Origin) -> None:
    """Whatever its words are; an empty one is left out, since SQS takes none. SQS takes ten attributes at most."""
    attributes = to_attributes(failure, origin)
    assert from_attributes(attributes) == (failure, origin)
    assert len(attributes) <= 10
    assert all(attributes.values())


@given(st.dictionaries(st.sampled_from([*Failure.__struct_fields__, *Origin.__struct_fields__, "x"]), st.text()))
@example({})
def test_attributes_of_somebody_else_are_no_failure(attributes: dict[str, str]) -> None:
    """A message may have some of the same names."""
    found = from_attributes(attributes)
    needed = {*Failure.__struct_fields__, *Origin.__struct_fields__} - {"table", "hint"}
    assert found is None or needed <= attributes.keys()


@given(st.text(), st.dictionaries(SOME, SOME, max_size=10))
def test_the_size_of_a_message_is_what_sqs_counts(body: str, attributes: dict[str, str]) -> None:
    """Bytes of UTF-8: the body, and name, type and value of each attribute."""
    counted = len(body.encode()) + sum(len(f"{name}String{value}".encode()) for name, value in attributes.items())
    assert size(body, attributes) == counted


@given(st.text(st.characters()), st.text(st.characters()), st.text(st.characters(exclude_categories=["Cs"])))
@example("\0\x1b[31m\ud800\ufffe", "\x7f", "\x01")
@example("x" * 5000, "é" * 5000, "t" * 5000)
def test_what_is_told_of_a_failure_is_what_sqs_takes(reason: str, hint: str, table: str) -> None:
    """No control character and no half of one, and no end of text; all that can be shown is left as it is."""
    failure = failure_of(AccessDenied("read", "x", reason, hint), MESSAGE, table=table, run="r", now=NOW)
    attributes = to_attributes(failure, Origin("q", "g"))
    assert all(map(sendable, attributes.values()))
    assert size("", attributes) < 30_000
    for told, given_ in ((failure.hint, hint), (failure.table, table)):
        if len(given_) <= 2000 and (given_ == "" or sendable(given_)):
            assert told == given_
        else:
            assert "\N{REPLACEMENT CHARACTER}" in told or told.endswith("…")


def test_an_error_of_tidelog_is_told_in_its_own_words() -> None:
    """With what the message was, and the request whose log has more."""
    error = UnknownTable("read", "public.orders", "there is no such table.", "Check its name")
    assert failure_of(error, MESSAGE, table="public.orders", run="request 7", now=NOW) == Failure(
        error="UnknownTable",
        reason="read public.orders: there is no such table",
        hint="Check its name",
        table="public.orders",
        run="request 7",
        tries=3,
        first_seen="2026-11-23T11:50:00+00:00",
        failed_at="2026-11-23T12:00:00+00:00",
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a row: 4711"),
        KeyError("a row: 4711"),
        UnicodeDecodeError("utf-8", b"a row: 4711", 0, 1, "a row: 4711"),
        DatabaseError({"M": "a row: 4711", "D": "4711"}),
        RuntimeError(AccessDenied("read", "a row: 4711", "4711", "4711")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_text_of_any_other_error_is_never_told(error: Exception) -> None:
    """It may hold a row; the class and the request are enough to find it in the log."""
    error.__cause__ = ValueError("4711")
    error.add_note("4711")
    failure = failure_of(error, MESSAGE, table="public.orders", run="request 7", now=NOW)
    assert failure.error == type(error).__name__
    assert type(error).__name__ in failure.reason
    assert "request 7" in failure.hint
    assert "4711" not in repr(failure)


@given(NAMES)
@example(TableName("public", "a\x01b"))
def test_a_letter_names_its_table_exactly(table: TableName) -> None:
    """Also where an attribute could not: who asks for the letters of a table asks by its name."""
    failure = failure_of(TidelogError("a", "b", "c"), MESSAGE, table=str(table), run="r", now=NOW)
    fields: dict[str, Any] = {"id": "i", "receipt": "r", "arrived": NOW, "origin": Origin("q", "g")}
    for known in (failure, None):
        assert Letter(body=encode(ingest(table, "now")), failure=known, **fields).table == str(table)
        assert Letter(body="{", failure=known, **fields).table == ""
