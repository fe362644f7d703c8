"""Running a tick in the sandbox, gathering what became of each table, and showing it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tidelog.errors import InvalidMessage
from tidelog.messages import ReadChunk, decode
from tidelog_cli.output import console, counted, fitted, size

if TYPE_CHECKING:
    from tidelog_sandbox.functions import Invocation
    from tidelog_sandbox.sandbox import Sandbox

_RECHECK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class TableResult:
    """What became of one table in one tick.

    Attributes:
        table: the table.
        outcome: "failed", or what tidelog.runs.Run has.
        rows: lines written.
        bytes: their size, compressed.
        sequential_id: of the table's last increment.
        seconds: how long the run took.
        segment: the key of the object, None where there is none.
        error: what kind of failure it was.
        reason: why it failed, and what to do.
        then: what becomes of the message of a table that failed: "retried", "given up" or "buried".
        again: seconds after which it is tried again.
        plan: the plan that was made, or that the chunk is of.
        chunks: how many it has.
        chunk: the chunk that was read; 0 where none was.
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
    plan: int = 0
    chunks: int = 0
    chunk: int = 0


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
    """What has ended: of each table its run, and the chunks that were read."""

    results: dict[str, TableResult] = field(default_factory=dict)
    chunks: list[TableResult] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, invocation: Invocation) -> None:
        if result := read_result(invocation):
            with self.changed:
                if result.chunk:
                    self.chunks.append(result)
                else:
                    self.results[result.table] = result
                self.changed.notify_all()

    @property
    def rows(self) -> int:
        return sum(result.rows for result in (*self.results.values(), *self.chunks))

    def tables(self) -> Iterator[TableResult]:
        """Yield what became of each table, its chunks included."""
        chunks: dict[str, list[TableResult]] = {}
        for chunk in self.chunks:
            chunks.setdefault(chunk.table, []).append(chunk)
        for table in sorted(self.results.keys() | chunks.keys()):
            read = chunks.get(table, [])
            run = self.results.get(table) or TableResult(table, "planned")
            failed = [chunk for chunk in read if chunk.outcome == "failed"]
            yield replace(
                failed[0] if failed else run,
                outcome="failed" if failed else "planned" if read else run.outcome,
                rows=run.rows + sum(chunk.rows for chunk in read),
                bytes=run.bytes + sum(chunk.bytes for chunk in read),
                seconds=round(run.seconds + sum(chunk.seconds for chunk in read), 3),
                chunks=sum(chunk.outcome == "read" for chunk in read),
            )


class Ticks:
    """Runs ticks of a sandbox whose mappings are live, one after another."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._gathered = _Gathered()
        sandbox.on_invocation(self._take)

    def run(self, progress: Callable[[int, int, int], object]) -> TickResult:
        """Run a tick and wait until each of its tables was tried once, and so was each chunk of large ones.

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
        tables = len(tick["tables"])
        with gathered.changed:
            while len(gathered.results) < tables:
                progress(len(gathered.results), tables, gathered.rows)
                gathered.changed.wait(_RECHECK_SECONDS)
        while not self._is_idle():
            progress(tables, tables, gathered.rows)
        return TickResult(tuple(gathered.tables()), tuple(tick["skipped"]), tuple(tick["refused"]))

    def _is_idle(self) -> bool:
        """Wait for a moment; return whether nothing is under way, but for what failed."""
        try:
            self._sandbox.wait_until_idle(_RECHECK_SECONDS, hidden=False)
        except TimeoutError:
            return False
        return True

    def _take(self, invocation: Invocation) -> None:
        self._gathered.take(invocation)


def show_tick(screen: Console, tick: TickResult) -> None:
    """Print what a tick wrote, what was unchanged, and what was left out; failures go to stderr."""
    written = [table for table in tick.tables if table.outcome in ("snapshotted", "ingested", "planned")]
    if written:
        rows = [_row(table) for table in written]
        total = ("", f"{sum(t.rows for t in written):,}", size(sum(t.bytes for t in written)), "", "")
        headings = ("table", "rows", "bytes", "sequential id", "seconds")
        screen.print(fitted(headings, [*rows, total], left=("table",), spare=("seconds",), screen=screen))
    unchanged = [table.table for table in tick.tables if table.outcome in ("unchanged", "covered", "waiting")]
    if unchanged:
        screen.print(f"unchanged: {', '.join(unchanged)}")
    for left in tick.skipped:
        screen.print(f"not taken: {left['table']} is {left['reason']}")
    errors = console(err=True)
    for left in tick.refused:
        errors.print(f"refused: {left['table']}: {left['reason']}", style="red")
    for failed in tick.failed:
        errors.print(f"failed: {failed.reason}", style="red")


def _row(table: TableResult) -> tuple[str, ...]:
    number = {"ingested": f"{table.sequential_id}", "planned": counted(table.chunks, "chunk")}.get(
        table.outcome, "snapshot"
    )
    return (table.table, f"{table.rows:,}", size(table.bytes), number, f"{table.seconds:.2f}")


def read_result(invocation: Invocation) -> TableResult | None:
    """Return what a worker's invocation did, None where it was not one for a table."""
    if invocation.record is None:
        return None
    logged = list(_log_records(invocation.log))
    for record in logged:
        if record.get("message") == "run done":
            names = [each.name for each in fields(TableResult)]
            return TableResult(**{name: record[name] for name in names if name in record})  # None is not logged
        if record.get("message") == "run failed":
            reason = ". ".join(filter(None, [record["reason"], record["hint"]]))
            table = record["table"] or invocation.record["body"]
            then, again = record["then"], record["again_in_seconds"]
            chunk = chunk_of(invocation.record["body"])
            return TableResult(
                table, "failed", error=record["error"], reason=reason, then=then, again=again, chunk=chunk
            )
    reason, body = _what_failed(invocation), invocation.record["body"]
    return TableResult(body, "failed", error=invocation.kind, reason=reason, then="retried", chunk=chunk_of(body))


def chunk_of(body: str) -> int:
    """Return the number of the chunk that a message is about, 0 where it is about none."""
    try:
        message = decode(body)
    except InvalidMessage:
        return 0
    return message.chunk if isinstance(message, ReadChunk) else 0


def _log_records(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        if line.startswith("{"):
            yield json.loads(line)


def _what_failed(invocation: Invocation) -> str:
    error = invocation.error or {}
    return str(error.get("errorMessage") or f"{invocation.function} ended with {invocation.kind}")
