"""One message, from its receipt to its end: worked off, hidden for another try, or among the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Literal

import msgspec

from tidelog.altering import Tell
from tidelog.backfilling import Backfilling
from tidelog.chunking import Chunking
from tidelog.deadletters import DeadLetters, Failures
from tidelog.errors import Permanent, TidelogError
from tidelog.ingesting import Ingestion, Noted
from tidelog.letters import Failure, Received, failure_of, retry_seconds
from tidelog.messages import Backfill, Ingest, Message, ReadChunk, Sweep, decode
from tidelog.notices import Notices
from tidelog.parts import Parts
from tidelog.queues import WorkQueue
from tidelog.runs import Run
from tidelog.sweeping import Sweeping


class Retries(msgspec.Struct, frozen=True):
    """How often a message is tried, and how long it rests in between.

    Attributes:
        seconds: after the first failure; twice as long after each further one.
        tries: in all. The queues' own redrive counts them (maxReceiveCount).
    """

    seconds: float
    tries: int


class Jobs:
    """What messages ask for.

    Args:
        parts: what it takes.
        tell: tells of outdated tables that are too large to be read again at once.
    """

    def __init__(self, parts: Parts, tell: Tell = lambda *_: None) -> None:
        self._configurations = parts.configurations
        self._ingestion = Ingestion(parts, tell)
        self._backfilling = Backfilling(parts)
        self._chunking = Chunking(parts)
        self._sweeping = Sweeping(parts, self._ingestion)

    def do(self, work: Message, message: Received, *, seconds: float) -> Run:
        """Do it, by the version of the configuration that the message names, or by the latest.

        Raises:
            TidelogError: why it could not be.
        """
        self._configurations.follow(work.configuration if isinstance(work, Ingest) else None)
        match work:
            case Ingest():
                noted: Noted = "always" if work.request else "never" if work.look else "in time"
                calm = datetime.fromisoformat(work.calm) if work.calm else None
                return self._ingestion.ingest(
                    work.table_name, seconds=seconds, noted=noted, tally=work.tally, calm=calm
                )
            case Backfill():
                return self._backfilling.plan(work, message, seconds=seconds)
            case Sweep():
                return self._sweeping.sweep(work, seconds=seconds)
            case ReadChunk():
                return self._chunking.read(work.table_name, work.plan, work.chunk, seconds=seconds)


class Failed(msgspec.Struct, frozen=True):
    """What became of a message that failed.

    Attributes:
        failure: why, as a person is told.
        error: the error itself.
        then: "buried" (it lies in the dead letters), "retried" (it comes again) or "given up" (SQS moves it to the dead
            letters).
        seconds: after which it comes again.
    """

    failure: Failure
    error: Exception
    then: Literal["buried", "retried", "given up"]
    seconds: int = 0


class Worker:
    """Works messages off.

    Args:
        jobs: what messages ask for.
        queues: the queues that messages come from, by name.
        dead_letters: where those go that can't be worked off.
        failures: where the last failure of the others is noted.
        notices: tells the administrators.
        retries: how often, and when.
        now: the clock, with a zone.
        chance: gives random numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        jobs: Jobs,
        queues: Mapping[str, WorkQueue],
        dead_letters: DeadLetters,
        failures: Failures,
        notices: Notices,
        retries: Retries,
        now: Callable[[], datetime],
        chance: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._queues = queues
        self._dead_letters = dead_letters
        self._failures = failures
        self._notices = notices
        self._retries = retries
        self._now = now
        self._chance = chance

    def work_off(self, message: Received, *, seconds: float, run: str) -> Run | Failed:
        """Do what a message asks for. Whatever is raised by that ends here: the message is tried again or buried.

        Args:
            message: the message.
            seconds: the time there is.
            run: the function's request id.

        Returns:
            What was done. A message that is `Failed` may be deleted only if it is "buried".
        """
        table = ""
        try:
            work = decode(message.body)
            table = str(work.table_name)
            if message.tries > 1:
                self._look_back(message, table, run)
            return self._jobs.do(work, message, seconds=seconds)
        except Exception as error:  # noqa: BLE001 - the boundary of a message: what fails here must not end others
            failure = failure_of(error, message, table=table, run=run, now=self._now())
            if isinstance(error, Permanent):
                return self._bury(message, failure, error)
            return self._retry(message, failure, error)

    def _bury(self, message: Received, failure: Failure, error: Exception) -> Failed:
        try:
            letter = self._dead_letters.bury(message, failure)
        except TidelogError:
            return self._retry(message, failure, error)
        if letter is None:  # Too long with its reason: SQS moves it as it is, once it was received often enough.
            return self._retry(message, failure, error, at_once=True)
        self._notify(letter, failure)
        return Failed(failure, error, "buried")

    def _retry(self, message: Received, failure: Failure, error: Exception, *, at_once: bool = False) -> Failed:
        """Have a message come again. What fails here is made up for: by the log, and by the visibility timeout."""
        last = message.tries >= self._retries.tries
        seconds = 0 if last or at_once else retry_seconds(self._retries.seconds, message.tries, self._chance())
        with suppress(TidelogError):
            self._failures.write(message.id, failure)
        if queue := self._queues.get(message.queue):
            with suppress(TidelogError):
                queue.hide(message, seconds)
        if last:
            self._notify(message.id, failure)
        return Failed(failure, error, "given up" if last else "retried", seconds)

    def _look_back(self, message: Received, table: str, run: str) -> None:
        """Note for a worker that was killed on the last try why that failed; tell before the very last one."""
        with suppress(TidelogError):
            before = self._failures.read(message.id)
            if before and before.tries >= message.tries - 1:
                return
            now = self._now().isoformat(timespec="seconds")
            killed = Failure(
                error="WorkerKilled",
                reason=f"ingest {table}: the worker was killed, or ran out of time or memory",
                hint="See the worker's log for the time before; raise WorkerMemory if it ran out of memory",
                table=table,
                run=run,
                tries=message.tries - 1,
                first_seen=message.first_seen,
                failed_at=now,
            )
            self._failures.write(message.id, killed)
            if message.tries >= self._retries.tries:
                self._notify(message.id, killed)

    def _notify(self, letter: str, failure: Failure) -> None:
        with suppress(TidelogError):  # The alarm on the dead letters tells of them too.
            self._notices.of_dead_letter(letter, failure)
