"""Ten thousand messages that nobody should send: each is done or among the dead letters, and the worker lives on."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.chaos.fuzz import VALID, is_sendable, message
from tests.chaos.letterbox import Letterbox
from tests.chaos.stack import Stack, deployed
from tests.conftest import CreateDatabase
from tidelog.deadletters import DeadLetters, Failures
from tidelog_sandbox import Invocation

SEED = int(os.environ.get("TIDELOG_CHAOS_SEED", random.SystemRandom().getrandbits(32)))
DIRECT, QUEUED = 9_800, 200
TOGETHER = 25
LIMIT = 2**20


@contextmanager
def deployed_over_a_table(create_database: CreateDatabase, directory: Path, **options: Any) -> Iterator[Stack]:
    """Deploy the template over a table without rows, which takes no time to read."""
    print(f"TIDELOG_CHAOS_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    with create_database() as database, deployed(database, directory, **options) as stack:
        database.run("CREATE TABLE t (id int)")
        yield stack


def ends(invocation: Invocation) -> list[str]:
    """Return what became of each record, in their order: "done", "buried", "retried" or "given up"."""
    records = [json.loads(line) for line in invocation.log if line.startswith("{")]
    return [record.get("then", "done") for record in records if record.get("message") in ("run done", "run failed")]


def test_a_worker_given_ten_thousand_odd_messages_lives_and_accounts_for_each(
    create_database: CreateDatabase, tmp_path: Path
) -> None:
    """In batches, by a process each of which gets thousands; the letters are held to what SQS asks of a message."""
    draw = random.Random(SEED)  # noqa: S311 - not for secrets
    bodies: list[str] = []
    while len(bodies) < DIRECT:
        if is_sendable(body := message(draw)):
            bodies.append(body)
    batches = [bodies[start : start + TOGETHER] for start in range(0, DIRECT, TOGETHER)]
    buried = Counter[str]()
    with Letterbox() as letterbox:
        options = {"environment": {"AWS_ENDPOINT_URL_SQS": letterbox.url}}
        with deployed_over_a_table(create_database, tmp_path, **options) as stack, ThreadPoolExecutor(2) as pool:
            for some, invocation in zip(batches, pool.map(lambda some: stack.work(*some), batches), strict=True):
                assert invocation.succeeded, invocation
                assert invocation.response == {"batchItemFailures": []}
                for body, end in zip(some, ends(invocation), strict=True):
                    assert end in ("done", "buried"), (end, body)
                    buried[body] += end == "buried"
                    assert end == "done" or not is_plain(body)
            assert sum(invocation.cold for invocation in stack.invocations) <= 2  # no process had to be replaced
    assert Counter(letter["MessageBody"] for letter in letterbox.letters) == +buried
    assert 0 < buried.total() < DIRECT
    for letter in letterbox.letters:
        error, reason = (letter["MessageAttributes"][name]["StringValue"] for name in ("error", "reason"))
        assert error in ("InvalidMessage", "UnknownTable"), letter
        assert len(reason) > len("read a work message: "), letter


def is_plain(body: str) -> bool:
    """Say whether a message is just what the scheduler sends."""
    try:
        return bool(json.loads(body) == VALID | {"tick": None})
    except (ValueError, RecursionError):
        return False


def test_odd_messages_on_the_queue_end_among_the_dead_letters_with_a_reason(
    create_database: CreateDatabase, tmp_path: Path
) -> None:
    """Sent, received, moved and read by the real ways; some as long as SQS takes them, or longer."""
    draw = random.Random(~SEED)  # noqa: S311 - not for secrets
    bodies = [message(draw) for _ in range(QUEUED - 6)]
    bodies += ["x" * size for size in (LIMIT, LIMIT - 1, LIMIT - 1000, LIMIT + 1)]
    bodies += [json.dumps(VALID | {"table": "é" * 1000}, ensure_ascii=False), "\0"]
    with deployed_over_a_table(create_database, tmp_path) as stack:
        sent = send(stack, bodies)
        stack.sandbox.start_mappings()
        stack.wait()
        runs = [run for run in stack.invocations if run.record]
        assert all(run.succeeded for run in runs)
        done = Counter(run.record["body"] for run in runs if run.record and ends(run) == ["done"])
        failures = Failures(stack.sandbox.client("s3"), stack.sandbox.outputs["LakeBucket"])
        queue = DeadLetters(stack.sandbox.client("sqs"), stack.sandbox.outputs["DeadLettersUrl"], failures)
        with queue.opened() as letters:
            found = list(letters)
    assert all(letter.failure and letter.failure.reason for letter in found)
    assert done + Counter(letter.body for letter in found) == sent
    assert done.total() > 0
    assert sum(len(letter.body) >= LIMIT - 1000 for letter in found) == 3


def send(stack: Stack, bodies: list[str]) -> Counter[str]:
    """Send messages to the work queue, each in a group of its own; return those that SQS has taken."""
    sent = Counter[str]()
    for body in bodies:
        with suppress(ClientError, UnicodeEncodeError):
            stack.send(body)
            sent[body] += 1
    return sent
