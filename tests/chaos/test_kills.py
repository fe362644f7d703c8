"""A worker that dies after any one of its calls."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.stack import Stack, deployed, hold
from tests.conftest import CreateDatabase
from tidelog_sandbox.functions import Function
from tidelog_sandbox.runtime import Environment

TRIAL = "public.trial"


@pytest.fixture
def stack(create_database: CreateDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The template, with its queues worked off."""
    with create_database() as database, deployed(database, tmp_path) as stack:
        database.run("CREATE SEQUENCE version")
        worker = stack.sandbox.functions[stack.worker]
        monkeypatch.setattr(worker, "_put_back", partial(end_environment, worker))
        stack.sandbox.start_mappings()
        yield stack


def end_environment(worker: Function, environment: Environment) -> None:
    """End an environment after its first invocation, so that each run makes all of its calls."""
    with worker._lock:
        worker._busy.discard(environment)
    time.sleep(0.5)  # it notes that it has answered
    environment.close()


def create(stack: Stack, table: str) -> None:
    """Make a table of three rows."""
    stack.tide.run(
        f"CREATE TABLE {table} (id int PRIMARY KEY, version bigint DEFAULT nextval('version'))",
        f"INSERT INTO {table} SELECT generate_series(1, 3)",
    )


def change(stack: Stack, table: str) -> None:
    """Give a table new row versions, and a column."""
    stack.tide.run(
        f"ALTER TABLE {table} ADD note text",
        f"UPDATE {table} SET version = nextval('version') WHERE id = 1",
        f"DELETE FROM {table} WHERE id = 2",
        f"INSERT INTO {table} VALUES (4)",
    )


def calls_of_a_run(stack: Stack, table: str, begin: Callable[[], object]) -> list[str]:
    """Have a message of a table worked off in a process of its own; return the calls that this takes."""
    stack.cool()
    before = len(stack.plan.calls(table))
    begin()
    stack.wait(hidden=False)
    # A loop, such as the one that waits for the log, makes one call several times.
    return list(dict.fromkeys(call.call for call in stack.plan.calls(table)[before:]))


def kill_at(stack: Stack, deaths: Mapping[str, str], begin: Callable[[], object]) -> list[str]:
    """Have messages worked off, each in a process of its own that dies after the call of its table.

    Returns:
        The calls that were the last ones.
    """
    begun = len(stack.plan.calls())
    stack.plan.change(kill=deaths)
    stack.cool()
    begin()
    stack.wait(hidden=False)
    stack.plan.change()
    died = {call.table: call.call for call in stack.plan.calls()[begun:] if call.killed}
    escaped = {table: call for table, call in deaths.items() if died.get(table) != call}
    # Whether a run waits for the log depends on what else the server does; all else is in every run.
    assert all(call.startswith("postgres") for call in escaped.values()), escaped
    assert len(escaped) <= 2, escaped
    assert len(set(died.values())) == len(died), died
    return list(died.values())


def behind(success: list[str], failure: list[str]) -> list[str]:
    """Return the calls of a failure from the first one on that a success does without."""
    return failure[next(n for n, call in enumerate(failure) if call not in success) :]


def services(calls: Iterable[str]) -> set[str]:
    """Return what calls were made to."""
    return {call.split(" ")[0] for call in calls}


def test_a_worker_killed_after_any_of_its_calls_loses_nothing_and_repeats_nothing(stack: Stack) -> None:
    """The calls are those that a run was seen to make; each table has a worker that dies after another one of them.

    Of the first snapshots, what was uploaded and not published is thrown away too, as the bucket's lifecycle does.
    """
    create(stack, TRIAL)
    first = calls_of_a_run(stack, TRIAL, stack.tick)
    change(stack, TRIAL)
    second = calls_of_a_run(stack, TRIAL, stack.tick)
    tables = [f"public.t_{number:03}" for number in range(max(len(first), len(second)))]
    for table in tables[: len(first)]:
        create(stack, table)
    died = kill_at(stack, dict(zip(tables, first, strict=False)), stack.tick)
    assert services(died) == {"s3", "ssm", "secretsmanager", "postgres", "lambda"}, died
    assert stack.tide.lake.expire_uploads()
    for table in tables[len(first) :]:
        create(stack, table)
    stack.release()
    stack.tick()
    stack.wait()
    hold(stack.tide, [TRIAL, *tables])
    kinds = [stack.tide.kinds(table) for table in tables[: len(first)]]
    assert ["snapshotted", "remade"] in kinds
    assert ["snapshotted"] in kinds

    for table in tables:
        change(stack, table)
    died = kill_at(stack, dict(zip(tables, second, strict=False)), stack.tick)
    assert services(died) == {"s3", "ssm", "secretsmanager", "postgres", "lambda"}, died
    stack.release()
    stack.wait()
    hold(stack.tide, [TRIAL, *tables])
    assert all(stack.tide.kinds(table)[-2:] == ["schema_changed", "ingested"] for table in tables)


def test_a_worker_killed_after_any_call_by_which_it_fails_loses_no_message(stack: Stack) -> None:
    """What passes is tried again, what does not is one dead letter: also where nobody heard that it was sent."""

    def send(*tables: str) -> None:
        for table in tables:
            stack.send(f'{{"version":1,"type":"ingest","table":"{table}"}}')

    create(stack, TRIAL)
    success = calls_of_a_run(stack, TRIAL, stack.tick)
    burial = calls_of_a_run(stack, "public.none", lambda: send("public.none"))
    create(stack, "public.other")
    stack.sandbox.cloud.disturb("^ssm PutParameter", "400 ValidationException")
    retry = calls_of_a_run(stack, "public.other", lambda: send("public.other"))
    failing = {f"public.t_{n}": call for n, call in enumerate(behind(success, retry))}
    for table in failing:
        create(stack, table)
    died = kill_at(stack, failing, lambda: send(*failing))
    assert services(died) >= {"s3", "sqs"}, died
    stack.sandbox.cloud.calm()
    buried = {f"public.none_{n}": call for n, call in enumerate(behind(success, burial))}
    died = kill_at(stack, buried, lambda: send(*buried))
    assert services(died) >= {"sqs", "ssm", "sns"}, died
    stack.release()
    stack.wait()
    hold(stack.tide, [TRIAL, "public.other", *failing])
    letters = Counter(json.loads(letter["Body"])["table"] for letter in stack.take_letters())
    assert letters == dict.fromkeys(["public.none", *buried], 1)
    # Who dies between noting that an email is being sent and sending it is made up for by a try two minutes later.
    told = {email.subject.split(" ")[1] for email in stack.sandbox.emails}
    assert told <= set(letters)
    assert len(letters) - len(told) <= 1
