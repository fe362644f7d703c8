"""Each call of a run to S3 and Parameter Store, answered in each wrong way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.stack import Stack, deployed, hold
from tests.conftest import CreateDatabase

ONCE, EACH_TRY = 1, 5
WRONG = [
    ("500 InternalError", False, ONCE),
    ("500 InternalError", True, ONCE),
    ("503 SlowDown", False, ONCE),
    ("409 ConditionalRequestConflict", False, ONCE),
    ("reset", False, ONCE),
    ("reset", True, ONCE),
    ("reset", True, EACH_TRY),
]
"""What the answer is, whether the call is carried out all the same, and how often."""
SUMMARY = [("400 ThrottlingException", False, ONCE), ("400 ValidationException", False, ONCE), ("reset", True, ONCE)]


@pytest.fixture
def stack(create_database: CreateDatabase, tmp_path: Path) -> Iterator[Stack]:
    """The template, with its queues worked off."""
    with create_database() as database, deployed(database, tmp_path) as stack:
        database.run("CREATE SEQUENCE version")
        stack.eager = True
        stack.sandbox.start_mappings()
        yield stack


def create(stack: Stack, table: str) -> None:
    """Make a table of two rows."""
    stack.tide.run(
        f"CREATE TABLE {table} (id int PRIMARY KEY, version bigint DEFAULT nextval('version'))",
        f"INSERT INTO {table} VALUES (1), (2)",
    )


def calls_to_s3(stack: Stack) -> list[str]:
    """Return what a run of one table was seen to ask of S3, each once."""
    create(stack, "trial")
    stack.tick()
    stack.wait()
    calls = [call.call.partition(" #")[0] for call in stack.plan.calls("public.trial")]
    return [call for call in dict.fromkeys(calls) if call.startswith("s3")]


def of_table(call: str, table: str) -> str:
    """Return an expression for such a call that is about one table."""
    _, method, folder, *query = call.split(" ")
    asked = "".join(rf"(?=.*[?&]{re.escape(name)}\b)" for name in query)
    return rf"^s3 {method} (?=.*{folder}\b)(?=.*{re.escape(table)}\b){asked or '[^?]*$'}"


def test_no_wrong_answer_loses_a_row_or_writes_one_twice(stack: Stack) -> None:
    """Each table has another wrong answer to another call. Some runs go on, the others' messages come again."""
    calls = calls_to_s3(stack)
    cases = [(call, wrong) for call in calls for wrong in WRONG]
    tables = [f"public.t_{number:03}" for number in range(len(cases))]
    for table, (call, (what, carried_out, times)) in zip(tables, cases, strict=True):
        create(stack, table)
        stack.sandbox.cloud.disturb(of_table(call, table), what, carried_out=carried_out, times=times)
    stack.sandbox.stop_mappings()
    assert stack.tick().succeeded
    for operation in ("GetParameter", "PutParameter"):
        for what, carried_out, times in SUMMARY:
            stack.sandbox.cloud.disturb(f"^ssm {operation}", what, carried_out=carried_out, times=times)
    stack.sandbox.start_mappings()
    stack.wait()
    cases += [(operation, wrong) for operation in ("GetParameter", "PutParameter") for wrong in SUMMARY]
    struck = zip(cases, stack.sandbox.cloud.calm(), strict=True)
    assert not [case for case, times in struck if times != case[1][2]], "it was never answered so"
    assert len(calls) >= 6, calls
    hold(stack.tide, ["public.trial", *tables])
    assert [stack.tide.kinds(table) for table in tables] == [["snapshotted"]] * len(tables)
    assert not stack.take_letters()
