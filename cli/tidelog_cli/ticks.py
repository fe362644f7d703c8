"""Running a tick in the sandbox, and gathering what became of each table."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class TableResult:
    """What became of one table in one tick.

    Attributes:
        table: the table.
        outcome: "snapshotted", "ingested", "unchanged", "covered" or "failed".
        rows: lines written.
        bytes: their size, compressed.
        sequential_id: of the table's last increment.
        seconds: how long the run took.
        segment: the key of the object, None where there is none.
        error: what kind of failure it was.
        reason: why it failed, and what to do.
        then: what becomes of the message of a table that failed: "retried", "given up" or "buried".
        again: seconds after which it is tried again.
    """

    table: str
    outcome: str
    rows: int = 0
    bytes: int = 0
    sequential_id: int = 0
    seconds: float = 0.0
    segment: str | None = None
    error: str = ""
    reason: str = ""
    then: str = ""
    again: int = 0


@dataclass(frozen=True, slots=True)
class TickResult:
    """What became of a tick.

    Attributes:
        tables: in order of their names.
        skipped: relations that can't be ingested, and why.
        refused: the same of those that were asked for by name.
    """

    tables: tuple[TableResult, ...]
    skipped: tuple[dict[str, str], ...] = ()
    refused: tuple[dict[str, str], ...] = ()

    @property
    def failed(self) -> tuple[TableResult, ...]:
        """The tables that could not be ingested."""
        return tuple(table for table in self.tables if table.outcome == "failed")

    @property
    def complete(self) -> bool:
        """Whether every table that was asked for was ingested."""
        return not self.failed and not self.refused


class TickFailedError(Exception):
    """The scheduler failed: no table was asked for."""


@dataclass(slots=True)
class _Gathered:
    results: dict[str, TableResult] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, invocation: Invocation) -> None:
        if result := read_result(invocation):
            with self.changed:
                self.results[result.table] = result
                self.changed.notify_all()


class Ticks:
    """Runs ticks of a sandbox whose mappings are live, one after another."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._gathered = _Gathered()
        sandbox.on_invocation(self._take)

    def run(self, progress: Callable[[int, int, int], object]) -> TickResult:
        """Run a tick and wait until each of its tables was tried once.

        Args:
            progress: is told the tables done, the tables in all and the rows so far, now and then.

        Raises:
            TickFailedError: the scheduler failed.
        """
        gathered = self._gathered = _Gathered()
        scheduled = self._sandbox.invoke(self._sandbox.outputs["SchedulerFunction"], {})
        if not scheduled.succeeded:
            raise TickFailedError(_what_failed(scheduled))
        tick = scheduled.response
        with gathered.changed:
            while True:
                rows = sum(result.rows for result in gathered.results.values())
                progress(len(gathered.results), len(tick["tables"]), rows)
                if len(gathered.results) >= len(tick["tables"]):
                    break
                gathered.changed.wait(0.2)
        return TickResult(
            tables=tuple(gathered.results[table] for table in sorted(gathered.results)),
            skipped=tuple(tick["skipped"]),
            refused=tuple(tick["refused"]),
        )

    def _take(self, invocation: Invocation) -> None:
        self._gathered.take(invocation)


def read_result(invocation: Invocation) -> TableResult | None:
    """Return what a worker's invocation did, None where it was not one for a table."""
    if invocation.record is None:
        return None
    logged = list(_log_records(invocation.log))
    for record in logged:
        if record.get("message") == "run done":
            names = ("table", "outcome", "rows", "bytes", "sequential_id", "seconds", "segment")
            return TableResult(**{name: record[name] for name in names if name in record})  # None is not logged
        if record.get("message") == "run failed":
            reason = ". ".join(filter(None, [record["reason"], record["hint"]]))
            table = record["table"] or invocation.record["body"]
            then, again = record["then"], record["again_in_seconds"]
            return TableResult(table, "failed", error=record["error"], reason=reason, then=then, again=again)
    reason = _what_failed(invocation)
    return TableResult(invocation.record["body"], "failed", error=invocation.kind, reason=reason, then="retried")


def _log_records(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        if line.startswith("{"):
            yield json.loads(line)


def _what_failed(invocation: Invocation) -> str:
    error = invocation.error or {}
    return str(error.get("errorMessage") or f"{invocation.function} ended with {invocation.kind}")
