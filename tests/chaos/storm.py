"""Everything that can go wrong, going wrong: each trouble is a loop in a thread of its own, until the storm is over."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
from botocore.exceptions import ClientError
from pg8000.exceptions import DatabaseError, InterfaceError

from tests.chaos.stack import Stack
from tests.integration.test_concurrency import statement
from tidelog_sandbox import Postgres

DAY = 86400
FAULTS: list[dict[str, Any]] = [
    {"calls": "^s3 ", "what": "500 InternalError"},
    {"calls": "^s3 (PUT|POST)", "what": "500 InternalError", "carried_out": True},
    {"calls": "^s3 ", "what": "503 SlowDown"},
    {"calls": "^s3 PUT .*/(ledger|schema)/", "what": "409 ConditionalRequestConflict"},
    {"calls": "^s3 ", "what": "reset"},
    {"calls": "^s3 ", "what": "reset", "carried_out": True},
    {"calls": "^ssm ", "what": "400 ThrottlingException"},
    {"calls": "^ssm PutParameter", "what": "400 ValidationException"},
    {"calls": "^ssm ", "what": "reset", "carried_out": True},
    {"calls": "^sqs ", "what": "400 RequestThrottled"},
    {"calls": "^sqs ", "what": "reset"},
    {"calls": "^sqs ", "what": "reset", "carried_out": True},
    {"calls": "^secretsmanager ", "what": "400 ThrottlingException"},
]
DOWN = (DatabaseError, InterfaceError, OSError, struct.error)
"""What a client of a server sees that is stopped."""


class Storm:
    """What rages over a stack and its server.

    Args:
        stack: the stack.
        postgres: the server.
        seed: of every choice.
    """

    def __init__(self, stack: Stack, postgres: Postgres, seed: int) -> None:
        self._stack = stack
        self._postgres = postgres
        self._seed = seed
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()
        """How often each trouble came."""
        self.troubles: list[tuple[Callable[[random.Random], None], float, float]] = [
            (self.tick, 0.3, 1.5),
            (self.kill, 0.3, 1.5),
            (self.disturb, 0.2, 1.0),
            (self.forget, 2, 5),
            (self.expire, 2, 5),
            (self.restart, 3, 6),
            (self.replay, 0.1, 0.8),
        ]
        """Each with the shortest and the longest time from its end to its next beginning."""

    def rage(self, seconds: float) -> None:
        """Have it all at once, then calm; what was begun goes on."""
        self._stack.plan.change(share=0.01, clock=3 * DAY)
        with ThreadPoolExecutor(20) as pool:
            acting = [pool.submit(self._writer, number) for number in range(4)]
            acting += [pool.submit(self._again_and_again, *trouble) for trouble in self.troubles]
            self._over.wait(seconds)
            self._over.set()
        self._stack.sandbox.cloud.calm()
        self._stack.plan.change()
        for each in acting:
            each.result()

    def tick(self, _: random.Random) -> None:
        """The schedule, whether the scheduler is well or not."""
        self._stack.tick()

    def kill(self, draw: random.Random) -> None:
        """Kill a function's process, whatever it does; one that is just being born would never do anything."""
        processes = [each for each in psutil.Process().children() if is_function(each, older=1)]
        if processes:
            with suppress(psutil.NoSuchProcess):
                draw.choice(processes).kill()
                self.counts["killed"] += 1

    def disturb(self, draw: random.Random) -> None:
        """Let other calls fail than before."""
        cloud = self._stack.sandbox.cloud
        cloud.calm()
        for fault in draw.sample(FAULTS, 3):
            cloud.disturb(**fault, share=draw.choice([0.05, 0.1, 0.3]), seed=draw.getrandbits(32))

    def forget(self, _: random.Random) -> None:
        """Lose every parameter."""
        self._stack.forget()

    def expire(self, _: random.Random) -> None:
        """Lose every upload that is not completed, those under way too."""
        with suppress(ClientError):  # one has just been completed
            self._stack.tide.lake.expire_uploads()

    def restart(self, draw: random.Random) -> None:
        """Stop the server when a run was committed, as in a crash or by its administrator, and start it."""
        self._stack.plan.await_call("s3 PUT ledger", 3)
        self._postgres.restart(draw.choice(["immediate", "immediate", "fast"]))

    def replay(self, draw: random.Random) -> None:
        """Deliver some earlier messages again, in another order."""
        records = [record for each in list(self._stack.invocations) if (record := each.record)]
        if records:
            self._stack.work(*(record["body"] for record in draw.choices(records, k=draw.choice([1, 1, 3]))))

    def _again_and_again(self, trouble: Callable[[random.Random], None], shortest: float, longest: float) -> None:
        draw = random.Random(f"{self._seed} {trouble.__name__}")  # noqa: S311 - not for secrets
        while not self._over.is_set():
            trouble(draw)
            self.counts[trouble.__name__] += 1
            self._over.wait(draw.uniform(shortest, longest))

    def _writer(self, number: int) -> None:
        draw = random.Random(f"{self._seed} writer {number}")  # noqa: S311 - not for secrets
        while not self._over.is_set():
            try:
                with self._stack.tide.database.session() as session:
                    session.run(f"SET synchronous_commit = {draw.choice(['on', 'off', 'off', 'off'])}")
                    while not self._over.is_set():
                        self._transaction(session, draw, number)
            except DOWN:
                time.sleep(0.1)

    def _transaction(self, session: Any, draw: random.Random, number: int) -> None:
        """Write: several statements and tables, savepoints, some of it rolled back."""
        try:
            session.run("BEGIN")
            for _ in range(draw.randrange(1, 5)):
                session.run("SAVEPOINT a")
                session.run(statement(draw, number))
                if draw.random() < 0.2:
                    session.run("ROLLBACK TO a")
                elif draw.random() < 0.5:
                    session.run("RELEASE a")
                self._over.wait(draw.choice([0, 0.002, 0.02, 0.1]))
            session.run("ROLLBACK" if draw.random() < 0.15 else "COMMIT")
            self.counts["transaction"] += 1
        except DatabaseError:
            session.run("ROLLBACK")  # after a deadlock; where the server is gone, this says so


def is_function(process: psutil.Process, *, older: float) -> bool:
    """Say whether a process is a function's, and older than some seconds."""
    try:
        return process.create_time() < time.time() - older and "awslambdaric" in process.cmdline()
    except psutil.Error:
        return False
