"""What a lake says of its tables, and a stack of itself: asked side by side, and not asked again without need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from tidelog.deadletters import Letter, noted_failures
from tidelog.errors import TidelogError
from tidelog.history import History
from tidelog.letters import Failure
from tidelog.marks import Marks
from tidelog.memory import KEY, Remembered, read_remembered
from tidelog.parameters import Kept, Parameters
from tidelog.plans import OpenPlan
from tidelog.state import Lack, State
from tidelog.stores import NoSuchObjectError, Store
from tidelog.tables import TableName
from tidelog.ticks import LastTick, Ticks
from tidelog_cli.queues import QUEUES, QueueDepth, Queues
from tidelog_cli.stack import AT_ONCE, Stack

_DAY = timedelta(days=1)
_KEPT_SECONDS = 30
"""For how long what a ledger says is taken for true while the table's parameter stays the same."""
_DEAR_SECONDS = 10
"""For how long what costs a call of a function, or a listing, is."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a table stands.

    Attributes:
        table: the table.
        state: as of the newest event; that before the first one where there is none.
        fresh: when it was last read with success (ISO 8601), as far as that is known.
        seen: the same, or when the database had counted no change of it since, whichever is later.
        rows: lines written within the last day.
        bytes: what they take in the lake.
        failure: the last one within the last day.
        dead: whether that lies among the dead letters.
        fault: why its ledger or its parameter can't be read; empty where they can.
    """

    table: TableName
    state: State = field(default_factory=State)
    fresh: str | None = None
    seen: str | None = None
    rows: int = 0
    bytes: int = 0
    failure: Failure | None = None
    dead: bool = False
    fault: str = ""

    @property
    def strategy(self) -> str:
        """How it is read, in one word."""
        return self.state.strategy.partition(":")[0]

    @property
    def lacks(self) -> Lack | None:
        """Why it may not be complete up to its last run."""
        return self.state.lacks

    @property
    def complete(self) -> str | None:
        """Up to when it is complete; None where that can't be said."""
        return self.state.complete_at if self.lacks else self.fresh

    @property
    def plans(self) -> tuple[OpenPlan, ...]:
        """The large reads under way."""
        return self.state.plans


@dataclass(frozen=True, slots=True)
class Overview:
    """How all stands.

    Attributes:
        at: when it was asked.
        tables: by name.
        tick: the last one; None where none was noted.
        queues: of each of `QUEUES` what lies there.
        horizon: who holds it, as the scheduler says; None where nobody does.
        unknown: what could not be asked, and why.
    """

    at: datetime
    tables: tuple[Standing, ...]
    tick: LastTick | None = None
    queues: dict[str, QueueDepth] = field(default_factory=dict)
    horizon: dict[str, Any] | None = None
    unknown: dict[str, str] = field(default_factory=dict)


class Survey:
    """Asks a lake, and the stack that it is of.

    Args:
        store: the lake.
        stack: the stack; None where only the lake is known.
    """

    def __init__(self, store: Store, stack: Stack | None) -> None:
        self._store = store
        self._history = History(store)
        self._office = _Office(stack) if stack else None
        self._known: dict[TableName, tuple[float, Kept | None, Standing]] = {}
        self._failures = _Lasting(lambda: noted_failures(store, datetime.now(UTC) - _DAY))

    def take(self) -> Overview:
        """Ask.

        Raises:
            AccessDenied, StoreUnreachable: the lake or the parameters can't be read at all.
        """
        now = datetime.now(UTC)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            failures = pool.submit(self._failures)
            asked = self._office.ask(pool, now) if self._office else None
            kept = self._office.kept() if self._office else {}
            names = sorted({*self._history.tables(), *kept})
            standing = list(pool.map(lambda name: self._standing(name, kept.get(name), now), names))
            overview = asked() if asked else Overview(now, ())
            letters = self._office.letters(overview.queues.get("dead_letters")) if self._office else []
            try:
                noted = failures.result()
            except TidelogError as error:
                noted, overview = [], replace(overview, unknown={**overview.unknown, "failures": str(error)})
        if self._office and (tick := last_tick(self._store)):
            standing = [replace(each, seen=tick.fresh(each.table, each.fresh)) for each in standing]
        return replace(overview, tables=tuple(_failed(each, noted, letters) for each in standing))

    def _standing(self, table: TableName, kept: Kept | None, now: datetime) -> Standing:
        """Return how a table stands but for its failures, from its ledger where that may say something new."""
        begun = time.monotonic()
        before = self._known.get(table)
        if before and before[1] == kept and kept and begun - before[0] < _KEPT_SECONDS:
            return before[2]
        try:
            standing = self._read(table, kept, now)
        except TidelogError as error:
            standing = Standing(table, fault=str(error))
        self._known[table] = (begun, kept, standing)
        return standing

    def _read(self, table: TableName, kept: Kept | None, now: datetime) -> Standing:
        summary = kept.summary if kept else None
        fault = str(kept.fault) if kept and kept.fault else ""
        head = self._history.head(table, summary.offset if summary else 0)
        if head is None:
            return Standing(table, fresh=summary.checked_at if summary and summary.is_empty else None, fault=fault)
        base = self._history.before(table, head, now - _DAY)
        rows, size = (base.state.rows, base.state.bytes) if base else (0, 0)
        return Standing(
            table=table,
            state=head.state,
            fresh=summary.checked_at if summary and summary.offset else head.state.read_at,
            rows=head.state.rows - rows,
            bytes=head.state.bytes - size,
            fault=fault,
        )


def last_tick(store: Store) -> Remembered | None:
    """Return what the last tick has left, which says what was idle then; None where that can't be read."""
    with suppress(TidelogError, NoSuchObjectError):
        return read_remembered(store.read(KEY))
    return None


class _Lasting:
    """An answer that is asked for anew only after a while."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._asked: float | None = None
        self._answer: Any = None

    def __call__(self) -> Any:
        """Return the answer."""
        if self._asked is None or time.monotonic() - self._asked >= _DEAR_SECONDS:
            self._answer, self._asked = self._ask(), time.monotonic()
        return self._answer


class _Office:
    """What a stack says of itself."""

    def __init__(self, stack: Stack) -> None:
        ssm, prefix = stack.client("ssm"), stack.outputs["ParameterPrefix"]
        self._parameters = Parameters(ssm, prefix)
        self._ticks = Ticks(Marks(ssm, prefix), lambda: datetime.now(UTC))
        self._queues = Queues(stack)
        self._dead_letters = stack.dead_letters
        self._horizon = _Lasting(stack.horizon)
        self._counted = 0
        self._letters: list[Letter] = []

    def kept(self) -> dict[TableName, Kept]:
        """Return what Parameter Store has of every table."""
        return dict(self._parameters.all_kept())

    def ask(self, pool: ThreadPoolExecutor, now: datetime) -> Callable[[], Overview]:
        """Begin to ask; return what waits for the answers. What can't be asked is told, and spoils nothing else."""
        unknown: dict[str, str] = {}

        def begin(what: str, ask: Callable[[], _T]) -> Callable[[], _T | None]:
            future = pool.submit(ask)

            def answer() -> _T | None:
                try:
                    return future.result()
                except TidelogError as error:
                    unknown[what] = str(error)
                    return None

            return answer

        horizon = begin("horizon", self._horizon)
        tick = begin("tick", self._ticks.last)
        oldest = begin("oldest", lambda: self._queues.oldest(now))
        depths = {name: begin(name, lambda name=name: self._queues.depth(name)) for name in QUEUES}  # type: ignore[misc] # mypy can't infer it

        def gather() -> Overview:
            ages = oldest() or {}
            queues = {name: replace(depth, oldest=ages.get(name)) for name, ask in depths.items() if (depth := ask())}
            return Overview(now, (), tick(), queues, horizon(), unknown)

        return gather

    def letters(self, depth: QueueDepth | None) -> list[Letter]:
        """Return the dead letters. Looking hides them for a moment, so nobody looks while their number stays."""
        count = depth.all if depth else 0
        if count != self._counted:
            with self._dead_letters.opened() as letters:
                self._letters = list(letters)
            self._counted = count
        return self._letters


def _failed(standing: Standing, noted: list[Failure], letters: list[Letter]) -> Standing:
    """Return how a table stands with its last failure: that of a dead letter, or else the last one noted."""
    name = str(standing.table)
    for dead, failures in ((True, _of_letters(letters)), (False, iter(noted))):
        if failure := max((each for each in failures if each.table == name), key=lambda f: f.failed_at, default=None):
            return replace(standing, failure=failure, dead=dead)
    return standing


def _of_letters(letters: list[Letter]) -> Iterator[Failure]:
    for letter in letters:
        if letter.failure:
            yield letter.failure
