"""Ticks as the scheduler makes them, over a database and a lake of a test, whose messages the test works off itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from tests.tide import LIMITS, SECONDS, Outbox, Tide
from tidelog.configuration import Configuration
from tidelog.idling import Idling, Outset
from tidelog.letters import Received
from tidelog.limits import Limits
from tidelog.memory import Memory
from tidelog.messages import Ingest
from tidelog.runs import Run
from tidelog.scheduling import Tick, schedule
from tidelog.selection import Selection
from tidelog.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NEVER = 10**9
"""Nothing is looked at for certain: what is left out by mistake is left out for ever."""


def received() -> Received:
    """Return a receipt, as of any message."""
    return Received("m", "r", "", "q", "g", 1, "2026-11-23T12:00:00+00:00")


@dataclass
class Ticking:
    """A scheduler, and a worker for the messages of its ticks."""

    tide: Tide
    looks: int = NEVER
    selection: Selection = field(default_factory=Selection)
    warnings: list[str] = field(default_factory=list)
    due: Iterator[int] = field(default_factory=count)
    queue: Outbox = field(default_factory=Outbox)

    def begin(self, *, source: Source | None = None, configuration: int = 0, everything: bool = False) -> Outset:
        """Begin a tick."""
        version = Configuration(version=configuration)
        return self._idling(source).begin(version, self.selection, everything=everything)

    def end(self, outset: Outset) -> Tick:
        """Send the messages of a tick that was begun."""
        due = f"2026-11-23T12:00:00.{next(self.due):06}Z"
        tick = schedule(due, source=self.tide.source, queue=self.queue, selection=self.selection, outset=outset)
        self._idling().end(outset, due, tick.stirred, tick.idle)
        return tick

    def tick(self, *, source: Source | None = None, configuration: int = 0, everything: bool = False) -> list[Ingest]:
        """Run a tick; return its messages."""
        self.end(self.begin(source=source, configuration=configuration, everything=everything))
        return [message for message in self.queue.take() if isinstance(message, Ingest)]

    def work(self, messages: Sequence[Ingest], *, source: Source | None = None, limits: Limits = LIMITS) -> list[Run]:
        """Work messages off."""
        jobs = self.tide.jobs(source=source or self.tide.source, limits=limits)
        return [jobs.do(message, received(), seconds=SECONDS) for message in messages]

    def round(self, *, everything: bool = False) -> dict[str, str]:
        """Run a tick and work its messages off; return the tables that they were for, each with what came of it."""
        return {run.table.removeprefix("public."): run.outcome for run in self.work(self.tick(everything=everything))}

    def count(self) -> None:
        """Have all that this session has done counted."""
        self.tide.run("SELECT pg_stat_force_next_flush()")

    def change(self, *statements: str) -> dict[str, str]:
        """Change the database, have that counted, and run a tick."""
        self.tide.run(*statements, "SELECT pg_stat_force_next_flush()")
        return self.round()

    def _idling(self, source: Source | None = None) -> Idling:
        tide = self.tide
        return Idling(
            source=source or tide.source,
            parameters=tide.parameters,
            memory=Memory(tide.lake.s3, tide.lake.bucket),
            looks=self.looks,
            now=lambda: datetime.now(UTC),
            warn=self.warnings.append,
        )
